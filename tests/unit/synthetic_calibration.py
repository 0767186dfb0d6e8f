"""A calibration whose truth is known, so that promises can be held against simulated catalogs.

Unrelated cosines are normal around 0.1 below u and generalised Pareto above; look-alikes and true
pairs are Beta. The file holds exactly these distributions.
"""

from typing import Any

import numpy as np
from scipy import stats

from dedup_job.kernels.calibration import calibration_id_of

U, RATE, SHAPE, SCALE = 0.45, 1e-3, -0.12, 0.06
TRUE = stats.beta(30, 2.5)
HARD = stats.beta(14, 6)
N_UNRELATED = 2_000_000
GRID = np.arange(0, 1001) / 1000


def tail_survival(cosines: np.ndarray, factor: float = 1.0) -> np.ndarray:
    return RATE * stats.genpareto.sf(cosines - U, SHAPE, scale=SCALE * factor)


def raw_calibration(**changes: Any) -> dict[str, Any]:
    body = np.linspace(-1, U, 100)
    beyond = np.linspace(U, 0.99, 60)
    sigma = (U - 0.1) / stats.norm.isf(RATE)
    raw = {
        "format": 1,
        "model_id": "m" * 64,
        "match_probability": {
            "scores": [0.0, 0.5, 0.8, 0.95],
            "probabilities": [0.0, 0.01, 0.6, 0.99],
            "prior": 0.01,
            "note": "synthetic",
        },
        "true_pairs": {
            "scores": GRID.tolist(),
            "survival": TRUE.sf(GRID).tolist(),
            "n_pairs": 5000,
        },
        "hard_negatives": {
            "scores": GRID.tolist(),
            "survival": HARD.sf(GRID).tolist(),
            "n_pairs": 3000,
        },
        "unrelated": {
            "n_pairs": N_UNRELATED,
            "n_photos": 2001,
            "scores": body.tolist(),
            "survival": stats.norm.sf(body, 0.1, sigma).tolist(),
            "tail": {
                "threshold": U,
                "exceed_rate": RATE,
                "shape": SHAPE,
                "scale": SCALE,
                "interval": {
                    "confidence": 0.9,
                    "shape": [-0.2, -0.05],
                    "scale": [0.05, 0.07],
                    "scores": beyond.tolist(),
                    "low": tail_survival(beyond, 0.9).tolist(),
                    "high": tail_survival(beyond, 1.1).tolist(),
                },
            },
        },
    }
    raw.update(changes)
    raw["calibration_id"] = calibration_id_of(raw)
    return raw


def raw_score_calibration(**changes: Any) -> dict[str, Any]:
    """The same of scores: the nearer two unrelated photos, the fewer score below the tail."""
    unrelated = raw_calibration()["unrelated"]
    unrelated["apart"] = {"scores": [0.3, 0.6, 0.9], "share": [1.0, 0.95, 0.6]}
    return raw_calibration(unrelated=unrelated, **changes)
