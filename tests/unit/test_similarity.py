import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup_job.kernels import similarity


@pytest.mark.parametrize("block_cells", [1, 50, 8_000_000])
@given(
    n_photos=st.lists(st.integers(1, 4), min_size=1, max_size=7),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_loops_in_any_block_size(block_cells, n_photos, seed):
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(n_photos)), n_photos)
    content = rng.integers(0, 9, len(owner))
    bank = rng.normal(size=(9, 4)).astype(np.float32)
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    canonical = int(rng.integers(len(n_photos)))

    def best(one, other):
        return max(
            1.0
            if content[i] == content[j]
            else min(1.0, float(bank[content[i]].astype(float) @ bank[content[j]].astype(float)))
            for i in np.flatnonzero(owner == one)
            for j in np.flatnonzero(owner == other)
        )

    members = range(len(n_photos))
    lowest = min((best(a, b) for a in members for b in members if a < b), default=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "_BLOCK_CELLS", block_cells)
        found, found_lowest = similarity.group_cosines(owner, content, bank[content], canonical)
    assert found.dtype == np.float32
    assert found == pytest.approx([best(m, canonical) for m in members], abs=1e-6)
    assert found[canonical] == 1.0
    assert found_lowest == pytest.approx(lowest, abs=1e-6)


def test_an_exact_copy_is_exactly_one_even_if_its_vector_is_not_quite_of_unit_norm():
    vectors = np.array([[0.6, 0.79999], [0.6, 0.79999]], np.float32)
    found, lowest = similarity.group_cosines(np.array([0, 1]), np.array([5, 5]), vectors, 0)
    assert found.tolist() == [1.0, 1.0] and lowest == 1.0
