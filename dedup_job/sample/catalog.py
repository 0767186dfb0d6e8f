"""Write the sample catalog: photos, the catalog a shop would export, and the truth about it."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import cv2
import numpy as np

from dedup_job.errors import DedupError
from dedup_job.sample.edits import apply_edits
from dedup_job.sample.photo import Pixels, photograph
from dedup_job.sample.plan import Listing, plan_listings

CATALOG_COLUMNS = (
    "sku_id", "image_uri", "variant_group", "in_stock", "created_at", "title", "size",
)  # fmt: skip
TRUTH_COLUMNS = ("sku_id", "product_id", "look_alike_of", "kind")
DEFAULT_SEED = 2026
N_PLACEHOLDER_SKUS = 24
_FIRST_DAY = date(2025, 1, 6)
_HTML = b"<!DOCTYPE html><html><body><h1>404</h1><p>This photo has moved.</p></body></html>\n"


@dataclass(frozen=True)
class SampleCatalog:
    """What was written. Counts are of catalog rows unless named otherwise."""

    catalog: Path
    truth: Path
    n_skus: int
    n_products: int
    n_photos: int
    n_placeholder: int
    n_broken: int


@dataclass
class _Row:
    """A row of both files, before it has its SKU."""

    image: str
    product_id: str
    look_alike_of: str
    kind: str
    title: str
    variant_group: str = ""
    size: str = ""


def write_sample_catalog(
    directory: Path | str, n_products: int = 220, seed: int = DEFAULT_SEED
) -> SampleCatalog:
    """Draw a small apparel catalog with known duplicates and known look-alikes.

    Args:
        directory: gets `images/`, `catalog.csv` and `truth.csv`; made if absent, files of an
            earlier sample are overwritten.
        n_products: different garments; look-alikes, duplicates, a placeholder photo shared by 24
            SKUs and three broken rows come on top. At least 1, at most 2,000.
        seed: equal seeds give equal catalogs, byte for byte on one version of OpenCV.

    Raises:
        DedupError: when the number is out of range or the directory cannot be written.
    """
    if not 1 <= n_products <= 2000:
        raise DedupError(f"n_products: expected 1 to 2000, got {n_products}")
    directory = Path(directory)
    try:
        (directory / "images").mkdir(parents=True, exist_ok=True)
        rows = list(_write_photos(directory, plan_listings(n_products, seed), seed))
        rows += _write_placeholder(directory)
        broken = _write_broken(directory)
        return _write_tables(directory, rows, broken, seed)
    except OSError as error:
        raise DedupError(f"cannot write the sample catalog: {error}") from error


def _write_photos(directory: Path, listings: list[Listing], seed: int) -> Iterator[_Row]:
    """Draw each garment once; its duplicates are edits of that drawing."""
    drawn: tuple[Listing, Pixels, str] | None = None
    for number, listing in enumerate(listings):
        # The file's name must not tell which product it shows.
        image = f"images/{_scrambled(number, seed):08x}.jpg"
        if not listing.edits or drawn is None:
            pixels = photograph(listing.design, listing.shot)
            drawn = (listing, pixels, image)
            _save(directory / image, pixels, quality=88 + number % 7)
        elif listing.edits == ("copy",):
            (directory / image).write_bytes((directory / drawn[2]).read_bytes())
        else:
            edited = apply_edits(drawn[1], listing.edits, seed + number)
            _save(directory / image, edited, quality=82 + number % 12)
        yield from _rows_of(listing, image)


def _scrambled(number: int, seed: int) -> int:
    """A bijection on 32 bits (odd multiplier), so names never collide."""
    return (number * 2_654_435_761 + seed * 97 + 12_345) % (1 << 32)


def _save(path: Path, pixels: Pixels, quality: int) -> None:
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise OSError(f"OpenCV cannot encode {path.name}")
    path.write_bytes(data.tobytes())


def _rows_of(listing: Listing, image: str) -> Iterator[_Row]:
    group = f"STYLE-{listing.product_id}" if listing.sizes else ""
    for position, size in enumerate(listing.sizes or ("",)):
        yield _Row(
            image,
            listing.product_id,
            listing.look_alike_of,
            listing.kind if position == 0 else "size",
            listing.title,
            group,
            size,
        )


def _write_placeholder(directory: Path) -> list[_Row]:
    picture = np.full((533, 400, 3), 236, np.uint8)
    cv2.rectangle(picture, (130, 180), (270, 290), (190, 190, 190), 6, cv2.LINE_AA)
    cv2.circle(picture, (200, 235), 32, (190, 190, 190), 6, cv2.LINE_AA)
    for text, y in (("IMAGE", 350), ("COMING SOON", 390)):
        (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, 1.0, 2)
        at = ((400 - width) // 2, y)
        cv2.putText(
            picture, text, at, cv2.FONT_HERSHEY_DUPLEX, 1.0, (150, 150, 150), 2, cv2.LINE_AA
        )
    _save(directory / "images/coming_soon.jpg", picture, 90)
    ids = [f"H{number:05d}" for number in range(N_PLACEHOLDER_SKUS)]
    return [
        _Row("images/coming_soon.jpg", product, product, "placeholder", "new arrival")
        for product in ids
    ]


def _write_broken(directory: Path) -> list[_Row]:
    """A photo that is missing, one that is an error page, one cut off in transfer."""
    (directory / "images/moved.jpg").write_bytes(_HTML)
    whole = (directory / "images/coming_soon.jpg").read_bytes()
    (directory / "images/cut_off.jpg").write_bytes(whole[: len(whole) // 2])
    names = ("missing", "moved", "cut_off")
    return [
        _Row(f"images/{name}.jpg", f"B{n:05d}", f"B{n:05d}", f"broken:{name}", "archive find")
        for n, name in enumerate(names)
    ]


def _write_tables(
    directory: Path, rows: list[_Row], broken: list[_Row], seed: int
) -> SampleCatalog:
    rows = rows + broken
    rng = np.random.default_rng([seed, 83])
    order = rng.permutation(len(rows))
    catalog, truth = directory / "catalog.csv", directory / "truth.csv"
    with (
        catalog.open("w", newline="", encoding="utf-8") as catalog_file,
        truth.open("w", newline="", encoding="utf-8") as truth_file,
    ):
        shop, facts = csv.writer(catalog_file), csv.writer(truth_file)
        shop.writerow(CATALOG_COLUMNS)
        facts.writerow(TRUTH_COLUMNS)
        for number, index in enumerate(order):
            row, sku = rows[index], f"SKU{number:06d}"
            created = _FIRST_DAY + timedelta(days=int(rng.integers(600)))
            in_stock = "true" if rng.random() < 0.8 else "false"
            shop.writerow(
                (sku, row.image, row.variant_group, in_stock, created, row.title, row.size)
            )
            facts.writerow((sku, row.product_id, row.look_alike_of, row.kind))
    usable = [
        row for row in rows if row.kind != "placeholder" and not row.kind.startswith("broken")
    ]
    return SampleCatalog(
        catalog=catalog,
        truth=truth,
        n_skus=len(rows),
        n_products=len({row.product_id for row in usable}),
        n_photos=len({row.image for row in usable}),
        n_placeholder=N_PLACEHOLDER_SKUS,
        n_broken=len(broken),
    )
