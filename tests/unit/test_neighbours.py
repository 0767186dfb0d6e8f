import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup_job.kernels.neighbours import (
    CellSearch,
    Pairs,
    annoy_pairs,
    at_least,
    exact_pairs,
    find_pairs,
    pair_cosines,
)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows, dtype=np.float32)


def photos_with_copies(n: int, dim: int, seed: int) -> np.ndarray:
    """Random vectors, a third of which are noisy copies of others."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, dim))
    n_copies = n // 3
    noise = rng.uniform(0.0, 0.8, size=(n_copies, 1)) * rng.normal(size=(n_copies, dim))
    rows[:n_copies] = rows[n_copies : 2 * n_copies] + noise
    return unit_rows(rows[rng.permutation(n)])


def as_dict(pairs: Pairs) -> dict[tuple[int, int], float]:
    return dict(
        zip(
            zip(pairs.i.tolist(), pairs.j.tolist(), strict=True), pairs.cosine.tolist(), strict=True
        )
    )


def by_loops(vectors, min_cosine, n_indexed, first_query):
    found = {}
    for i in range(n_indexed):
        for j in range(max(first_query, i + 1), len(vectors)):
            products = vectors[i].astype(np.float64) * vectors[j].astype(np.float64)
            cosine = np.float32(np.clip(products.sum(), -1, 1))
            if float(cosine) >= min_cosine:
                found[i, j] = float(cosine)
    return found


@given(
    n=st.integers(1, 40),
    dim=st.integers(2, 24),
    min_cosine=st.floats(-0.5, 0.99),
    seed=st.integers(0, 2**20),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_exact_search_equals_loops(n, dim, min_cosine, seed, data):
    vectors = photos_with_copies(n, dim, seed)
    n_indexed = data.draw(st.integers(0, n))
    first_query = data.draw(st.integers(0, n_indexed))
    pairs = exact_pairs(vectors, min_cosine, n_indexed, first_query)
    assert as_dict(pairs) == by_loops(vectors, min_cosine, n_indexed, first_query)


def test_exact_search_crosses_the_borders_of_its_blocks():
    vectors = photos_with_copies(5_000, 8, seed=1)
    copies = np.array([[3, 4_999], [1_023, 1_024], [4_095, 4_096]])
    vectors[copies[:, 1]] = vectors[copies[:, 0]]
    found = as_dict(exact_pairs(vectors, 0.9999))
    whole = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    i, j = np.nonzero(np.triu(whole >= 0.9999, 1))
    assert set(found) == set(zip(i.tolist(), j.tolist(), strict=True))
    assert {tuple(pair) for pair in copies.tolist()} <= set(found)


@given(
    n=st.integers(2, 150),
    min_cosine=st.floats(0.3, 0.98),
    seed=st.integers(0, 2**20),
    data=st.data(),
)
@settings(max_examples=25, deadline=None)
def test_annoy_with_many_trees_finds_what_exact_search_finds(n, min_cosine, seed, data):
    vectors = photos_with_copies(n, 16, seed)
    n_indexed = data.draw(st.integers(1, n))
    first_query = data.draw(st.integers(0, n_indexed))
    search = CellSearch(min_cosine, n_trees=60, search_k_factor=4)
    found = annoy_pairs(vectors, search, n_indexed, first_query)
    assert as_dict(found) == as_dict(exact_pairs(vectors, min_cosine, n_indexed, first_query))


def test_annoy_alone_misses_almost_nothing_at_the_default_effort():
    vectors = photos_with_copies(3_000, 64, seed=5)
    true = set(as_dict(exact_pairs(vectors, 0.8)))
    found = set(as_dict(annoy_pairs(vectors, CellSearch(0.8))))
    assert len(true) > 500
    assert found <= true
    assert len(found) >= 0.99 * len(true)


def test_all_pairs_of_300_near_identical_vectors_are_found():
    rng = np.random.default_rng(0)
    crowd = rng.normal(size=(1, 64)) + 0.05 * rng.normal(size=(300, 64))
    vectors = unit_rows(np.concatenate([crowd, rng.normal(size=(500, 64))]))
    pairs = annoy_pairs(vectors, CellSearch(0.9))
    assert set(as_dict(pairs)) == {(i, j) for i in range(300) for j in range(i + 1, 300)}


def test_identical_vectors_are_all_pairs_with_cosine_one():
    row = unit_rows(np.random.default_rng(3).normal(size=(1, 128)))
    pairs = annoy_pairs(np.repeat(row, 120, axis=0), CellSearch(0.97))
    assert len(pairs.i) == 120 * 119 // 2
    np.testing.assert_allclose(pairs.cosine, 1.0, atol=1e-6)
    assert (pairs.cosine <= 1.0).all()


def test_same_input_gives_the_same_pairs_bit_for_bit():
    vectors = photos_with_copies(400, 32, seed=9)
    first, second = (annoy_pairs(vectors, CellSearch(0.7, n_trees=3)) for _ in range(2))
    assert as_dict(first) == as_dict(second)


def test_a_pair_has_the_same_cosine_in_any_cell_and_order():
    vectors = photos_with_copies(300, 128, seed=4)
    order = np.random.default_rng(1).permutation(300)
    here = as_dict(exact_pairs(vectors, 0.5))
    there = as_dict(exact_pairs(vectors[order], 0.5))
    assert len(here) > 50
    assert here == {tuple(sorted((order[i], order[j]))): c for (i, j), c in there.items()}
    for (i, j), cosine in list(here.items())[:20]:
        assert pair_cosines(vectors, np.array([j]), np.array([i]))[0] == np.float32(cosine)


def test_the_floor_is_compared_in_float64_as_spark_compares_it():
    just_below = np.array([0.9], dtype=np.float32)  # 0.89999998 in float64
    assert not at_least(just_below, 0.9)[0]
    assert at_least(just_below, float(just_below[0]))[0]


def test_small_cells_are_exact_and_large_ones_are_not():
    vectors = photos_with_copies(600, 48, seed=2)
    exact = as_dict(exact_pairs(vectors, 0.5))
    poor = {"n_trees": 1, "min_cosine": 0.5}
    assert as_dict(find_pairs(vectors, CellSearch(**poor, exact_below_rows=601))) == exact
    by_annoy = as_dict(find_pairs(vectors, CellSearch(**poor, exact_below_rows=600)))
    assert by_annoy == as_dict(annoy_pairs(vectors, CellSearch(**poor)))
    assert set(by_annoy) < set(exact)


def test_a_large_cell_is_exact_when_few_look():
    vectors = photos_with_copies(600, 48, seed=2)
    poor = CellSearch(0.5, n_trees=1, exact_below_rows=300)
    for n_looking, is_exact in [(149, True), (150, False)]:  # of 600: 300 squared at 150
        found = as_dict(find_pairs(vectors, poor, first_query=600 - n_looking))
        exact = as_dict(exact_pairs(vectors, 0.5, first_query=600 - n_looking))
        assert (found == exact) == is_exact
        assert len(exact) > 20


def test_further_looking_queries_miss_less():
    vectors = photos_with_copies(3_000, 48, seed=6)
    exact = set(as_dict(exact_pairs(vectors, 0.6, first_query=2_800)))
    near, far = (
        set(as_dict(annoy_pairs(vectors, CellSearch(0.6, 4, factor), first_query=2_800)))
        for factor in (1, 2)
    )
    assert len(near) < len(far) <= len(exact)
    assert far <= exact


@pytest.mark.parametrize("n_indexed", [0, 10])
def test_a_cell_where_nobody_looks_has_no_pairs(n_indexed):
    vectors = np.repeat(photos_with_copies(1, 8, seed=0), n_indexed, axis=0)
    for exact_below_rows in (0, 100):
        search = CellSearch(0.5, exact_below_rows=exact_below_rows)
        assert len(find_pairs(vectors, search, first_query=n_indexed).i) == 0


@pytest.mark.parametrize("search", [exact_pairs, lambda v, c: annoy_pairs(v, CellSearch(c))])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_a_row_that_is_no_unit_vector_is_refused(search, bad):
    vectors = photos_with_copies(10, 8, seed=0)
    vectors[4] = bad
    with pytest.raises(ValueError, match="row 4 has norm"):
        search(vectors, 0.5)


def test_wrong_types_and_bounds_are_refused():
    vectors = photos_with_copies(10, 8, seed=0)
    with pytest.raises(ValueError, match="float32"):
        exact_pairs(vectors.astype(np.float64), 0.5)
    with pytest.raises(ValueError, match="first_query"):
        exact_pairs(vectors, 0.5, n_indexed=3, first_query=4)


def test_an_empty_cell_has_no_pairs():
    empty = np.empty((0, 8), dtype=np.float32)
    assert len(exact_pairs(empty, 0.5).i) == 0
    assert len(annoy_pairs(empty, CellSearch(0.5)).i) == 0
