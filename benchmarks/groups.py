"""Edges to groups at millions of edges: seconds of each step, and the memory of the driver.

    python -m benchmarks.groups [--edges 10000000] [--out FILE.json]

Draws product pairs as a catalog has them: mostly pairs and triples, chains that the chaining rule
cuts, families of up to ten, and a few components of a hundred. SKU ids are in no order. Steps are
those of the job: groups by the default chaining rule and their ids (an earlier night knew nine SKUs in
ten); survivors and cosines, which reads a vector for each SKU; and the place of every pair.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.watch import MemoryWatch
from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, read_beside, read_table, write_batches, write_table
from dedup_job.kernels.grouping import connected_components
from dedup_job.tables import (
    CONTENTS,
    GROUP_ROWS,
    GROUPED_PAIRS,
    PHOTO_ROWS,
    PRODUCT_PAIRS,
    PRODUCTS,
    Table,
)

THRESHOLD = 0.95
_ROWS_PER_FILE = 1_000_000
# Of components: nodes, share of all components, share of its pairs that have an edge (a chain
# through all nodes is always there).
_SHAPES = [(2, 0.72, 1.0), (3, 0.14, 1.0), (4, 0.06, 0.0), (6, 0.06, 0.8), (10, 0.0195, 0.7)]
_LARGE = (100, 0.0005, 0.05)
_DIM = 128


@dataclass(frozen=True)
class Graph:
    """Nodes 0 to n-1 in no order; `a`, `b` int64 (m,), `cosine` float32 (m,) at or above THRESHOLD."""

    n_nodes: int
    a: np.ndarray
    b: np.ndarray
    cosine: np.ndarray


def draw_graph(n_edges: int, seed: int = 0) -> Graph:
    """Components of `_SHAPES` until there are about so many edges."""
    rng = np.random.default_rng(seed)
    shapes = [*_SHAPES, _LARGE]
    per_component = sum(
        share * (n - 1 + density * (n * (n - 1) / 2 - (n - 1))) for n, share, density in shapes
    )
    n_components = int(n_edges / per_component)
    ends, n_nodes = [], 0
    for n, share, density in shapes:
        count = round(n_components * share)
        starts = n_nodes + np.arange(count)[:, None] * n
        i, j = np.triu_indices(n, 1)
        kept = (j == i + 1) | (rng.random((count, len(i))) < density)
        ends.append(np.stack([(starts + i)[kept], (starts + j)[kept]]))
        n_nodes += count * n
    left, right = np.concatenate(ends, axis=1)
    names = rng.permutation(n_nodes)
    left, right = names[left], names[right]
    order = rng.permutation(len(left))
    a, b = np.minimum(left, right)[order], np.maximum(left, right)[order]
    return Graph(n_nodes, a, b, rng.uniform(THRESHOLD + 1e-3, 1.0, len(a)).astype(np.float32))


def _sku_ids(numbers: np.ndarray) -> pa.Array:
    return pa.array(np.char.add("SKU-", np.char.zfill(numbers.astype(str), 9)))


def _store(table: Table, columns, n_rows: int, folder: Path) -> StoredTable:
    """Files of a million rows; `columns` gives those of rows `start` to `stop`."""
    files = []
    for start in range(0, n_rows, _ROWS_PER_FILE):
        made = columns(start, min(n_rows, start + _ROWS_PER_FILE))
        rows = pa.table({c: made[c] for c in table.column_names}).cast(table.arrow)
        files.append(write_batches(rows.to_batches(65_536), table, Folder(str(folder))))
    return StoredTable(table, Folder(str(folder)), tuple(files))


def store_pairs(graph: Graph, folder: Path) -> StoredTable:
    def columns(start: int, stop: int) -> dict:
        n, rows = stop - start, slice(start, stop)
        a, b = _sku_ids(graph.a[rows]), _sku_ids(graph.b[rows])
        return {
            "sku_id_a": a,
            "sku_id_b": b,
            **{f"image_uri_{e}": _uris(x) for e, x in (("a", a), ("b", b))},
            **{f"uri_key_{e}": _uris(x) for e, x in (("a", a), ("b", b))},
            "n_matching_photos": np.ones(n, np.int32),
            "cosine": graph.cosine[rows],
            "score": graph.cosine[rows],
            "match_type": ["near"] * n,
            "in_conflict": np.zeros(n, bool),
            "decision": pa.nulls(n, pa.string()),
        }

    return _store(PRODUCT_PAIRS, columns, len(graph.a), folder)


def _uris(skus: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise("s3://photos/", skus, ".jpg", "")


def _contents_of(skus: pa.Array) -> pa.Array:
    """64 digits that differ from one SKU to the next."""
    digits = pc.utf8_slice_codeunits(skus, 4)
    return pc.utf8_lpad(digits, 64, "0")


def store_products(graph: Graph, folder: Path) -> StoredTable:
    def columns(start: int, stop: int) -> dict:
        n, skus = stop - start, _sku_ids(np.arange(start, stop))
        return {
            "block": [""] * n,
            "product": skus,
            "sku_id": skus,
            "variant_group": pa.nulls(n, pa.string()),
            "conflict": [""] * n,
            "order_values": pa.array([[]] * n, pa.list_(pa.string())),
            "n_pixels": 1_000 + np.arange(start, stop) % 977,
            "main_sha256": _contents_of(skus),
            "n_contents": np.ones(n, np.int32),
        }

    return _store(PRODUCTS, columns, graph.n_nodes, folder)


def store_photo_rows(graph: Graph, folder: Path) -> StoredTable:
    def columns(start: int, stop: int) -> dict:
        n, skus = stop - start, _sku_ids(np.arange(start, stop))
        known = {
            "sku_id": skus,
            "product": skus,
            "block": [""] * n,
            "conflict": [""] * n,
            "order_values": pa.array([[]] * n, pa.list_(pa.string())),
            "image_uri": _uris(skus),
            "uri_key": _uris(skus),
            "content_sha256": _contents_of(skus),
            "n_pixels": 1_000 + np.arange(start, stop) % 977,
            "position": np.arange(start, stop),
            "variant_group": pa.nulls(n, pa.string()),
        }
        return {c: known[c] for c in PHOTO_ROWS.column_names}

    return _store(PHOTO_ROWS, columns, graph.n_nodes, folder)


def store_contents(graph: Graph, folder: Path) -> StoredTable:
    rng = np.random.default_rng(1)

    def columns(start: int, stop: int) -> dict:
        n = stop - start
        vectors = rng.standard_normal((n, _DIM), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return {
            "block": [""] * n,
            "content_sha256": _contents_of(_sku_ids(np.arange(start, stop))),
            "embedding": [vector.tobytes() for vector in vectors],
        }

    return _store(CONTENTS, columns, graph.n_nodes, folder)


def store_previous(graph: Graph, folder: Path) -> StoredTable:
    """An earlier night's groups: tonight's components, each SKU there nine times in ten."""
    when = date(2026, 1, 1)
    component = connected_components(graph.n_nodes, graph.a, graph.b)
    known = np.flatnonzero(np.random.default_rng(2).random(graph.n_nodes) < 0.9)

    def columns(start: int, stop: int) -> dict:
        n, numbers = stop - start, known[start:stop]
        skus, firsts = _sku_ids(numbers), _sku_ids(component[numbers])
        return {
            "group_id": pc.binary_join_element_wise("g20260101-", firsts, ""),
            "sku_id": skus,
            "canonical_sku_id": firsts,
            "is_canonical": numbers == component[numbers],
            "group_size": np.full(n, 2, np.int32),
            "cosine_to_canonical": np.ones(n, np.float32),
            "min_pair_cosine": np.ones(n, np.float32),
            "match_type": ["near"] * n,
            "group_first_seen": [when] * n,
            "member_since": [when] * n,
            "variant_group": pa.nulls(n, pa.string()),
        }

    return _store(GROUP_ROWS, columns, len(known), folder)


def store_all(graph: Graph, work: Path) -> dict[str, StoredTable]:
    """The tables that the step reads, below an empty folder."""
    shutil.rmtree(work, ignore_errors=True)
    return {
        "pairs": store_pairs(graph, work / "pairs"),
        "products": store_products(graph, work / "products"),
        "previous": store_previous(graph, work / "previous"),
        "photo_rows": store_photo_rows(graph, work / "photo_rows"),
        "contents": store_contents(graph, work / "contents"),
    }


def measure(spark, stored: dict[str, StoredTable], work: Path) -> dict[str, float]:
    """Seconds of each step, each stored before the next begins."""
    from dedup_job.nightly.labelling import label_products
    from dedup_job.stages.group_labels import GroupRules
    from dedup_job.stages.groups import group_products

    rules = GroupRules("average", (), THRESHOLD, date(2026, 1, 2))
    frames = {name: read_table(spark, table) for name, table in stored.items()}
    seconds = {}

    def timed(name: str, act):
        started = time.monotonic()
        result = act()
        seconds[name] = time.monotonic() - started
        print(f"{name:10s} {seconds[name]:7.1f} s", flush=True)
        return result

    members, places = timed(
        "labels",
        lambda: label_products(
            spark,
            stored["pairs"],
            stored["products"],
            stored["previous"],
            rules,
            None,
            Folder(str(work / "labels")),
        ),
    )
    grouping = group_products(
        read_beside(spark, stored["pairs"], places),
        read_table(spark, members),
        members.n_rows,
        frames["products"],
        frames["photo_rows"],
        frames["contents"],
        rules,
    )
    for name, frame, table in (
        ("groups", grouping.groups, GROUP_ROWS),
        ("pairs", grouping.pairs, GROUPED_PAIRS),
    ):
        timed(
            name, lambda f=frame, t=table, n=name: write_table(f, t, Folder(str(work / f"out-{n}")))
        )
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edges", type=int, default=10_000_000)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dedup-bench")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    graph = draw_graph(arguments.edges)
    work = arguments.work / f"groups-{arguments.edges}"
    stored = store_all(graph, work)
    n_edges, n_skus = len(graph.a), graph.n_nodes
    del graph
    print(f"{n_edges} edges between {n_skus} SKUs", flush=True)
    os.environ["DEDUP_LOCAL_CORES"] = "2"
    from dedup_job.io.session import open_session

    spark = open_session("benchmark", is_large=True)
    with MemoryWatch() as watch:
        seconds = measure(spark, stored, work)
    total = sum(seconds.values())
    print(f"all        {total:7.1f} s, {n_edges / total:.0f} edges/s")
    print("highest memory, MiB:", {k: round(v) for k, v in watch.peaks_mib.items() if v > 100})
    if arguments.out:
        result = {"edges": n_edges, "skus": n_skus, "seconds": seconds, "mib": watch.peaks_mib}
        arguments.out.write_text(json.dumps(result, indent=2))
    spark.stop()


if __name__ == "__main__":
    main()
