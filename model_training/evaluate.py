"""Figures on held-out products: catalog edits must match, other products must not."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from dedup_job.kernels.bundle import Manifest
from dedup_job.kernels.images import Pixels, decode, prepare
from dedup_job.kernels.metrics import (
    hard_negative_auc,
    precision_recall_curve,
    recall_at_precision,
    uap,
)
from model_training import augment, look_alikes
from model_training.config import NetworkConfig
from model_training.data import Photo, PhotoSet

# Marks the self-made other product of a photo in its labels.
_OTHER = "#other"


@dataclass(frozen=True)
class ValidationSet:
    """Prepared views of held-out products.

    Attributes:
        views: uint8 (n, size, size, 3).
        identity: (n,) str; equal = duplicates.
        product: (n,) str; equal with another identity = the pair is not scored.
        family: (n,) str; equal with another product = hard negative.
        kind: (n,) str; the edits, or `NEG:generator` for a look-alike, plus its edits.
        source: (n,) str; the photo's source.
        rivals: pairs of products labelled dissimilar, (smaller, larger): hard negatives too.
    """

    views: Pixels
    identity: np.ndarray
    product: np.ndarray
    family: np.ndarray
    kind: np.ndarray
    source: np.ndarray
    rivals: frozenset[tuple[str, str]] = frozenset()

    def take(self, rows: np.ndarray) -> "ValidationSet":
        """Some rows of the set."""
        columns = ("views", "identity", "product", "family", "kind", "source")
        return replace(self, **{name: getattr(self, name)[rows] for name in columns})


def build_validation(
    held_out: PhotoSet, network: NetworkConfig, seed: int = 1, *, held_out_kinds: bool = False
) -> ValidationSet:
    """Make views of held-out photos: the photo, two edits, a look-alike, an edit of the look-alike.

    Every edited view is written to JPEG and read by `prepare`, as the job reads it.

    Args:
        held_out: held-out photos only; its dissimilar pairs become hard negatives.
        network: input size and blur.
        seed: fixes every draw.
        held_out_kinds: use the edits and the generator that training never sees.
    """
    rng = np.random.default_rng(seed)
    photos = held_out.photos
    rows: list[tuple[Pixels, str, str, str, str, str]] = []
    names = tuple(sorted(augment.HELD_OUT)) if held_out_kinds else augment.TRAINED
    # Photos are of full size here: one at a time, and the one that lends a crop is read again.
    for number, photo in enumerate(photos):
        rgb = _read(photo)
        mask, _ = look_alikes.find_garment(rgb)
        generator = sorted(look_alikes.HELD_OUT)[0] if held_out_kinds else None
        crop = _middle(_read(photos[int(rng.integers(len(photos)))]))
        other, made_by = look_alikes.make_look_alike(rgb, mask, rng, crop, generator)
        n_edits = [0, *(int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15])) for _ in range(3))]
        bases = [
            (rgb, ""),
            (rgb, ""),
            (rgb, ""),
            (other, f"NEG:{made_by}"),
            (other, f"NEG:{made_by}"),
        ]
        for (base, label), n in zip(bases, [*n_edits[:3], 0, n_edits[3]], strict=True):
            edited, kinds = augment.compose(base, rng, n, names)
            kind = "+".join([*([label] if label else []), *kinds]) or "original"
            suffix = f"{_OTHER}{number}" if label else ""
            rows.append((
                as_the_job_reads(edited, network), photo.identity + suffix, photo.product + suffix,
                photo.family, kind, photo.source,
            ))  # fmt: skip
    columns = list(zip(*rows, strict=True))
    identity, product, family, edits, source = (np.array(column) for column in columns[1:])
    rivals = product_rivals(held_out)
    return ValidationSet(np.stack(columns[0]), identity, product, family, edits, source, rivals)


def _read(photo: Photo) -> Pixels:
    return decode(photo.path.read_bytes())


def product_rivals(photos: PhotoSet) -> frozenset[tuple[str, str]]:
    """The dissimilar pairs of photos as pairs of products, (smaller, larger)."""
    product = [photo.product for photo in photos.photos]
    pairs = [(product[a], product[b]) for a, others in photos.dissimilar.items() for b in others]
    return frozenset((min(pair), max(pair)) for pair in pairs)


def pair_labels(validation: ValidationSet) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All scored pairs: rows a < b, whether duplicates, and whether a hard negative."""
    a, b = np.triu_indices(len(validation.identity), 1)
    same = _equal(validation.identity, a, b)
    same_product = _equal(validation.product, a, b)
    keep = same | ~same_product
    a, b, same = a[keep], b[keep], same[keep]
    hard = _equal(validation.family, a, b) | _are_rivals(validation, a, b)
    return a, b, same, ~same & hard


