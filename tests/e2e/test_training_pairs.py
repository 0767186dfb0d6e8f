"""Decisions become labelled photo pairs: each counted once, none that would teach something wrong."""

import csv

import pyarrow.parquet as pq
import pytest

from dedup_job.tables import PHOTO_DIGITS
from model_training.cli import main
from tests.e2e.jobs import run_job, write_csv
from tests.photos import draw_photo, encode

pytestmark = pytest.mark.spark

# SKU -> photos. Only equal contents reach the threshold.
SHOP = {
    "a": [1],
    "b": [2],
    "c": [3],
    "d": [4, 5],
    "e": [5, 6],
    "f": [7, 8],
    "g": [1],
    "h": [9],
    "i": [10],
}
DECISIONS = [
    ("a", "b", "same", ""),
    ("c", "b", "same", ""),
    ("a", "c", "different", ""),  # the other two say otherwise; one of them goes
    ("d", "f", "different", ""),
    ("d", "e", "same", ""),  # they share photo 5: one picture
    ("e", "f", "same", ""),  # two photos each, no match: which?
    ("a", "g", "same", ""),  # one picture
    ("a", "nobody", "same", ""),
    ("a", "h", "same", "0" * PHOTO_DIGITS),  # bound to a photo that a no longer has
    ("a", "i", "different", ""),  # i's photo is gone by now
    ("b", "a", "same", ""),  # says the first again
    ("a", "a", "same", ""),
]


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory):
    """(folder of photos k.jpg, warehouse) after a night, one photo deleted since."""
    folder = tmp_path_factory.mktemp("pairs")
    for number in range(1, 11):
        (folder / f"{number}.jpg").write_bytes(encode(draw_photo(number, 64, 80)))
    rows = [
        {"sku_id": sku, "image_uri": f"{number}.jpg"}
        for sku, numbers in SHOP.items()
        for number in numbers
    ]
    catalog = write_csv(folder / "catalog.csv", rows)
    run_job(catalog, folder / "out", match__min_cosine=1.0)
    (folder / "10.jpg").unlink()
    return folder, folder / "out"


def write_decisions(folder, rows):
    path = folder / "decisions.csv"
    with path.open("w", newline="") as stream:
        header = ["sku_id_a", "sku_id_b", "decision", "photos_a"]
        csv.writer(stream).writerows([header, *rows])
    return path


def ask(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_every_decision_is_taught_or_counted(shop, tmp_path, capsys):
    photos, warehouse = shop
    decisions = write_decisions(tmp_path, DECISIONS)
    out = tmp_path / "pairs"
    for _ in range(2):  # a second call replaces what the first wrote
        code, said, _ = ask(
            capsys, "pairs", "--decisions", decisions, "--warehouse", warehouse, "--out", out
        )
    assert code == 0
    assert said == (
        f"{out}: 1 same and 2 different decisions; not used: 2 unusable, 2 no photo, 1 changed, "
        "2 one picture, 1 ambiguous, 1 contradicted\n"
    )
    rows = pq.read_table(out / "pairs.parquet").to_pylist()
    number_of = {
        path.name: next(n for n in range(1, 10) if same(photos / f"{n}.jpg", path))
        for path in (out / "photos").iterdir()
    }
    found = {
        (row["sku_id_a"], row["sku_id_b"], row["label"], *(number_of[name(row, s)] for s in "ab"))
        for row in rows
    }
    both = {("a", "b", 1, 1, 2), ("b", "c", 1, 2, 3)}
    assert len(found & both) == 1
    assert found - both == {("a", "c", 0, 1, 3)} | {
        ("d", "f", 0, d, f) for d in (4, 5) for f in (7, 8)
    }


def name(row, side):
    return row[f"image_{side}"].removeprefix("photos/")


def same(one, other):
    return one.read_bytes() == other.read_bytes()


def test_nothing_to_learn_is_one_line(shop, tmp_path, capsys):
    decisions = write_decisions(tmp_path, [("a", "g", "same", "")])
    options = ("pairs", "--decisions", decisions, "--warehouse", shop[1])
    code, _, error = ask(capsys, *options, "--out", tmp_path / "p")
    assert code == 2 and error.count("\n") == 1
    assert (
        "nothing to learn from (0 same and 0 different decisions; not used: 1 one picture" in error
    )


def test_a_directory_of_other_things_is_left_alone(shop, tmp_path, capsys):
    decisions = write_decisions(tmp_path, DECISIONS)
    options = ("pairs", "--decisions", decisions, "--warehouse", shop[1])
    code, _, error = ask(capsys, *options, "--out", tmp_path)
    assert code == 2 and "holds decisions.csv, which is not of this command" in error


def test_a_photo_that_changed_since_the_run_is_not_taught(shop, tmp_path, capsys):
    photos, warehouse = shop
    decisions = write_decisions(tmp_path, [("a", "b", "same", ""), ("b", "h", "different", "")])
    before = (photos / "1.jpg").read_bytes()
    (photos / "1.jpg").write_bytes(encode(draw_photo(99, 64, 80)))
    try:
        code, said, _ = ask(
            capsys, "pairs", "--decisions", decisions, "--warehouse", warehouse,
            "--out", tmp_path / "p",
        )  # fmt: skip
    finally:
        (photos / "1.jpg").write_bytes(before)
    # Groups have thumbnails: a shares its photo with g. Of the content that was decided on, never the new.
    rows = pq.read_table(tmp_path / "p" / "pairs.parquet").to_pylist()
    new = encode(draw_photo(99, 64, 80))
    assert code == 0 and len(rows) == 2 and "1 same and 1 different" in said
    assert "; 1 photos are gone: thumbnails" in said
    assert new not in [path.read_bytes() for path in (tmp_path / "p" / "photos").iterdir()]


def test_photos_come_from_where_the_run_had_them(spark, photo_server, tmp_path, capsys):
    """Under the run's own rules: this host is allowed by its settings only."""
    contents = {name: encode(draw_photo(seed, 64, 80)) for seed, name in ((21, "x"), (22, "y"))}
    for name, data in contents.items():
        photo_server.routes[f"/{name}.jpg"] = data
    rows = [{"sku_id": n, "image_uri": photo_server.url(f"/{n}.jpg")} for n in contents]
    catalog = write_csv(tmp_path / "catalog.csv", rows)
    run_job(catalog, tmp_path / "out", fetch__allow_hosts=["127.0.0.1"], match__min_cosine=1.0)
    decisions = write_decisions(tmp_path, [("x", "y", "different", "")])
    code, said, _ = ask(
        capsys, "pairs", "--decisions", decisions, "--warehouse", tmp_path / "out",
        "--out", tmp_path / "pairs",
    )  # fmt: skip
    assert code == 0 and "0 same and 1 different decisions\n" in said
    found = {path.read_bytes() for path in (tmp_path / "pairs" / "photos").iterdir()}
    assert found == set(contents.values())
