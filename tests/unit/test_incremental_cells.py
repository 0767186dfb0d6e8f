"""Cells in which only new contents look, without Spark: which pairs meet, and how often."""

import hashlib
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup_job.kernels.neighbours import CellSearch, exact_pairs
from dedup_job.kernels.quantiser import train_cells
from dedup_job.stages.candidates import search_cell
from dedup_job.stages.cells import CellPlan, Role, assign_cells

BLOCKS = ("large", "small")


def contents_of(n, share_new, seed):
    """Block, hash, vector and whether it looks; vectors in pairs and crowds, in hash order."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 6))
    vectors[n // 2 :] = vectors[: n - n // 2] + rng.uniform(0, 0.7) * rng.normal(
        size=(n - n // 2, 6)
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [
        (
            BLOCKS[int(rng.random() < 0.2)],
            hashlib.sha256(f"{seed} {row}".encode()).hexdigest(),
            vectors[row].astype(np.float32),
            bool(rng.random() < share_new),
        )
        for row in range(n)
    ]
    return sorted(rows, key=lambda row: row[1])


def met_in_cells(rows, plan, fan_out, min_cosine):
    """How often each pair is found, and the largest number of rows of a cell."""
    blocks, shas, vectors, looks = zip(*rows, strict=True)
    batch = pa.RecordBatch.from_pydict(
        {"block": blocks, "content_sha256": shas, "embedding": list(vectors), "looks": looks}
    )
    cells = defaultdict(list)
    for part in assign_cells(iter([batch]), plan, fan_out):
        for row in part.to_pylist():
            cells[row["block"], row["cell"]].append(row)
    found = Counter()
    for cell in cells.values():
        table = pa.Table.from_pylist(cell, schema=part.schema)
        for pair in search_cell(table, CellSearch(min_cosine)).to_pylist():
            found[tuple(pair[name] for name in ("block", "sha_a", "sha_b", "cosine"))] += 1
            assert pair["score"] is None  # a verifier's matter
    return found, cells


def oracle(rows, min_cosine):
    """Every true pair of which at least one looks, and whether both do."""
    found = {}
    for block in BLOCKS:
        here = [row for row in rows if row[0] == block]
        vectors = np.array([row[2] for row in here], dtype=np.float32).reshape(len(here), 6)
        pairs = exact_pairs(vectors, min_cosine)
        for i, j, cosine in zip(pairs.i, pairs.j, pairs.cosine, strict=True):
            if here[i][3] or here[j][3]:
                key = (block, here[i][1], here[j][1], float(cosine))
                found[key] = here[i][3] and here[j][3]
    return found


catalogs = {
    "n": st.integers(2, 60),
    "share_new": st.sampled_from([0.0, 0.1, 0.4, 1.0]),
    "seed": st.integers(0, 2**20),
}


@given(**catalogs, n_chunks=st.integers(1, 5), n_groups=st.integers(1, 5))
@settings(max_examples=80)
def test_chunks_let_every_pair_with_a_new_content_meet(n, share_new, seed, n_chunks, n_groups):
    rows = contents_of(n, share_new, seed)
    plan = CellPlan(n, 0, n_chunks={"large": n_chunks}, n_groups={"large": n_groups})
    found, cells = met_in_cells(rows, plan, 1, 0.5)
    expected = oracle(rows, 0.5)
    assert set(found) == set(expected)
    # only two new contents may meet twice
    assert all(times <= (2 if expected[pair] else 1) for pair, times in found.items())
    looks = {row[1]: row[3] for row in rows}
    for cell in cells.values():
        assert len({row["content_sha256"] for row in cell}) == len(cell)
        assert all((row["role"] == Role.FOUND) or looks[row["content_sha256"]] for row in cell)


@given(**catalogs)
@settings(max_examples=40)
def test_new_contents_that_look_everywhere_find_what_is_in_its_own_cell_only(n, share_new, seed):
    rows = contents_of(n, share_new, seed)
    vectors = np.array([row[2] for row in rows if row[0] == "large"]).reshape(-1, 6)
    centroids = train_cells(vectors, len(vectors), 8, seed) if len(vectors) else np.eye(6, 6, 0)
    plan = CellPlan(n, 0, quantisers={"large": centroids.astype(np.float32)})
    found, cells = met_in_cells(rows, plan, len(centroids), 0.5)
    assert set(found) == set(oracle(rows, 0.5))
    at_home = Counter(row["content_sha256"] for cell in cells.values() for row in cell)
    assert all(at_home[sha] == 1 for block, sha, _, looks in rows if not looks)


def test_all_pairs_meet_once_when_every_content_looks():
    rows = contents_of(60, 1.0, seed=3)
    found, _ = met_in_cells(rows, CellPlan(60, 0, n_chunks={"large": 4}), 1, 0.5)
    assert set(found) == set(oracle(rows, 0.5)) and len(found) > 10
    assert set(found.values()) == {1}
