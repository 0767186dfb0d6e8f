import numpy as np
import pyarrow as pa
import pytest

from dedup_job.kernels.vectors import as_bytes, embedding_matrix

ROWS = np.arange(24, dtype=np.float32).reshape(6, 4) / 7


def _lists(rows):
    return pa.array(list(rows), pa.list_(pa.float32()))


def test_lists_and_bytes_are_the_same_matrix():
    assert np.array_equal(embedding_matrix(_lists(ROWS)), ROWS)
    assert as_bytes(_lists(ROWS)).to_pylist() == [row.tobytes() for row in ROWS]
    assert np.array_equal(embedding_matrix(as_bytes(_lists(ROWS))), ROWS)


@pytest.mark.parametrize("column", [_lists(ROWS), as_bytes(_lists(ROWS))])
def test_slices_and_chunks(column):
    assert np.array_equal(embedding_matrix(column.slice(2, 3)), ROWS[2:5])
    assert np.array_equal(embedding_matrix(column.take(pa.array([4, 1]))), ROWS[[4, 1]])
    chunked = pa.chunked_array([column.slice(1, 2), column.slice(5, 1)])
    assert np.array_equal(embedding_matrix(chunked), ROWS[[1, 2, 5]])
    assert as_bytes(chunked).to_pylist() == [row.tobytes() for row in ROWS[[1, 2, 5]]]
    assert embedding_matrix(column.slice(0, 0)).shape == (0, 0)
    assert len(as_bytes(column.slice(0, 0))) == 0


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.binary()])
def test_unequal_lengths_are_an_error(kind):
    rows = [ROWS[0], ROWS[1][:3]]
    column = pa.array([row.tobytes() if kind == pa.binary() else row for row in rows], kind)
    with pytest.raises(ValueError, match="different lengths"):
        embedding_matrix(column)
