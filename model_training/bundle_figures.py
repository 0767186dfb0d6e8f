"""`model-training evaluate`: what is known of a finished bundle on held-out photos."""

from pathlib import Path
from typing import Any

from dedup_job.kernels.calibration import read_calibration
from dedup_job.kernels.model import load_embedder
from dedup_job.kernels.verifier_model import load_verifier
from model_training.bundling import network_of
from model_training.data import PhotoSet
from model_training.evaluate import build_validation
from model_training.figures import Scored, measure, reliability, score
from model_training.sources import MIN_FAMILIES, held_out_of
from model_training.verified_figures import measure_verified

# Other draws than the calibration's (2), the validation's (1) and the promotion's (3).
_RELIABILITY_SEED = 4


def evaluate_bundle(bundle: Path, photos: PhotoSet, report: Path | None = None) -> dict[str, Any]:
    """Figures of a bundle on the held-out photos: overall, by source, by kind.

    By cosine of the int8 embedder; and, of a bundle with a verifier, by its scores as `verified`.

    Args:
        bundle: directory.
        photos: held out are the same ones as in training.
        report: HTML file to write as well.

    Raises:
        ConfigError: too few held-out products, or the report cannot be written.
        ModelContractError: no sound bundle.
    """
    if report is not None:
        from model_training.report import Evidence, write_report  # matplotlib: seconds to import
    embedder, verifier = load_embedder(bundle), load_verifier(bundle)
    manifest = embedder.manifest
    calibration = read_calibration(bundle, manifest.model_id)
    held_out = held_out_of(photos, min_families=1 if report is None else MIN_FAMILIES)

    def look(seed: int = 1, *, unseen: bool = False) -> Scored:
        views = build_validation(held_out, network_of(manifest), seed, held_out_kinds=unseen)
        return score(embedder.embed(views.views), views)

    trained, unseen, fresh = look(), look(unseen=True), look(_RELIABILITY_SEED)
    figures = {
        "model_id": manifest.model_id,
        "trained_kinds": measure(trained),
        "unseen_kinds": measure(unseen),
        "calibration": reliability(fresh, calibration),
    }
    verified = None
    if verifier is not None:
        verified = measure_verified(bundle, verifier, trained, unseen, fresh)
        figures["verified"] = verified.figures
    if report is not None:
        write_report(
            report,
            Evidence(bundle, embedder, calibration, held_out, trained, unseen, figures, verified),
        )
    return figures
