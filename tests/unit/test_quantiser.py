import numpy as np

from dedup_job.kernels.quantiser import nearest_cells, sample_size, train_cells, wanted_cells


def unit_rows(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_cells_stay_below_the_bound_even_when_one_kind_of_photo_dominates():
    rng = np.random.default_rng(0)
    popular = rng.normal(size=(1, 16)) + 0.3 * rng.normal(size=(900, 16))
    vectors = unit_rows(np.concatenate([popular, rng.normal(size=(100, 16))]))
    cells = train_cells(vectors, len(vectors), max_members=100, seed=1)
    rows = np.bincount(nearest_cells(vectors, cells, 1)[:, 0], minlength=len(cells))
    assert rows.max() <= 100
    np.testing.assert_allclose(np.linalg.norm(cells, axis=1), 1.0, atol=1e-5)


def test_equal_vectors_do_not_stop_the_training():
    vectors = np.repeat(unit_rows(np.ones((1, 8))), 50, axis=0)
    cells = train_cells(vectors, 50, max_members=16, seed=1)
    np.testing.assert_allclose(cells, np.repeat(vectors[:1], len(cells), axis=0), atol=1e-6)


def test_training_is_repeatable():
    vectors = unit_rows(np.random.default_rng(3).normal(size=(300, 16)))
    first, second = (train_cells(vectors, 3_000, 500, seed=7) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_nearest_cells_are_sorted_by_cosine_with_ties_to_the_smaller():
    cells = unit_rows(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 1.0]]))
    assert nearest_cells(cells[1:2], cells, 3).tolist() == [[1, 2, 3]]
    assert nearest_cells(cells[:1], cells, 9).tolist() == [[0, 3, 1, 2]]


def test_the_sample_is_bounded():
    assert wanted_cells(1_000_000, 250_000) == 8
    assert sample_size(1_000_000, 250_000) == 8 * 64
    assert sample_size(100, 50) == 100
    assert sample_size(10**9, 250_000) == 100_000
