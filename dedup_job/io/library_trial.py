"""Child of `machine.py`: uses every native library a little, and says after each how it went.

A library that was built for another processor imports well and dies of its first instruction. Here
that costs a child, and the last line it wrote says whose fault it was.
"""

import sys
from collections.abc import Callable


def _numpy() -> None:
    import numpy as np

    np.linalg.norm(np.ones((64, 64), np.float32) @ np.ones((64, 64), np.float32))


def _pyarrow() -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pa.BufferOutputStream() as stream:
        pq.write_table(pa.table({"a": [1]}), stream, compression="zstd")


def _opencv() -> None:
    import cv2
    import numpy as np

    cv2.resize(np.zeros((9, 7, 3), np.uint8), (4, 4), interpolation=cv2.INTER_AREA)


def _pillow() -> None:
    from PIL import Image

    Image.new("CMYK", (8, 8)).convert("RGB").tobytes()


def _annoy() -> None:
    from annoy import AnnoyIndex

    index = AnnoyIndex(16, "angular")
    for i in range(32):
        index.add_item(i, [float(i + j) for j in range(16)])
    index.build(2, 1)
    index.get_nns_by_item(0, 4)


def _scipy() -> None:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    connected_components(coo_array(([1], ([0], [1])), shape=(2, 2)))


def _litert() -> None:
    from ai_edge_litert.interpreter import Interpreter

    assert Interpreter


# As `version.library_versions` names them; pyspark needs no trial where it runs.
TRIALS: dict[str, Callable[[], None]] = {
    "numpy": _numpy,
    "pyarrow": _pyarrow,
    "opencv-python-headless": _opencv,
    "pillow": _pillow,
    "annoy": _annoy,
    "scipy": _scipy,
    "ai-edge-litert": _litert,
}


def main() -> None:
    """Print one line a library: its name, a tab, and what went wrong, if anything."""
    for name, attempt in TRIALS.items():
        problem = ""
        try:
            attempt()
        except Exception as error:
            problem = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        sys.stdout.write(f"{name}\t{problem}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
