"""The photos to learn from: three kinds of input become one list of photos, split by product.

- folders without labels: every photo is its own product;
- a product table (image, sku, style, colour): SKUs of one style are real hard negatives, other
  photos of one SKU are neither positive nor negative;
- binary pairs (image_a, image_b, label): connected components of similar pairs are products whose
  photos are positives of each other; dissimilar pairs are hard negatives.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from dedup_job.errors import ConfigError
from dedup_job.kernels.grouping import connected_components
from model_training.joining import join_equal_colourways, join_near_identical
from model_training.photo_cache import read_decoded
from model_training.photo_set import Photo, PhotoSet, named

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}


def read_folder(root: Path, held_out_share: float = 0.12) -> list[Photo]:
    """Every photo under a folder, each its own product named by its relative path.

    Sorted by path.

    Raises:
        ConfigError: no folder, or no photo in it.
    """
    if not root.is_dir():
        raise ConfigError(f"--photos {root} is not a folder")
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ConfigError(f"--photos {root} holds no photo ({', '.join(sorted(IMAGE_SUFFIXES))})")
    photos = []
    for path in paths:
        name = path.relative_to(root).as_posix()
        # By the file's name alone: every folder of one SKU's "front.jpg" goes to the same side.
        held_out = is_held_out(path.name, held_out_share)
        name = named("folder", name)
        photos.append(Photo(path, "folder", name, name, name, held_out))
    return photos


def read_products(table: Path, image_root: Path, held_out_share: float = 0.2) -> list[Photo]:
    """A product table with the columns image, sku, style; split by style.

    Raises:
        ConfigError: unreadable, or a column or photo is missing.
    """
    frame = _read_table(table, ("image", "sku", "style"))
    photos = []
    for row in frame.itertuples():
        path = image_root / row.image
        _require(path, table)
        held_out = is_held_out(row.style, held_out_share)
        identity, sku, style = (named("products", n) for n in (row.image, row.sku, row.style))
        photos.append(Photo(path, "products", identity, sku, style, held_out))
    return photos


def read_pairs(
    table: Path, image_root: Path, held_out_share: float = 0.15, origin: str = "pairs"
) -> tuple[list[Photo], list[tuple[int, int]]]:
    """Binary pairs: image_a, image_b, label (1 or "similar"; 0 or "dissimilar").

    Duplicates are the connected components of similar pairs. Where the table has sku_id_a and sku_id_b
    (`model-training pairs` writes them), all photos of one SKU are of one product; else, and where a SKU is
    null or blank, components are the products. Products are split whole. Of the dissimilar pairs, one that contradicts a component (both
    photos in it) is an error in the labels. `origin` tells this table's names from another's.

    Returns:
        The photos, and the dissimilar pairs as row numbers.

    Raises:
        ConfigError: unreadable, unknown label, missing photo, or contradicting labels.
    """
    frame = _read_table(table, ("image_a", "image_b", "label"))
    similar = _parse_labels(frame.label, table)
    names = sorted(set(frame.image_a) | set(frame.image_b))
    row_of = {name: i for i, name in enumerate(names)}
    a = frame.image_a.map(row_of).to_numpy()
    b = frame.image_b.map(row_of).to_numpy()
    component = connected_components(len(names), a[similar], b[similar])
    for i, j in zip(a[~similar], b[~similar], strict=True):
        if component[i] == component[j]:
            raise ConfigError(
                f"{table}: {names[i]} and {names[j]} are labelled dissimilar, yet similar pairs "
                "connect them; correct one of the labels"
            )
    owner = _join_skus(frame, row_of, component)
    photos = []
    for i, name in enumerate(names):
        _require(image_root / name, table)
        held_out = is_held_out(names[owner[i]], held_out_share)
        identity, product = named(origin, names[component[i]]), named(origin, names[owner[i]])
        photos.append(Photo(image_root / name, "pairs", identity, product, product, held_out))
    return photos, [(int(i), int(j)) for i, j in zip(a[~similar], b[~similar], strict=True)]


def _join_skus(frame: pd.DataFrame, row_of: dict[str, int], component: np.ndarray) -> np.ndarray:
    """The product of each photo: its component, joined with those of its SKU's other photos.

    A photo that several SKUs show says nothing about which of them it is; nor does a null or blank SKU.
    """
    if not {"sku_id_a", "sku_id_b"} <= set(frame.columns):
        return component
    ends = pd.concat(
        [
            frame[["image_a", "sku_id_a"]].set_axis(["image", "sku"], axis=1),
            frame[["image_b", "sku_id_b"]].set_axis(["image", "sku"], axis=1),
        ]
    )
    known = ends.sku.notna() & (ends.sku.astype(str).str.strip() != "")
    ends = ends[known].drop_duplicates()
    own = ends[~ends.image.duplicated(keep=False)]
    first = own.groupby("sku").image.transform("first")
    a, b = own.image.map(row_of).to_numpy(), first.map(row_of).to_numpy()
    return connected_components(
        len(component), np.r_[a, np.arange(len(component))], np.r_[b, component]
    )


def is_held_out(key: str, share: float) -> bool:
    """Whether a product belongs to validation, by a hash of its name: stable as data grows."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) < share * 2**32


def photo_sha256(photo: Photo) -> str:
    """SHA-256 (64 hex digits) of the photo's file."""
    return hashlib.sha256(photo.path.read_bytes()).hexdigest()


def fingerprint(photos: list[Photo]) -> str:
    """SHA-256 (64 hex digits) over every photo's bytes, in order: names the training data."""
    digest = hashlib.sha256()
    for photo in photos:
        digest.update(bytes.fromhex(photo_sha256(photo)))
    return digest.hexdigest()


def load_photos(
    photos: list[Photo], cache_dir: Path, dissimilar: Iterable[tuple[int, int]] = ()
) -> PhotoSet:
    """Decode all photos and find their garments once; later calls read the cache.

    Args:
        photos: what to load; unreadable photos are an error, training data is curated.
        cache_dir: outside the repository; one file a data set.
        dissimilar: pairs of rows known to differ.

    Raises:
        ConfigError: a photo cannot be decoded, or the cache can neither be read nor written.
    """
    paths = [photo.path for photo in photos]
    pixels, masks, good = read_decoded(paths, fingerprint(photos), cache_dir)
    loaded = PhotoSet(photos, pixels, masks, good)
    for i, j in dissimilar:
        loaded.dissimilar.setdefault(i, []).append(j)
        loaded.dissimilar.setdefault(j, []).append(i)
    return join_equal_colourways(join_near_identical(loaded))


def _read_table(table: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        if table.suffix == ".parquet":
            frame = pd.read_parquet(table)
        else:
            frame = pd.read_csv(table, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"table {table} cannot be read: {' '.join(str(error).split())}") from None
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise ConfigError(
            f"table {table} has no column {', '.join(missing)}; it has: {', '.join(map(str, frame.columns))}"
        )
    if frame.empty:
        raise ConfigError(f"table {table} has no rows")
    return frame.astype({c: str for c in columns})


def _parse_labels(labels: pd.Series, table: Path) -> np.ndarray:
    known = {"1": True, "similar": True, "true": True, "0": False, "dissimilar": False, "false": False,
             "1.0": True, "0.0": False}  # fmt: skip
    values = labels.str.strip().str.lower()
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f"table {table}: label {unknown[0]!r}; use 1/similar or 0/dissimilar")
    return np.array([known[v] for v in values])


def _require(path: Path, table: Path) -> None:
    if not path.is_file():
        raise ConfigError(f"photo {path} named in {table} does not exist; is --image-root right?")
