"""From command-line options to photos in memory, and their split."""

import argparse
from pathlib import Path

from dedup_job.errors import ConfigError
from model_training.data import Photo, PhotoSet, load_photos, read_folder, read_pairs, read_products


def read_sources(options: argparse.Namespace) -> PhotoSet:
    """Load every photo that --photos, --products and --pairs name.

    Raises:
        ConfigError: none is given, or one cannot be read.
    """
    root = options.image_root or Path(".")
    photos: list[Photo] = []
    dissimilar: list[tuple[int, int]] = []
    if options.pairs:
        paired, dissimilar = read_pairs(options.pairs, root)
        photos += paired
    if options.photos:
        photos += read_folder(options.photos)
    if options.products:
        photos += read_products(options.products, options.image_root or options.products.parent)
    if not photos:
        raise ConfigError("no training data: give --pairs, --photos or --products")
    return load_photos(photos, options.cache_dir, dissimilar)


def split(photos: PhotoSet) -> tuple[PhotoSet, PhotoSet]:
    """Training and held-out photos.

    Raises:
        ConfigError: one of the two is too small to be of use.
    """
    rows = range(len(photos))
    training = _take(photos, [i for i in rows if not photos.photos[i].held_out])
    held_out = _take(photos, [i for i in rows if photos.photos[i].held_out])
    if len(training) < 8 or len(held_out) < 2:
        raise ConfigError(
            f"{len(training)} training and {len(held_out)} held-out photos are too few (need 8 and 2)"
        )
    return training, held_out


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
