"""Photo pairs to product pairs to groups, against plain Python."""

import json
import tempfile
import zlib
from collections import defaultdict
from datetime import date
from itertools import combinations, product

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, read_beside, read_table, write_batches, write_table
from dedup_job.kernels.ranking import parse_canonical_order
from dedup_job.nightly import labelling
from dedup_job.stages import group_labels
from dedup_job.stages import groups as groups_stage
from dedup_job.stages.group_labels import GroupRules
from dedup_job.stages.groups import describe_groups, group_products
from dedup_job.stages.pairs import match_products
from dedup_job.stages.products import represent_products
from dedup_job.tables import (
    CONTENTS,
    GROUP_ROWS,
    GROUPED_PAIRS,
    NAMED_MEMBERS,
    PHOTO_PAIRS,
    PHOTO_ROWS,
    PRODUCT_PAIRS,
    PRODUCTS,
    arrow_batch,
)

pytestmark = pytest.mark.spark
RUN_DATE = date(2026, 11, 25)
MIN_SCORE, FLOOR = 0.8, 0.7


def photo(position, sku, sha, variant=None, block="", conflict="", n_pixels=100, order=()):
    return {
        "position": position,
        "sku_id": sku,
        "product": f"v:{variant}" if variant else f"s:{sku}",
        "variant_group": variant,
        "block": block,
        "conflict": conflict,
        "order_values": list(order),
        "image_uri": f"{sku}-{sha}.jpg",
        "uri_key": f"key of {sku}-{sha}.jpg",
        "content_sha256": sha,
        "n_pixels": n_pixels,
    }


def photos(*rows):
    """(sku, sha, keyword arguments) in catalog order."""
    return [
        photo(i, sku, sha, **(more[0] if more else {})) for i, (sku, sha, *more) in enumerate(rows)
    ]


class Catalog:
    """Photo rows, vectors of their contents, and all photo pairs down to the floor.

    `score_of`: (content, content) -> score of a pair; without it the cosine.
    """

    def __init__(self, rows, vectors, score_of=None):
        self.rows, self.vectors, self.score_of = rows, vectors, score_of
        used = sorted({(row["block"], row["content_sha256"]) for row in rows})
        self.contents = [
            {"block": b, "content_sha256": s, "embedding": np.float32(vectors[s]).tobytes()}
            for b, s in used
        ]
        self.pairs = [
            {
                "block": b,
                "sha_a": s,
                "sha_b": t,
                "cosine": self.cosine(s, t),
                "score": self.score(s, t),
            }
            for (b, s), (c, t) in combinations(used, 2)
            if b == c and self.cosine(s, t) >= FLOOR
        ]

    def cosine(self, s, t):
        if s == t:
            return np.float32(1)
        return np.float32(np.sum(self.vectors[s].astype(float) * self.vectors[t].astype(float)))

    def score(self, s, t):
        if s == t or self.score_of is None:
            return self.cosine(s, t)
        # Below the floor of the search no pair is found, whatever it would score.
        return self.score_of(*sorted((s, t))) if self.cosine(s, t) >= FLOOR else np.float32(0)

    def run(
        self,
        spark,
        *,
        chaining="components",
        sku_match="any",
        order="",
        shuffle=None,
        run_date=RUN_DATE,
        previous=None,
    ):
        """(product pairs, pairs, groups) as lists of dictionaries, sorted; `previous`: groups."""
        frames = {
            table.name: _frame(spark, table, rows, shuffle)
            for table, rows in (
                (PHOTO_ROWS, self.rows),
                (PHOTO_PAIRS, self.pairs),
                (CONTENTS, self.contents),
            )
        }
        rows, contents = frames["photo_rows"], frames["contents"]
        columns = parse_canonical_order(order)
        products = represent_products(rows, columns)
        found = match_products(
            products, rows, frames["photo_pairs"], min_score=MIN_SCORE, sku_match=sku_match
        )
        n_conflict_columns = len(json.loads(self.rows[0]["conflict"] or "[]"))
        rules = GroupRules(chaining, columns, MIN_SCORE, run_date, n_conflict_columns)
        with tempfile.TemporaryDirectory() as name:
            folder = Folder(name)
            stored = {
                table: write_table(frame, table, folder.child(table.name))
                for table, frame in ((PRODUCT_PAIRS, found), (PRODUCTS, products))
            }
            if previous is not None:
                previous = write_table(
                    _frame(spark, GROUP_ROWS, previous, shuffle), GROUP_ROWS, folder.child("last")
                )
            labels = labelling.label_products(
                spark, *stored.values(), previous, rules, None, folder
            )
            found, products, members, placed = (
                frame.localCheckpoint()
                for frame in (
                    *(read_table(spark, one) for one in (*stored.values(), labels[0])),
                    read_beside(spark, stored[PRODUCT_PAIRS], labels[1]),
                )
            )
        assert dict(members.dtypes) == {c.name: c.type for c in NAMED_MEMBERS.columns}
        grouping = group_products(placed, members, members.count(), products, rows, contents, rules)
        assert products.columns == PRODUCTS.column_names
        return (
            _collect(found, PRODUCT_PAIRS),
            _collect(grouping.pairs, GROUPED_PAIRS),
            _collect(grouping.groups, GROUP_ROWS),
        )


