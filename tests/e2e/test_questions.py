"""`find`, `compare` and `explain` answer as the nightly job does."""

import json

import cv2
import numpy as np
import pytest

from dedup_job.cli import main
from tests.e2e.jobs import read_report, run_job, write_csv
from tests.photos import draw_photo, encode

pytestmark = pytest.mark.spark

# SKU -> (photo, JPEG quality); design 0 and 1 have near copies
SHOP = {"a": (0, 95), "b": (0, 80), "<b>c</b>": (0, 70), "d": (1, 95), "e": (1, 75), "f": (2, 95)}


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory):
    """(folder of photos, warehouse) after a night; photo of SKU k is k-th.jpg."""
    folder = tmp_path_factory.mktemp("questions")
    for i, (design, quality) in enumerate(SHOP.values()):
        (folder / f"{i}.jpg").write_bytes(encode(draw_photo(design, 240, 320), quality=quality))
    rows = [{"sku_id": sku, "image_uri": f"{i}.jpg"} for i, sku in enumerate(SHOP)]
    run_job(write_csv(folder / "catalog.csv", rows), folder / "out", match__min_cosine=0.97)
    return folder, folder / "out"


def ask(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def group_of(warehouse):
    return {row["sku_id"]: row["group_id"] for row in read_report(warehouse, "duplicate_groups")}


def test_find_agrees_with_the_groups_of_the_night(shop, capsys):
    folder, warehouse = shop
    groups = group_of(warehouse)
    assert len(groups) == 5
    for i, sku in enumerate(SHOP):
        code, out, _ = ask(capsys, "find", folder / f"{i}.jpg", "--warehouse", warehouse, "--json")
        found = json.loads(out)["found"]
        assert code == 0 and found[0]["cosine"] == pytest.approx(1, abs=1e-5)
        matches = {one["sku_id"] for one in found if one["is_match"]}
        group = groups.get(sku)
        assert matches == ({s for s, g in groups.items() if g == group} if group else {sku})
        assert {one["sku_id"]: one["group_id"] for one in found} == {s: groups.get(s) for s in SHOP}


def test_find_says_when_nothing_is_like_it(shop, tmp_path, capsys):
    photo = tmp_path / "new.jpg"
    photo.write_bytes(encode(draw_photo(77, 240, 320)))
    code, out, _ = ask(capsys, "find", photo, "--warehouse", shop[1], "--top", "2")
    assert code == 0 and out.startswith("not in the catalog") and len(out.splitlines()) == 4


@pytest.mark.parametrize(
    ("photo", "message"),
    [("absent.jpg", "No such file"), ("page.jpg", "cannot be used: not_image: HTML content")],
)
def test_a_photo_that_cannot_be_used_is_told_in_one_line(shop, tmp_path, capsys, photo, message):
    (tmp_path / "page.jpg").write_bytes(b"<!doctype html>")
    for command in (["find", "--warehouse", shop[1]], ["compare", shop[0] / "0.jpg"]):
        code, _, err = ask(capsys, *command, tmp_path / photo)
        assert code == 2 and message in err and len(err.splitlines()) == 1


def test_compare_two_photos(shop, tmp_path, capsys):
    folder, _ = shop
    picture = tmp_path / "why.png"
    code, out, _ = ask(capsys, "compare", folder / "0.jpg", folder / "1.jpg", "--out", picture)
    assert code == 0 and out.startswith("one product, probability of one 0.9")
    assert cv2.imdecode(np.frombuffer(picture.read_bytes(), np.uint8), cv2.IMREAD_COLOR) is not None
    code, out, _ = ask(capsys, "compare", folder / "0.jpg", folder / "3.jpg", "--json")
    told = json.loads(out)
    assert code == 0 and told["match_probability"] < 0.5 and told["cosine"] < 0.97
    code, _, err = ask(capsys, "compare", *(folder / f"{i}.jpg" for i in "01"), "--out", "why.gif")
    assert code == 2 and "expected a .png or .html file" in err


def test_explain_says_why_and_since_when(shop, tmp_path, capsys):
    _, warehouse = shop
    page = tmp_path / "why.html"
    code, out, _ = ask(capsys, "explain", "<b>c</b>", "a", "--warehouse", warehouse, "--out", page)
    assert code == 0 and "together in g" in out and "night 2026-01-02" in out
    assert "&lt;b&gt;c" in page.read_text() and "<b>" not in page.read_text()
    code, out, _ = ask(capsys, "explain", "a", "d", "--warehouse", warehouse)
    assert code == 0 and "not together: no photo pair of theirs reaches the threshold" in out
    for skus, message in ((("a", "a"), "two different SKUs"), (("a", "x"), "no usable photo")):
        code, _, err = ask(capsys, "explain", *skus, "--warehouse", warehouse)
        assert code == 2 and message in err


def test_explain_takes_thumbnails_where_photos_are_gone(shop, capsys):
    folder, warehouse = shop
    hidden = folder / "0.jpg"
    data = hidden.read_bytes()
    hidden.unlink()
    try:
        code, out, _ = ask(capsys, "explain", "a", "b", "--warehouse", warehouse)
    finally:
        hidden.write_bytes(data)
    assert code == 0 and "together in g" in out
    cosine = float(out.split("cosine ")[1].split(",")[0])
    assert cosine > 0.97
