"""A verifier for a bundle: trained, made int8, weighed, calibrated, and written into the bundle."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dedup_job.kernels.bundle import (
    CALIBRATION,
    EMBEDDER,
    GOLDEN,
    SCORE_CALIBRATION,
    VERIFIER,
    VERIFIER_KERAS,
    Manifest,
    compute_model_id,
    read_manifest,
    renew_manifest,
)
from dedup_job.kernels.calibration import calibration_id_of
from dedup_job.kernels.golden import read_golden
from dedup_job.kernels.images import Pixels, fit
from dedup_job.kernels.model import LiteRtNetwork, load_embedder
from dedup_job.kernels.verifier import (
    ScoreRule,
    describe_stored,
    golden_pairs,
    lay_pair,
    mean_answer,
)
from dedup_job.kernels.verifier_model import load_verifier
from model_training.calibrate import calibrate_scores, write_calibration
from model_training.card import write_card
from model_training.config import ExperimentConfig
from model_training.data import PhotoSet
from model_training.evaluate import ValidationSet, pair_labels, rank_pairs
from model_training.export import check_int8_loss, convert_to_int8, save_keras
from model_training.outputs import put_in_place, staging_of
from model_training.pair_answers import answer_pairs
from model_training.score_rule import fit_score_rule
from model_training.train import predict_in_batches
from model_training.verifier_pairs import draw_pairs

# So many strangers of a photo are nearer than the lowest pair that is verified: twenty of a thousand. The scale of the
# cosines is each embedder's own. Of the default one's duplicates by edits that training never used 2.3 % lie below
# (cosine .45), of the others .4 %.
_STRANGERS_VERIFIED = 0.02
# Of an embedder that ranks worse more are verified, until few duplicates lie below.
_MOST_STRANGERS_VERIFIED = 0.2
_DUPLICATES_LOST = 0.01
_N_REPRESENTATIVE = 250
# Of the nearest pairs both networks' answers are compared: they hold what a threshold has to part (of the default
# embedder's duplicates 97 %), and the float network is slow.
_FLOAT_PAIRS = 3_000
_FLOAT_BATCH = 64


@dataclass(frozen=True)
class Answered:
    """Every scored pair of a set of views. `looked`: bool (p,), those that were verified.

    `answer`: float64, of those alone; `a`, `b`, `same`, `hard`, `cosine`: of all p.
    """

    views: ValidationSet
    a: np.ndarray
    b: np.ndarray
    same: np.ndarray
    hard: np.ndarray
    cosine: np.ndarray
    looked: np.ndarray
    answer: np.ndarray

    def scores(self, rule: ScoreRule) -> np.ndarray:
        """Float (p,); 0 for pairs that were not verified, as for the job."""
        score = np.zeros(len(self.cosine))
        score[self.looked] = rule.score(self.answer, self.cosine[self.looked])
        return score

    def nearest(self, n_pairs: int) -> "Answered":
        """As if only so many pairs, those of the highest cosines, had been looked at."""
        cosines = np.sort(self.cosine[self.looked])[-n_pairs:]
        near = self.looked & (self.cosine >= cosines.min(initial=np.inf))
        return replace(self, looked=near, answer=self.answer[near[self.looked]])


def answer_views(
    network: Path,
    vectors: np.ndarray,
    views: ValidationSet,
    floor_cosine: float,
) -> Answered:
    """Let a verifier's network look at all pairs of views from a cosine on.

    Args:
        network: a `verifier.tflite`.
        vectors: float32 (n, d), unit rows: the views' embeddings.
        views: the views.
        floor_cosine: of the pairs that are looked at.
    """
    a, b, same, hard = pair_labels(views)
    cosine = (vectors @ vectors.T)[a, b]
    looked = cosine >= floor_cosine
    answer = answer_pairs(network, views.views, a[looked], b[looked])
    return Answered(views, a, b, same, hard, cosine, looked, answer)


def choose_floor(vectors: np.ndarray, views: ValidationSet) -> float:
    """The cosine from which an embedder's pairs are worth verifying, in thousandths, in [0, 1).

    Args:
        vectors: float32 (n, d), unit rows: the views' embeddings.
        views: the views.
    """
    a, b, same, hard = pair_labels(views)
    cosine = (vectors @ vectors.T)[a, b]
    strangers, duplicates = cosine[~same & ~hard], cosine[same]
    if not len(strangers) or not len(duplicates):
        return 0.0
    few, most = np.quantile(strangers, [1.0 - _STRANGERS_VERIFIED, 1.0 - _MOST_STRANGERS_VERIFIED])
    floor = max(most, min(few, np.quantile(duplicates, _DUPLICATES_LOST)))
    return round(float(np.clip(floor, 0.0, 0.999)), 3)


def answer_in_float(network: Any, seen: Answered) -> np.ndarray:
    """What the float network answers on the pairs that were looked at: float64."""
    a, b = seen.a[seen.looked], seen.b[seen.looked]
    stored = {i: describe_stored(seen.views.views[i]) for i in np.unique(np.concatenate([a, b]))}
    answers = []
    for start in range(0, len(a), _FLOAT_BATCH):
        rows = slice(start, start + _FLOAT_BATCH)
        pairs = zip(a[rows], b[rows], strict=True)
        frames = np.concatenate([lay_pair(stored[i], stored[j]) for i, j in pairs])
        votes = predict_in_batches(network, frames).astype(np.float64)
        answers.append(votes.sum(axis=1).reshape(-1, 2).mean(axis=1))
    return np.concatenate([np.zeros(0), *answers])


def embed_originals(bundle: Path, photos: PhotoSet) -> np.ndarray:
    """Embeddings of photos as they are: float32 (n, d), unit rows."""
    embedder = load_embedder(bundle)
    manifest = embedder.manifest
    views = [fit(p, manifest.input_px, manifest.blur_sigma_px) for p in photos.pixels]
    return embedder.embed(np.stack(views))


def convert_verifier(
    network: Any, photos: PhotoSet, config: ExperimentConfig, neighbours: np.ndarray
) -> bytes:
    """The network in int8, with pairs of training photos as the representative set."""
    parts = draw_pairs(photos, config, neighbours, _N_REPRESENTATIVE, 5, n_processes=1)
    frames: Pixels = np.concatenate(
        [part.frames.reshape(-1, *part.frames.shape[2:]) for part in parts]
    )
    chosen = np.random.default_rng(5).choice(len(frames), _N_REPRESENTATIVE, replace=False)
    return convert_to_int8(network, frames[chosen])


def add_verifier(
    bundle: Path,
    network: Any,
    int8: bytes,
    quality_views: ValidationSet,
    calibration_views: ValidationSet,
    facts: dict[str, Any],
    *,
    max_int8_loss: float,
    report: Callable[[str], None] = print,
) -> Manifest:
    """Write a verifier into a bundle; the bundle is replaced only by a complete one.

    Args:
        bundle: directory; a verifier that it has is replaced.
        network: Keras model, float32.
        int8: the same network, from `convert_verifier`.
        quality_views: held-out views that the rule is fitted and the quality measured on.
        calibration_views: other draws of held-out views, for the calibration.
        facts: of the training, for the manifest.
        max_int8_loss: uAP that int8 may cost.
        report: receives one line a step.

    Raises:
        ConfigError: no bundle.
        DedupError: int8 costs more than `max_int8_loss`.
    """
    manifest = read_manifest(bundle)
    embedder = load_embedder(bundle)
    staging = staging_of(bundle)
    for name in manifest.files:
        (staging / name).write_bytes((bundle / name).read_bytes())
    (staging / VERIFIER).write_bytes(int8)
    save_keras(network, staging / VERIFIER_KERAS)
    report("verifier: looking at the held-out pairs")
    vectors = embedder.embed(quality_views.views)
    floor = choose_floor(vectors, quality_views)
    seen = answer_views(staging / VERIFIER, vectors, quality_views, floor)
    rule = fit_score_rule(seen.answer, seen.cosine[seen.looked], seen.same[seen.looked])
    near = seen.nearest(_FLOAT_PAIRS)
    exact = replace(near, answer=answer_in_float(network, near))
    quality = {
        "cosine": rank_pairs(seen.cosine, seen.same, seen.hard),
        "score": rank_pairs(seen.scores(rule), seen.same, seen.hard),
        "near_int8": rank_pairs(near.scores(rule), seen.same, seen.hard),
        "near_float32": rank_pairs(exact.scores(rule), seen.same, seen.hard),
    }
    check_int8_loss(
        quality["near_float32"]["uap"], quality["near_int8"]["uap"], max_int8_loss, "the verifier "
    )
    ranked = ", ".join(f"{by} {figures['uap']:.4f}" for by, figures in quality.items())
    report(f"verifier: uAP by {ranked}")
    model_id = compute_model_id(
        manifest.files[EMBEDDER]["sha256"],
        manifest.input_px,
        manifest.blur_sigma_px,
        with_verifier=True,
    )
    report("verifier: calibrating")
    held = answer_views(
        staging / VERIFIER,
        embedder.embed(calibration_views.views),
        calibration_views,
        floor,
    )
    write_calibration(
        staging / SCORE_CALIBRATION,
        calibrate_scores(held.scores(rule), held.cosine, calibration_views, model_id),
    )
    _rename_model(staging / CALIBRATION, model_id)
    golden = read_golden(bundle / GOLDEN, manifest)
    run = LiteRtNetwork(staging / VERIFIER, 1)
    answers = [mean_answer(list(run(pair))) for pair in golden_pairs(golden.images)]
    verifier = {
        "rule": asdict(rule),
        "golden_answers": answers,
        "floor_cosine": floor,
        "quality": quality,
        **facts,
    }
    renewed = {**manifest.facts, "verifier": verifier}
    write_card(staging, renewed)
    written = renew_manifest(staging, manifest, renewed)
    load_verifier(staging)
    put_in_place(staging, bundle)
    return written


def _rename_model(path: Path, model_id: str) -> None:
    """The embedder is the same, yet what is kept of a photo is more: the model has another id."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model_id"] = model_id
    content["calibration_id"] = calibration_id_of(content)
    write_calibration(path, content)