def _frame(spark, table, rows, shuffle):
    if shuffle is not None:
        rows = [rows[i] for i in np.random.default_rng(shuffle).permutation(len(rows))]
    frame = spark.createDataFrame(pa.Table.from_batches([arrow_batch(table, rows)]))
    return frame if shuffle is None else frame.repartition(5)


def _collect(frame, table):
    assert frame.columns == table.column_names
    types = {column.name: column.type for column in table.columns}
    assert dict(frame.dtypes) == types
    return sorted(
        (row.asDict() for row in frame.collect()), key=lambda row: json.dumps(row, default=str)
    )


def vectors_on_circle(**degrees):
    return {
        sha: np.array([np.cos(np.radians(x)), np.sin(np.radians(x))], np.float32)
        for sha, x in degrees.items()
    }


def random_catalog(seed, score_of=None):
    """60 rows of 24 SKUs (some variants) over 20 contents around 5 directions, two blocks."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(5, 8))
    vectors = {}
    for i in range(20):
        v = centres[i % 5] + 0.7 * rng.normal(size=8)
        vectors[f"{i:02d}"] = (v / np.linalg.norm(v)).astype(np.float32)
    rows = []
    for position in range(60):
        sku = int(rng.integers(24))
        rows.append(
            photo(
                position,
                f"{sku:02d}",
                f"{rng.integers(20):02d}",
                variant=f"V{sku % 4}" if sku < 8 else None,
                block="AB"[sku % 4 == 3],
                conflict=json.dumps([["red", "blue", None][sku % 3]]),
                n_pixels=int(rng.integers(1, 4)),
            )
        )
    return Catalog(rows, vectors, score_of)


def slow_products(rows):
    """(block, product) -> (representative, conflict, main content, {content: photo sort key})."""
    found = {}
    for key in {(row["block"], row["product"]) for row in rows}:
        mine = [row for row in rows if (row["block"], row["product"]) == key]
        resolution = {}
        for row in mine:
            resolution[row["sku_id"]] = max(row["n_pixels"], resolution.get(row["sku_id"], 0))
        best = min(resolution, key=lambda sku: (-resolution[sku], sku))
        shots = {}
        for row in mine:
            shot = (row["sku_id"] != best, row["sku_id"], row["image_uri"], row["uri_key"])
            shots[row["content_sha256"]] = min(shot, shots.get(row["content_sha256"], shot))
        colours = {json.loads(row["conflict"])[0] for row in mine} - {None}
        conflict = json.dumps([colours.pop() if len(colours) == 1 else None])
        main = min(mine, key=lambda row: row["position"])["content_sha256"]
        found[key] = (best, conflict, main, shots)
    return found


def slow_pairs(catalog, sku_match):
    for one, other in combinations(slow_products(catalog.rows).items(), 2):
        if one[0][0] != other[0][0]:
            continue
        a, b = sorted((one[1], other[1]), key=lambda p: p[0])
        hits = [
            (s != t, -catalog.score(s, t), -catalog.cosine(s, t), a[3][s], b[3][t], s, t)
            for s, t in product(a[3], b[3])
            if catalog.score(s, t) >= MIN_SCORE
        ]
        enough = [
            2 * len({hit[5 + side] for hit in hits}) > len(p[3]) for side, p in enumerate((a, b))
        ]
        sizes = [len(a[3]), len(b[3])]
        agrees = {
            "any": bool(hits),
            "main": any((hit[5], hit[6]) == (a[2], b[2]) for hit in hits),
            "majority": all(e for e, n in zip(enough, sizes, strict=True) if n == min(sizes)),
        }[sku_match]
        if hits and agrees:
            near, apart, distance, shot_a, shot_b, _, _ = min(hits)
            x, y = json.loads(a[1])[0], json.loads(b[1])[0]
            yield {
                "sku_id_a": a[0],
                "sku_id_b": b[0],
                "image_uri_a": shot_a[2],
                "image_uri_b": shot_b[2],
                "uri_key_a": shot_a[3],
                "uri_key_b": shot_b[3],
                "n_matching_photos": len(hits),
                "cosine": -distance,
                "score": -apart,
                "match_type": "near" if near else "exact",
                "in_conflict": None not in (x, y) and x != y,
                "decision": None,
            }


def few_scores(s, t):
    """Scores that say nothing of the cosine and of which many are equal."""
    return np.float32((0.6, 0.85, 0.95)[zlib.crc32(f"{s} {t}".encode()) % 3])


@pytest.mark.parametrize("score_of", [None, few_scores], ids=["cosines", "scores"])
@pytest.mark.parametrize("sku_match", ["any", "main", "majority"])
def test_product_pairs_equal_loops(spark, sku_match, score_of):
    catalog = random_catalog(seed=7, score_of=score_of)
    expected = list(slow_pairs(catalog, sku_match))
    found, _, _ = catalog.run(spark, sku_match=sku_match)
    assert {row["match_type"] for row in expected} == {"exact", "near"}
    assert {row["in_conflict"] for row in expected} == {True, False}
    assert found == sorted(expected, key=lambda row: json.dumps(row, default=str))


@pytest.mark.parametrize("chaining", ["components", "average"])
def test_pairs_and_groups_agree_and_do_not_depend_on_order_or_partitions(
    spark, chaining, monkeypatch
):
    catalog = random_catalog(seed=7)
    result = catalog.run(spark, chaining=chaining)
    monkeypatch.setattr(groups_stage, "_MEMBERS_PER_PARTITION", 2)
    assert catalog.run(spark, chaining=chaining, shuffle=1) == result
    _, pairs, groups = result
    group_of = {row["sku_id"]: row["group_id"] for row in groups}
    products = slow_products(catalog.rows).values()
    colour_of = {sku_id: json.loads(conflict)[0] for sku_id, conflict, _, _ in products}
    assert len(group_of) == len(groups)
    for pair in pairs:
        ends = group_of.get(pair["sku_id_a"]), group_of.get(pair["sku_id_b"])
        if pair["parted_by"] is None:
            assert pair["group_id"] is not None and ends == (pair["group_id"],) * 2
        else:
            assert pair["group_id"] is None and (ends[0] is None or ends[0] != ends[1])
    assert {pair["parted_by"] for pair in pairs} >= {None, "conflict"}
    for group_id in set(group_of.values()):
        members = [row for row in groups if row["group_id"] == group_id]
        colours = {colour_of[row["sku_id"]] for row in members}
        assert colours <= {"red", None} or colours <= {"blue", None}
        assert {row["group_size"] for row in members} == {len(members)}
        assert [row["sku_id"] for row in members if row["is_canonical"]] == [
            members[0]["canonical_sku_id"]
        ]
    direct = {frozenset((p["sku_id_a"], p["sku_id_b"])): p["cosine"] for p in pairs}
    for row in groups:
        pair = frozenset((row["sku_id"], row["canonical_sku_id"]))
        assert row["cosine_to_canonical"] >= row["min_pair_cosine"]
        assert row["cosine_to_canonical"] == direct.get(pair, row["cosine_to_canonical"])


def test_sizes_that_share_photos_are_one_product(spark):
    sizes = [(f"{style}-{size}", style, {"variant": style}) for style in "AB" for size in "SML"]
    catalog = Catalog(photos(*sizes), vectors_on_circle(A=0, B=90))
    assert catalog.run(spark) == ([], [], [])


def test_a_group_tells_its_survivor_and_how_each_member_joined(spark):
    rows = photos(
        ("kept", "x", {"order": ["9"], "variant": "style", "n_pixels": 1}),
        ("size", "x", {"order": ["10"], "variant": "style"}),
        ("copy", "x", {"order": ["20"]}),
        ("near", "y", {"order": [None], "n_pixels": 999}),
        ("alone", "z", {"order": ["1"]}),
    )
    catalog = Catalog(rows, vectors_on_circle(x=0, y=20, z=90))
    _, pairs, groups = catalog.run(spark, order="price asc")
    near = np.cos(np.radians(20)).astype(np.float32)
    members = {row.pop("sku_id"): row for row in groups}
    assert set(members) == {"kept", "copy", "near"}
    assert {row["canonical_sku_id"] for row in groups} == {"kept"}
    assert {name: row["match_type"] for name, row in members.items()} == {
        "kept": "exact",
        "copy": "exact",
        "near": "near",
    }
    assert members["kept"]["cosine_to_canonical"] == members["copy"]["cosine_to_canonical"] == 1.0
    assert members["near"]["cosine_to_canonical"] == pytest.approx(near, abs=1e-6)
    assert members["copy"]["min_pair_cosine"] == pytest.approx(near, abs=1e-6)
    assert members["kept"]["variant_group"] == "style" and members["copy"]["variant_group"] is None
    assert members["kept"]["group_first_seen"] == members["kept"]["member_since"] == RUN_DATE
    assert members["kept"]["group_id"].startswith("g20261125-")
    assert len(pairs) == 3


def test_a_conflict_parts_a_pair_also_through_a_chain(spark):
    def colour(value):
        return {"conflict": json.dumps([value, "adult"])}

    rows = photos(("a", "x", colour("red")), ("b", "y", colour(None)), ("c", "z", colour("blue")))
    catalog = Catalog(rows, vectors_on_circle(x=0, y=10, z=25))
    _, pairs, groups = catalog.run(spark)
    where = {(p["sku_id_a"], p["sku_id_b"]): p["parted_by"] for p in pairs}
    assert where == {("a", "b"): None, ("a", "c"): "conflict", ("b", "c"): "chaining"}
    assert sorted(row["sku_id"] for row in groups) == ["a", "b"]


@pytest.mark.parametrize("chaining", ["components", "star", "average"])
def test_red_and_blue_that_did_not_match_do_not_meet_through_unknown(spark, chaining):
    def values(colour, gender):
        return {"conflict": json.dumps([gender, colour])}

    rows = photos(
        ("a", "x", values("red", "men")),
        ("b", "y", values(None, "men")),
        ("c", "z", values("blue", None)),
        ("far", "w", values("red", "men")),
    )
    vectors = vectors_on_circle(x=0, y=20, z=41, w=180)
    found, pairs, groups = Catalog(rows, vectors).run(spark, chaining=chaining)
    assert {(p["sku_id_a"], p["sku_id_b"]): p["in_conflict"] for p in found} == {
        ("a", "b"): False,
        ("b", "c"): False,
    }
    assert [p["parted_by"] for p in pairs] == [None, "chaining"]
    assert sorted(row["sku_id"] for row in groups) == ["a", "b"]


def test_pairs_and_groups_carry_the_inherited_id(spark):
    vectors = vectors_on_circle(x=0, y=10, z=90, w=180)
    _, _, before = Catalog(photos(("b", "x"), ("c", "y")), vectors).run(spark)
    catalog = Catalog(photos(("a", "x"), ("b", "x"), ("p", "z"), ("q", "z"), ("r", "w")), vectors)
    later = date(2026, 11, 26)
    result = catalog.run(spark, run_date=later, previous=before)
    _, pairs, groups = result
    assert {row["sku_id"] for row in before} == {"b", "c"}
    told = ("group_first_seen", "member_since")
    assert {row["sku_id"]: tuple(row[c] for c in told) for row in groups} == {
        "a": (RUN_DATE, later),
        "b": (RUN_DATE, RUN_DATE),
        "p": (later, later),
        "q": (later, later),
    }
    id_of = {row["sku_id"]: row["group_id"] for row in groups}
    assert id_of["a"] == id_of["b"] == before[0]["group_id"]
    assert id_of["p"] == id_of["q"] and id_of["p"].startswith("g20261126-")
    assert {(p["sku_id_a"], p["sku_id_b"]): p["group_id"] for p in pairs} == {
        ("a", "b"): id_of["a"],
        ("p", "q"): id_of["p"],
    }
    assert catalog.run(spark, run_date=later, previous=before, shuffle=3) == result


def test_conflict_columns_without_a_pair(spark):
    rows = photos(("a", "x", {"conflict": '["red"]'}), ("b", "y", {"conflict": "[null]"}))
    assert Catalog(rows, vectors_on_circle(x=0, y=90)).run(spark) == ([], [], [])


def _label(folder, rows, rules, spark=None, previous=None):
    """first_sku_id by sku_id; `rows`: (a, b, score, match_type, in_conflict, conflict of a, of b)."""
    pairs = [
        {
            "sku_id_a": a,
            "sku_id_b": b,
            **{name: "" for name in PRODUCT_PAIRS.column_names if "uri" in name},
            "n_matching_photos": 1,
            "cosine": 0.0,  # groups go by the score
            "score": score,
            "match_type": match_type,
            "in_conflict": in_conflict,
            "decision": None,
        }
        for a, b, score, match_type, in_conflict, *_ in rows
    ]
    conflicts = {}
    for a, b, *_, of_a, of_b in (row for row in rows if len(row) == 7):
        conflicts |= {a: of_a, b: of_b}
    products = [
        {name: None for name in PRODUCTS.column_names}
        | {"block": "", "product": sku, "sku_id": sku, "conflict": conflict, "order_values": []}
        | {"n_pixels": 1, "main_sha256": "", "n_contents": 1}
        for sku, conflict in conflicts.items()
    ]
    stored = [
        StoredTable(table, folder, (write_batches([arrow_batch(table, made)], table, folder),))
        for table, made in ((PRODUCT_PAIRS, pairs), (PRODUCTS, products))
    ]
    members, _ = labelling.label_products(spark, *stored, previous, rules, None, folder)
    sets = defaultdict(list)
    for file in members.files:
        for row in pq.read_table(folder.path(file.name)).to_pylist():
            sets[row["group_id"]].append(row["sku_id"])
    return {sku: min(skus) for skus in sets.values() for sku in skus}


def test_a_last_run_without_groups_leaves_no_ids(tmp_path):
    folder = Folder(str(tmp_path))
    empty = arrow_batch(GROUP_ROWS, [])
    last = StoredTable(GROUP_ROWS, folder, (write_batches([empty], GROUP_ROWS, folder),))
    pairs = [("a", "b", 1.0, "near", False)]
    rules = GroupRules("average", (), 0.8, RUN_DATE, 0)
    assert _label(folder, pairs, rules, previous=last) == {"a": "a", "b": "a"}


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.999, 1.0])
def test_a_weak_link_parts_a_chain_at_any_threshold(threshold, tmp_path):
    chain = [
        (a, b, cosine, "near", False)
        for a, b, cosine in (("a", "b", 1.0), ("b", "c", threshold), ("c", "d", 1.0))
    ]
    rules = GroupRules("average", (), threshold, RUN_DATE, 0)
    labels = _label(Folder(str(tmp_path)), chain, rules)
    assert labels == {"a": "a", "b": "a", "c": "c", "d": "c"}


@pytest.mark.parametrize("chaining", ["components", "star", "average"])
def test_executors_refine_what_the_driver_would(spark, tmp_path, monkeypatch, chaining):
    rng = np.random.default_rng(5)
    skus = [f"s{i:03d}" for i in rng.permutation(120)]
    colour = {sku: json.dumps([[None, "red", "blue"][rng.integers(3)]]) for sku in skus}
    rows = []
    for start in range(0, 120, 10):  # components of up to ten, hardly one of them complete
        for a, b in combinations(sorted(skus[start : start + 10]), 2):
            if rng.random() < 0.3:
                apart = None not in (x := [json.loads(colour[s])[0] for s in (a, b)])
                apart = apart and x[0] != x[1]
                cosine = float(np.float32(rng.uniform(0.81, 1)))
                rows.append((a, b, cosine, "near", apart, colour[a], colour[b]))
    rules = GroupRules(chaining, (), 0.8, RUN_DATE, 1)
    on_driver = _label(Folder(str(tmp_path / "driver")), rows, rules)
    monkeypatch.setattr(labelling, "_MOST_ON_DRIVER", 0)
    monkeypatch.setattr(group_labels, "_PAIRS_PER_BUCKET", 7)
    on_executors = _label(Folder(str(tmp_path / "executors")), rows, rules, spark)
    assert on_executors == on_driver
    assert len(list((tmp_path / "executors" / "open").glob("*.parquet"))) > 5
    for sku, first in on_driver.items():
        assert {json.loads(colour[s])[0] for s in (sku, first)} != {"red", "blue"}


def test_a_large_group_is_one_matrix_product():
    """500 members of 3 photos: 125,000 pairs of members."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1500, 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table = pa.table(
        {
            "group_id": ["g"] * 1500,
            "sku_id": [f"{i // 3:03d}" for i in range(1500)],
            "content_sha256": [f"{i:04d}" for i in range(1500)],
            "match_type": ["near"] * 1500,
            "group_first_seen": [RUN_DATE] * 1500,
            "member_since": [RUN_DATE] * 1500,
            "variant_group": pa.nulls(1500, pa.string()),
            "order_values": pa.array([[]] * 1500, pa.list_(pa.string())),
            "n_pixels": [7] * 1500,
            "embedding": pa.array(list(vectors), pa.list_(pa.float32())),
        }
    )
    rows = describe_groups(table, GroupRules("star", (), MIN_SCORE, RUN_DATE, 0)).to_pylist()
    best = (vectors @ vectors.T).reshape(500, 3, 500, 3).max(axis=(1, 3))
    assert [row["sku_id"] for row in rows] == [f"{i:03d}" for i in range(500)]
    assert [row["cosine_to_canonical"] for row in rows[1:]] == pytest.approx(best[0, 1:], abs=1e-6)
    assert rows[0]["min_pair_cosine"] == pytest.approx(best.min(), abs=1e-6)
