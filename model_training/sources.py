"""From command-line options to photos in memory, and their split."""

import argparse
from dataclasses import replace
from pathlib import Path

from dedup_job.errors import ConfigError
from model_training.data import (
    Photo,
    PhotoSet,
    load_photos,
    photo_sha256,
    read_folder,
    read_pairs,
    read_products,
)
from model_training.evaluate import product_rivals
from model_training.photo_set import connected

# Of a directory that `model-training pairs` wrote.
PAIRS_FILE = "pairs.parquet"
MIN_TRAINING_PHOTOS = 8
# The calibration draws families anew for its interval: of fewer it would promise nothing.
MIN_FAMILIES = 10


def read_sources(options: argparse.Namespace, decided: Path | None = None) -> PhotoSet:
    """Load every photo that --photos, --products and --pairs name.

    Args:
        options: of the command line.
        decided: a directory that `model-training pairs` wrote, to learn from as well.

    Raises:
        ConfigError: no source is given, or one cannot be read.
    """
    photos: list[Photo] = []
    dissimilar: list[tuple[int, int]] = []
    tables = [(options.pairs, options.image_root or Path("."), "pairs")] if options.pairs else []
    tables += [(decided / PAIRS_FILE, decided, "decisions")] if decided else []
    for table, root, origin in tables:
        paired, differ = read_pairs(table, root, origin=origin)
        dissimilar += [(len(photos) + i, len(photos) + j) for i, j in differ]
        photos += paired
    if options.photos:
        photos += read_folder(options.photos)
    if options.products:
        photos += read_products(options.products, options.image_root or options.products.parent)
    if not photos:
        raise ConfigError("no training data: give --pairs, --photos, --products (or --decisions)")
    return load_photos(photos, options.cache_dir, dissimilar)


def keep_in_training(photos: PhotoSet, trained: set[str]) -> PhotoSet:
    """Keep families of which a photo was trained on before out of the held-out ones.

    Labels join and part families as they come in, and the split goes by family: without this, a photo that
    the champion learned from might judge it.

    Args:
        photos: all.
        trained: SHA-256 of photo files.
    """
    if not trained:
        return photos
    component = connected(photos.photos, photos.near)
    seen = {
        component[i]
        for i, photo in enumerate(photos.photos)
        if photo.held_out and photo_sha256(photo) in trained
    }
    moved = [
        replace(photo, held_out=photo.held_out and component[i] not in seen)
        for i, photo in enumerate(photos.photos)
    ]
    return replace(photos, photos=moved)


def held_out_of(photos: PhotoSet, min_families: int = MIN_FAMILIES) -> PhotoSet:
    """The held-out photos, enough of them to measure on.

    Raises:
        ConfigError: fewer than `min_families` families, or hardly any unrelated pair of them.
    """
    held_out = _take(photos, [i for i in range(len(photos)) if photos.photos[i].held_out])
    n_families = len({photo.family for photo in held_out.photos})
    n_unrelated = n_families * (n_families - 1) // 2 - len(product_rivals(held_out))
    if n_families < min_families or n_unrelated < min_families - 1:
        raise ConfigError(
            f"{n_families} held-out products (styles) with {max(n_unrelated, 0)} unrelated pairs are "
            f"too few to measure on (need {min_families} and {min_families - 1}); give photos of more "
            "products: about one in eight is held out"
        )
    return held_out


def count_crossing(photos: PhotoSet) -> int:
    """Dissimilar pairs of a training and a held-out product: neither side can use them."""
    side = [photo.held_out for photo in photos.photos]
    crossing = sum(side[a] != side[b] for a, others in photos.dissimilar.items() for b in others)
    return crossing // 2


def split(photos: PhotoSet) -> tuple[PhotoSet, PhotoSet]:
    """Training and held-out photos.

    Raises:
        ConfigError: one of the two is too small to be of use.
    """
    training = _take(photos, [i for i in range(len(photos)) if not photos.photos[i].held_out])
    if len(training) < MIN_TRAINING_PHOTOS:
        raise ConfigError(
            f"{len(training)} training photos are too few (need {MIN_TRAINING_PHOTOS})"
        )
    return training, held_out_of(photos)


def _take(photos: PhotoSet, rows: list[int]) -> PhotoSet:
    new_row = {row: i for i, row in enumerate(rows)}
    dissimilar = {
        new_row[row]: [new_row[o] for o in others if o in new_row]
        for row, others in photos.dissimilar.items()
        if row in new_row
    }
    return PhotoSet(
        [photos.photos[i] for i in rows],
        [photos.pixels[i] for i in rows],
        [photos.masks[i] for i in rows],
        photos.mask_good[rows],
        dissimilar,
    )
