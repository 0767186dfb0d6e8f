"""spark-submit entry point of the nightly job; options as `dedup-job run`.

spark-submit --master spark://HOST:7077 --py-files catalog_dedup.zip \
    jobs/nightly_dedup.py --catalog s3://shop/catalog.parquet --warehouse s3://lake/dedup
"""

import sys

from dedup_job.cli import main_nightly

if __name__ == "__main__":
    code = main_nightly(sys.argv[1:])
    # An exit with 0 would make Spark's driver wrapper log a SystemExit as a failure on YARN.
    if code:
        sys.exit(code)