def score_validation(vectors: np.ndarray, validation: ValidationSet) -> dict[str, float]:
    """uAP, recall at 95 and 99 % precision, and hard AUC over all scored pairs.

    Args:
        vectors: float32 (n, d), unit rows.
        validation: the views they belong to.
    """
    a, b, same, hard = pair_labels(validation)
    return rank_pairs((vectors @ vectors.T)[a, b], same, hard)


def score_by_source(vectors: np.ndarray, validation: ValidationSet) -> dict[str, dict[str, float]]:
    """`score_validation` within each source, where there is more than one."""
    names = np.unique(validation.source)
    if len(names) < 2:
        return {}
    rows = {str(name): np.flatnonzero(validation.source == name) for name in names}
    return {name: score_validation(vectors[r], validation.take(r)) for name, r in rows.items()}


def recall_by_edit(value: np.ndarray, validation: ValidationSet) -> dict[str, dict[str, float]]:
    """Of every edit: how often it matches its own photo at the threshold of 95 % precision.

    Args:
        value: float (p,), cosine or score of every pair that `pair_labels` names, in its order.
        validation: the views.

    Returns:
        Edit -> `recall` and `n`, edits in compositions counted for each of their parts; and
        `NEG:generator` -> `merged`, the share of look-alikes at or above the threshold, and `n`.
    """
    a, b, same, _ = pair_labels(validation)
    curve = precision_recall_curve(value, same)
    good = curve.threshold[curve.precision >= 0.95]
    threshold = float(good.min()) if len(good) else 1.0
    n = len(validation.identity)
    pair = a.astype(np.int64) * n + b  # rises: pairs are named row by row
    original = {
        name: i for i, name in enumerate(validation.identity) if validation.kind[i] == "original"
    }
    tally: dict[str, list[bool]] = {}
    for i, kind in enumerate(validation.kind):
        row = original.get(str(validation.identity[i]).split(_OTHER)[0])
        if row is None or row == i:
            continue
        at = np.searchsorted(pair, min(i, row) * n + max(i, row))
        hit = bool(value[at] >= threshold)
        parts = [kind.split("+")[0]] if kind.startswith("NEG:") else kind.split("+")
        for part in parts:
            tally.setdefault(part, []).append(hit)
    return {
        part: {
            ("merged" if part.startswith("NEG:") else "recall"): float(np.mean(hits)),
            "n": len(hits),
        }
        for part, hits in sorted(tally.items())
    }


def rank_pairs(score: np.ndarray, same: np.ndarray, hard: np.ndarray) -> dict[str, float]:
    """uAP, recall at precision and hard AUC (NaN without hard pairs) of scored pairs."""
    return {
        "uap": uap(score, same),
        "recall_at_p95": recall_at_precision(score, same, 0.95),
        "recall_at_p99": recall_at_precision(score, same, 0.99),
        "hard_auc": hard_negative_auc(score[same], score[hard]) if hard.any() else float("nan"),
    }


def _are_rivals(validation: ValidationSet, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    names, code = np.unique(validation.product, return_inverse=True)
    code_of = {str(name): i for i, name in enumerate(names)}
    known = [(code_of[x], code_of[y]) for x, y in validation.rivals if {x, y} <= code_of.keys()]
    n = len(names)
    pair = np.minimum(code[a], code[b]) * n + np.maximum(code[a], code[b])
    return np.isin(pair, np.array([min(p) * n + max(p) for p in known], np.int64))


def _equal(values: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    codes = np.unique(values, return_inverse=True)[1]
    equal: np.ndarray = codes[a] == codes[b]
    return equal


def as_the_job_reads(rgb: Pixels, network: NetworkConfig | Manifest) -> Pixels:
    """A picture written to JPEG and prepared as a photo of a catalog is."""
    _, data = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    return prepare(data.tobytes(), network.input_px, network.blur_sigma_px).pixels


def _middle(rgb: Pixels) -> Pixels:
    height, width = rgb.shape[:2]
    side = max(8, min(height, width) // 2)
    y, x = (height - side) // 2, (width - side) // 2
    return rgb[y : y + side, x : x + side]
