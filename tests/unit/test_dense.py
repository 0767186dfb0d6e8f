"""Leaders of dense spots."""

import numpy as np
import pyarrow as pa
import pytest

from dedup_job.kernels.dense import find_leaders
from dedup_job.stages.near_placeholders import choose_leaders, sample_share
from dedup_job.tables import CONTENTS


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def spots(*sizes, seed=0, dim=32):
    """Rows around as many random directions, `sizes` to each, and the spot of each row."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((len(sizes), dim))
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return unit(unit(centres)[owner] + rng.normal(0, 0.005, (len(owner), dim))), owner


def test_each_dense_spot_has_one_leader_the_densest_first():
    vectors, owner = spots(3, 40, 1, 12, 11)
    leaders = find_leaders(vectors, 0.99, 12, 10)
    assert owner[leaders].tolist() == [1, 3]
    assert find_leaders(vectors, 0.99, 12, 1).tolist() == leaders[:1].tolist()
    assert find_leaders(vectors[:0], 0.99, 1, 1).tolist() == []


def test_no_two_leaders_are_neighbours_and_every_dense_row_has_one():
    rng = np.random.default_rng(3)
    vectors = unit(
        rng.standard_normal((400, 3))
    )  # a sphere full of rows: spots run into each other
    near = vectors @ vectors.T >= 0.9
    leaders = find_leaders(vectors, 0.9, 15, 1000)
    assert near[np.ix_(leaders, leaders)].sum() == len(leaders)
    dense = near.sum(axis=1) >= 15
    assert near[np.ix_(dense, leaders)].any(axis=1).all()
    assert dense[leaders].all()


def _contents(vectors, block=""):
    shas = [f"{i:064x}" for i in range(len(vectors))]
    rows = [vector.tobytes() for vector in vectors]
    return pa.table([[block] * len(vectors), shas, rows], schema=CONTENTS.arrow)


def test_blocks_are_looked_at_apart():
    vectors, _ = spots(30)
    sample = pa.concat_tables([_contents(vectors[:15], "a"), _contents(vectors[15:], "b")])
    assert choose_leaders(sample, 1.0, 20) == {}
    assert list(choose_leaders(sample, 1.0, 14)) == ["a", "b"]
    leaders = choose_leaders(_contents(vectors), 1.0, 20)[""]
    assert len(leaders.shas) == 1
    assert leaders.vectors.shape == (1, 32)


@pytest.mark.parametrize(
    ("n_contents", "expected"),
    [(0, 1.0), (16_384, 1.0), (100_000, 0.16384), (10_000_000, 0.0065536)],
)
def test_the_sample_is_bounded(n_contents, expected):
    assert sample_share(n_contents, 200) == pytest.approx(expected)
