r"""Teach the model what people decided, and put the result to use if it is no worse.

Options as `model-training retrain`: decisions -> training pairs -> fine-tuning -> calibration -> gate
-> promotion. It trains in this one process, on the driver; needs the [train] extra.

spark-submit jobs/retrain_model.py --decisions decisions.csv --warehouse s3://lake/dedup \
    --registry /models/shop [--photos DIR] [--products TABLE]
"""

import sys

from model_training.cli import main

if __name__ == "__main__":
    code = main(["retrain", *sys.argv[1:]])
    # An exit with 0 would make Spark's driver wrapper log a SystemExit as a failure on YARN.
    if code:
        sys.exit(code)
