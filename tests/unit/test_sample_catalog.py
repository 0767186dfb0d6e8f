"""The sample catalog: what the demo promises about it must hold before the demo measures anything."""

import csv
import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from dedup_job.errors import DedupError, ImageRejected, RejectReason
from dedup_job.kernels.images import decode, prepare
from dedup_job.sample.backgrounds import BACKGROUNDS
from dedup_job.sample.catalog import CATALOG_COLUMNS, TRUTH_COLUMNS, write_sample_catalog
from dedup_job.sample.cloth import PATTERNS, PRINTS, Cloth
from dedup_job.sample.edits import EDITS, apply_edits
from dedup_job.sample.photo import Design, Shot, photograph
from dedup_job.sample.plan import plan_listings
from dedup_job.sample.silhouettes import KINDS

N_PRODUCTS = 24
SEED = 7


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _hashes(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample_catalog(tmp_path_factory.mktemp("sample"), N_PRODUCTS, SEED)


@pytest.fixture(scope="module")
def rows(sample):
    truth = {row["sku_id"]: row for row in _read(sample.truth)}
    return [{**row, **truth[row["sku_id"]]} for row in _read(sample.catalog)]


def _usable(rows):
    return [r for r in rows if r["kind"] != "placeholder" and not r["kind"].startswith("broken")]


def test_same_seed_gives_same_bytes_and_another_seed_other_ones(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_sample_catalog(tmp_path / name, 4, seed)
    assert _hashes(tmp_path / "a") == _hashes(tmp_path / "b")
    assert _hashes(tmp_path / "a") != _hashes(tmp_path / "c")


def test_counts_agree_with_the_files(sample, rows):
    assert sample.n_skus == len(rows) == len({row["sku_id"] for row in rows})
    assert sample.n_broken == sum(row["kind"].startswith("broken") for row in rows) == 3
    assert sample.n_placeholder == sum(row["kind"] == "placeholder" for row in rows) > 20
    assert sample.n_products == len({row["product_id"] for row in _usable(rows)})
    assert sample.n_photos == len({row["image_uri"] for row in _usable(rows)})
    assert sum(row["kind"] == "original" for row in rows) == N_PRODUCTS


def test_files_have_the_declared_columns(sample):
    for path, columns in ((sample.catalog, CATALOG_COLUMNS), (sample.truth, TRUTH_COLUMNS)):
        assert path.read_text(encoding="utf-8").splitlines()[0] == ",".join(columns)


def test_every_usable_photo_decodes(sample, rows):
    for uri in {row["image_uri"] for row in _usable(rows)} | {"images/coming_soon.jpg"}:
        photo = prepare((sample.catalog.parent / uri).read_bytes(), 64, 0.0)
        assert min(photo.width, photo.height) >= 150


def test_broken_rows_are_broken_each_in_its_own_way(sample, rows):
    broken = {row["kind"]: sample.catalog.parent / row["image_uri"] for row in rows}
    assert not broken["broken:missing"].exists()
    for kind, reason in (
        ("broken:moved", RejectReason.NOT_IMAGE),
        ("broken:cut_off", RejectReason.TRUNCATED),
    ):
        with pytest.raises(ImageRejected) as caught:
            decode(broken[kind].read_bytes())
        assert caught.value.reason is reason


def test_sizes_share_photo_and_variant_group_and_nothing_else_does(rows):
    groups = defaultdict(list)
    for row in rows:
        if row["variant_group"]:
            groups[row["variant_group"]].append(row)
    assert groups
    for members in groups.values():
        assert len({row["image_uri"] for row in members}) == 1
        assert len({row["product_id"] for row in members}) == 1
        assert [row["kind"] for row in members].count("size") == len(members) - 1
        assert len({row["size"] for row in members}) == len(members)
    shared = Counter(row["image_uri"] for row in rows if not row["variant_group"])
    assert [uri for uri, n in shared.items() if n > 1] == ["images/coming_soon.jpg"]


def test_every_duplicate_has_an_original_and_look_alikes_are_other_products(rows):
    originals = {r["product_id"] for r in rows if r["kind"] == "original" or "NEG:" in r["kind"]}
    for row in _usable(rows):
        assert row["product_id"] in originals
        assert (row["product_id"] == row["look_alike_of"]) != row["kind"].startswith("NEG")
    kinds = Counter(row["kind"] for row in rows)
    assert sum(n for kind, n in kinds.items() if kind.startswith("NEG:")) >= 3
    assert sum(n for kind, n in kinds.items() if kind.split("+")[0] in {*EDITS, "copy"}) >= 5


def test_a_copy_is_the_same_file(tmp_path):
    n_products = 40  # enough for a copy or two
    sample = write_sample_catalog(tmp_path, n_products, 5)
    truth = {row["sku_id"]: row for row in _read(sample.truth)}
    contents = defaultdict(set)
    for row in _read(sample.catalog):
        fact = truth[row["sku_id"]]
        if fact["kind"] in {"original", "copy"}:
            digest = hashlib.sha256((tmp_path / row["image_uri"]).read_bytes()).hexdigest()
            contents[fact["product_id"]].add(digest)
    assert any(fact["kind"] == "copy" for fact in truth.values())
    assert all(len(digests) == 1 for digests in contents.values())


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference over the fiftieth of pixels that differ most, 0 to 255."""
    worst = np.abs(a.astype(int) - b.astype(int)).mean(axis=2).ravel()
    return float(np.sort(worst)[-worst.size // 50 :].mean())


def test_look_alikes_differ_visibly_from_what_they_resemble():
    listings = plan_listings(60, SEED)
    originals = {x.product_id: x for x in listings if x.kind == "original"}
    look_alikes = [x for x in listings if x.kind.startswith("NEG:")]
    assert {x.kind for x in look_alikes} == {"NEG:colourway", "NEG:pattern", "NEG:print"}
    for listing in look_alikes:
        other = originals[listing.look_alike_of]
        assert (other.design.kind, other.shot) == (listing.design.kind, listing.shot)
        difference = _difference(
            photograph(other.design, other.shot), photograph(listing.design, listing.shot)
        )
        assert difference > 30, f"{listing.title} against {other.title}"


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_inside_the_frame_and_seen(kind):
    # A magenta garment on white is found by its colour.
    cloth = Cloth("magenta", "white")
    for seed in range(3):
        pixels = photograph(Design(kind, seed, cloth), Shot("studio", seed)).astype(int)
        garment = (pixels[..., 0] - pixels[..., 1]) > 50
        assert 0.08 < garment.mean() < 0.85
        border = np.ones_like(garment)
        border[2:-2, 2:-2] = False
        assert not (garment & border).any()


@pytest.mark.parametrize("pattern", [name for name in PATTERNS if name != "plain"])
def test_each_pattern_shows_both_colours(pattern):
    plain = Design("sweater", 1, Cloth("white", "navy", scale=0.2))
    woven = Design("sweater", 1, Cloth("white", "navy", pattern=pattern, scale=0.2))
    shot = Shot("studio", 5)
    changed = (photograph(plain, shot).mean(axis=2) - photograph(woven, shot).mean(axis=2)) > 40
    assert 0.01 < changed.mean() < 0.6


@pytest.mark.parametrize("name", PRINTS)
def test_each_print_leaves_ink(name):
    plain = Design("t-shirt", 1, Cloth("white", "black"))
    printed = Design("t-shirt", 1, Cloth("white", "black", print_name=name, text="OSLO"))
    shot = Shot("studio", 5)
    inked = (photograph(plain, shot).mean(axis=2) - photograph(printed, shot).mean(axis=2)) > 60
    assert 0.001 < inked.mean() < 0.2


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_each_background_changes_the_photo(name):
    design = Design("skirt", 1, Cloth("red", "white"))
    a, b = (photograph(design, Shot(name, seed)) for seed in (1, 2))
    assert a.shape == b.shape == (533, 400, 3)
    assert _difference(a, b) > 10


@pytest.mark.parametrize("name", EDITS)
def test_each_edit_alters_the_photo_but_keeps_it_a_photo(name):
    pixels = photograph(Design("shirt", 2, Cloth("teal", "white", "stripes")), Shot("wood", 2))
    before = pixels.copy()
    edited = apply_edits(pixels, (name,), 9)
    assert np.array_equal(pixels, before)
    assert edited.dtype == np.uint8 and edited.ndim == 3
    assert edited.shape != pixels.shape or not np.array_equal(edited, pixels)
    assert np.array_equal(edited, apply_edits(pixels, (name,), 9))


def test_bad_requests_are_one_line_errors(tmp_path):
    with pytest.raises(DedupError, match="n_products: expected 1 to 2000, got 0"):
        write_sample_catalog(tmp_path, 0)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DedupError, match="cannot write the sample catalog"):
        write_sample_catalog(tmp_path / "file", 1)
