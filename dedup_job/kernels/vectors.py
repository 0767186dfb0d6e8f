"""Embeddings as columns and as matrices.

Published embeddings are lists of floats, which every reader knows. Between stages they are bytes: Spark
copies a list float by float on every way to Python and back, bytes at once.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dedup_job.kernels.neighbours import Vectors

_FLOAT = np.dtype("<f4")


def embedding_matrix(column: pa.Array | pa.ChunkedArray) -> Vectors:
    """A column of lists of floats, or of their bytes, as float32 (n, d), contiguous.

    Raises:
        ValueError: embeddings differ in length.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_binary(column.type):
        lengths, size = pc.binary_length(column), _FLOAT.itemsize
        data = column.buffers()[2]
        values = np.frombuffer(data or b"", _FLOAT)
        start = np.frombuffer(column.buffers()[1], np.int32)[column.offset] // size
    else:
        lengths, size, start = pc.list_value_length(column), 1, 0
        values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    dim = (lengths[0].as_py() if len(column) else 0) // size
    if not pc.all(pc.equal(lengths, dim * size), min_count=0).as_py():
        raise ValueError("embeddings of different lengths in one table")
    here = values[start : start + len(column) * dim]
    return np.ascontiguousarray(here.reshape(len(column), dim))


def as_bytes(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column of lists of floats as their bytes, little-endian; bytes stay as they are.

    Raises:
        ValueError: embeddings differ in length.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_binary(column.type):
        return column
    matrix = embedding_matrix(column).astype(_FLOAT, copy=False)
    n, dim = matrix.shape
    offsets = np.arange(n + 1, dtype=np.int32) * np.int32(dim * _FLOAT.itemsize)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(matrix)]
    return pa.Array.from_buffers(pa.binary(), n, buffers)
