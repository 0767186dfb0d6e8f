"""Which chaining rule should be the default? Chosen on held-out training photos.

Command (photos and bundle as in model_training/configs):
    python benchmarks/chaining.py --photos DATA/wardrobe/train --products DATA/studio/photos.csv

Each held-out photo becomes a product with one to eight listings: half of them stand alone
(distractors), the others are listed again as edits of the photo or as edits of such an edit, which
is how chains arise. Half of the products have look-alikes (another colour, print, pattern of the
same garment) with listings of their own. Every listing goes through JPEG and the job's own decoder
and int8 embedder. Pairs are formed at the threshold that the job solves, at its default target and
at laxer ones, where chains are a real danger.

A stricter rule always buys precision with recall, and so does a higher threshold. The rules are
therefore compared twice: at the solved threshold, and at equal precision of their groups.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from dedup_job.io.bundles import locate_bundle
from dedup_job.kernels.calibration import Calibration, read_calibration
from dedup_job.kernels.grouping import Chaining, Edges, group_nodes
from dedup_job.kernels.images import Pixels, decode
from dedup_job.kernels.linkage import cut_averages
from dedup_job.kernels.metrics import grouping_metrics
from dedup_job.kernels.model import Embedder, load_embedder
from dedup_job.kernels.neighbours import Pairs, at_least, exact_pairs
from dedup_job.kernels.threshold import (
    CatalogSize,
    cosine_histogram,
    search_floor,
    solve_threshold,
)
from dedup_job.stages.groups import GroupRules
from model_training.augment import compose
from model_training.data import Photo, read_folder, read_products
from model_training.evaluate import as_the_job_reads
from model_training.look_alikes import find_garment, make_look_alike

N_LISTINGS, SHARES = (1, 2, 3, 4, 8), (0.5, 0.2, 0.15, 0.1, 0.05)
EDIT_OF_AN_EDIT = 0.35
TARGETS = (0.97, 0.9, 0.8, 0.6)
PRECISIONS = (0.97, 0.95, 0.9, 0.85, 0.8)
N_SWEPT = 40
FIGURES = ("pair_precision", "pair_recall", "bcubed_precision", "bcubed_recall", "bcubed_f1")
COUNTS = ("hard_merged", "largest_group")


@dataclass(frozen=True)
class Listings:
    """A catalog: `photos` uint8 (n, size, size, 3); `product`, `look_alike` (n,) names."""

    photos: Pixels
    product: list[str]
    look_alike: list[str]


def held_out_photos(
    folder: Path | None, products: Path | None, image_root: Path | None
) -> list[Photo]:
    """Validation photos, one a SKU: other views of a SKU are neither duplicates nor strangers."""
    photos = read_folder(folder) if folder else []
    if products:
        tabled = read_products(products, image_root or products.parent)
        photos += list({photo.product: photo for photo in reversed(tabled)}.values())
    return [photo for photo in photos if photo.held_out]


def make_catalog(photos: list[Photo], embedder: Embedder, seed: int) -> Listings:
    rng = np.random.default_rng(seed)
    decoded = [decode(photo.path.read_bytes()) for photo in photos]
    rows: list[tuple[Pixels, str, str]] = []
    for photo, rgb in zip(photos, decoded, strict=True):
        mask, _ = find_garment(rgb)
        bases = [(rgb, photo.product)]
        for i in range(int(rng.choice([0, 1, 2], p=[0.5, 0.3, 0.2]))):
            other, _ = make_look_alike(
                rgb, mask, rng, middle(decoded[int(rng.integers(len(decoded)))])
            )
            bases.append((other, f"{photo.product}#{i}"))
        for base, product in bases:
            for listing in listings_of(base, rng):
                rows.append((as_the_job_reads(listing, embedder.manifest), product, photo.family))
    return Listings(np.stack([r[0] for r in rows]), [r[1] for r in rows], [r[2] for r in rows])


def listings_of(base: Pixels, rng: np.random.Generator) -> list[Pixels]:
    listings = [base]
    for _ in range(int(rng.choice(N_LISTINGS, p=SHARES)) - 1):
        source = base
        if rng.random() < EDIT_OF_AN_EDIT:
            source = listings[int(rng.integers(len(listings)))]
        edited, _ = compose(source, rng, int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15])))
        listings.append(edited)
    return listings


def middle(rgb: Pixels) -> Pixels:
    height, width = rgb.shape[:2]
    return rgb[height // 4 : height - height // 4, width // 4 : width - width // 4]


Cut = Callable[[Pairs, int, float, float], np.ndarray]


def by_rule(rule: Chaining, missing: Callable[[float, float], float]) -> Cut:
    """A cut by the job's code; `missing(threshold, floor)` is what a missing edge counts as."""

    def cut(pairs: Pairs, n: int, threshold: float, floor: float) -> np.ndarray:
        matched = at_least(pairs.cosine, threshold)
        edges = Edges(pairs.i[matched], pairs.j[matched], pairs.cosine[matched])
        return group_nodes(
            n, edges, chaining=rule, threshold=threshold, floor=missing(threshold, floor)
        )

    return cut


