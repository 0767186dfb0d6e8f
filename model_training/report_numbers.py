"""Figures of a report as texts and tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dedup_job.kernels.calibration import Calibration
from model_training.report_page import Cell, table

RANKING = {
    "uap": "µAP", "roc_auc": "ROC-AUC", "hard_auc": "hard-negative AUC",
    "recall_at_p95": "recall at 95 % precision", "recall_at_p99": "recall at 99 % precision",
}  # fmt: skip
SETS = {"trained_kinds": "known kinds", "unseen_kinds": "unseen kinds"}


def number(value: float | None) -> str:
    """To the fourth digit; a dash where there is none."""
    return "-" if value is None else f"{value:.4f}"


def with_interval(figures: dict[str, Any], name: str) -> tuple[str, str]:
    """A figure of `figures.measure` and its interval."""
    limits = figures["intervals"].get(name)
    text = number(figures[name])
    return text, f"{number(limits[0])} to {number(limits[1])}" if limits else "too few products"


def compare(columns: Sequence[tuple[Cell, dict[str, Any]]], names: Mapping[str, str]) -> str:
    """A table of figures, a row each, and of the false pairs that a precision lets through.

    Args:
        columns: head and figures of `figures.measure`.
        names: of the figures, with what they are called.
    """
    rows: list[tuple[Cell, ...]] = [
        (label, *(with_interval(one, name) for _, one in columns)) for name, label in names.items()
    ]
    rows += [
        (f"false pairs at {said}", *(_false_pairs(one, point) for _, one in columns))
        for point, said in (("p95", "95 % precision"), ("p99", "99 % precision"))
    ]
    return table(("", *(head for head, _ in columns)), rows)


def _false_pairs(figures: dict[str, Any], point: str) -> Cell:
    return (
        f"{figures[f'false_pairs_at_{point}']:,}",
        f"from {number(figures[f'threshold_at_{point}'])}",
    )


def even_odds(calibration: Calibration) -> float | None:
    """The lowest cosine or score of match probability .5 at least, to .0001; None if none has."""
    values = np.linspace(-1, 1, 20001)
    reached = np.flatnonzero(calibration.match_probability(values) >= 0.5)
    return float(values[reached[0]]) if len(reached) else None