def cut_with_every_cosine(pairs: Pairs, n: int, threshold: float, floor: float) -> np.ndarray:
    """Average linkage that knows the cosines below the threshold too, as the job does not."""
    units = np.rint(pairs.cosine.astype(np.float64) * 2.0**30).astype(np.int64)
    edges = list(zip(pairs.i.tolist(), pairs.j.tolist(), units.tolist(), strict=True))
    labels = np.arange(n)
    for group in cut_averages(edges, [], {}, round(threshold * 2**30), round(floor * 2**30)):
        labels[group] = group[0]
    return labels


def as_the_job_counts(threshold: float, _: float) -> float:
    return GroupRules("average", (), threshold, date.min).missing_score


def as_the_floor(threshold: float, floor: float) -> float:
    return min(floor, threshold - 0.02)


RULES: dict[str, Cut] = {
    "components": by_rule("components", as_the_floor),
    "star": by_rule("star", as_the_floor),
    "average": by_rule("average", as_the_job_counts),
    "average, missing = floor": by_rule("average", as_the_floor),
    "average, every cosine": cut_with_every_cosine,
}


def compare(
    catalog: Listings, vectors: np.ndarray, calibration: Calibration
) -> Iterator[dict[str, object]]:
    """One row a threshold and rule; `target` is null where the threshold is only swept."""
    n = len(vectors)
    size = CatalogSize(n, n * (n - 1) // 2)
    floor = search_floor(calibration, size)
    pairs = exact_pairs(vectors, floor)
    observed = cosine_histogram(pairs.cosine)
    thresholds: list[tuple[float | None, float]] = [
        (target, solve_threshold(calibration, size, observed, target, floor).min_score)
        for target in TARGETS
    ]
    thresholds += [(None, t) for t in np.linspace(floor, 0.999, N_SWEPT).tolist()]
    for target, threshold in thresholds:
        for rule, cut in RULES.items():
            labels = cut(pairs, n, threshold, floor)
            found = grouping_metrics(labels.tolist(), catalog.product, catalog.look_alike)
            yield {"target": target, "rule": rule, "min_cosine": threshold, **found.as_dict()}


def print_at_solved_thresholds(rows: pd.DataFrame) -> None:
    solved = rows[rows.target.notna()].groupby(["target", "rule"], sort=False)
    print("\nAt the threshold the job solves for a target precision:")
    print(solved[["min_cosine", *FIGURES, *COUNTS]].mean().round(3).to_string())


def print_at_equal_precision(rows: pd.DataFrame) -> None:
    """Pair recall of each rule where its own groups have one precision: thresholds moved to fit."""
    swept = rows[rows.target.isna()].groupby(["rule", "seed"], sort=False)
    recall = swept.apply(recall_at_precisions, include_groups=False)
    print("\nPair recall where the groups' pair precision is, and the best B-cubed F1 anywhere:")
    print(recall.groupby("rule", sort=False).mean().round(3).to_string())
    print("\nIn how many of the catalogs `average` is better than each rule:")
    better = recall.rsub(recall.xs("average"), level="seed") > 0
    print(better.groupby("rule", sort=False).sum().to_string())


def recall_at_precisions(found: pd.DataFrame) -> pd.Series:
    """From one catalog's sweep, lowest threshold first; precision taken as falling with it."""
    found = found.iloc[::-1]
    precision = np.minimum.accumulate(found.pair_precision.to_numpy())
    recall = np.interp([-p for p in PRECISIONS], -precision, found.pair_recall)
    return pd.Series([*recall, found.bcubed_f1.max()], [*map(str, PRECISIONS), "best_f1"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder of photos without labels")
    parser.add_argument("--products", type=Path, help="table: image, sku, style")
    parser.add_argument("--image-root", type=Path)
    parser.add_argument("--bundle", default="", help="default: the one that ships with the package")
    parser.add_argument("--seeds", type=int, default=3, help="catalogs drawn")
    parser.add_argument("--json", type=Path, help="write every row here")
    options = parser.parse_args()
    bundle = locate_bundle(options.bundle)
    embedder = load_embedder(bundle)
    calibration = read_calibration(bundle, embedder.manifest.model_id)
    photos = held_out_photos(options.photos, options.products, options.image_root)
    rows = []
    for seed in range(options.seeds):
        catalog = make_catalog(photos, embedder, seed)
        vectors = embedder.embed(catalog.photos)
        rows += [{"seed": seed, **row} for row in compare(catalog, vectors, calibration)]
        n_products = len(set(catalog.product))
        print(f"catalog {seed}: {len(vectors)} listings of {n_products} products")
    print_at_solved_thresholds(pd.DataFrame(rows))
    print_at_equal_precision(pd.DataFrame(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
