"""`model-training evaluate --html`: everything known of a bundle on held-out products, as one file.

The same bundle and photos give the same file: no time, no path, no draw without a seed.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dedup_job.errors import ConfigError
from dedup_job.kernels.calibration import Calibration
from dedup_job.kernels.model import Embedder
from model_training import plots
from model_training.data import PhotoSet
from model_training.figures import Scored, operating_point, score
from model_training.report_page import Cell, Section, note, plot, render_page, table
from model_training.report_photos import attention, pairs, what_counts

_COLUMNS = {
    "uap": "µAP", "roc_auc": "ROC-AUC", "hard_auc": "hard-negative AUC",
    "recall_at_p95": "recall at 95 % precision", "recall_at_p99": "recall at 99 % precision",
    "recall_at_1": "recall@1", "recall_at_5": "recall@5", "recall_at_10": "recall@10",
}  # fmt: skip
_SETS = {"trained_kinds": "known kinds", "unseen_kinds": "unseen kinds"}


@dataclass(frozen=True)
class Evidence:
    """What a report is made of.

    Attributes:
        bundle: directory.
        embedder: of the bundle.
        calibration: of the bundle.
        held_out: the photos.
        trained: their views by kinds of edits that training uses.
        unseen: their views by kinds it never uses.
        figures: as `bundling.evaluate_bundle` returns them.
    """

    bundle: Path
    embedder: Embedder
    calibration: Calibration
    held_out: PhotoSet
    trained: Scored
    unseen: Scored
    figures: dict[str, Any]


def write_report(path: Path, evidence: Evidence) -> None:
    """Write the report in one step.

    Raises:
        ConfigError: it cannot be written.
    """
    text = render_report(evidence)
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging.write_text(text, encoding="utf-8")
        staging.replace(path)
    except OSError as error:
        staging.unlink(missing_ok=True)
        raise ConfigError(f"--html {path} cannot be written: {error.strerror}") from None


def render_report(evidence: Evidence) -> str:
    """The report as HTML."""
    scored = evidence.trained
    at = {
        "95 % precision": operating_point(scored, 0.95).threshold,
        "probability .5": even_odds(evidence.calibration),
    }
    sections = [
        _summary(evidence),
        _by_set(evidence.figures),
        _ranking(scored, at),
        _curves(scored),
        _confusion(scored, at),
        _reliability(evidence.figures["calibration"]),
        *_kinds(evidence.figures),
        _map(scored),
        what_counts(scored, evidence.embedder.embed),
        *attention(scored, evidence.bundle, evidence.embedder.manifest),
        *pairs(scored, at["95 % precision"]),
    ]
    return render_page(f"Model {_short_id(evidence)} on held-out products", sections)


def _short_id(evidence: Evidence) -> str:
    """The model's id, short."""
    return evidence.embedder.manifest.model_id[:12]


def even_odds(calibration: Calibration) -> float | None:
    """The lowest cosine whose match probability is at least .5, to .0001; None if none has."""
    cosines = np.linspace(-1, 1, 20001)
    reached = np.flatnonzero(calibration.match_probability(cosines) >= 0.5)
    return float(cosines[reached[0]]) if len(reached) else None


def _summary(evidence: Evidence) -> Section:
    photos, figures = evidence.held_out.photos, evidence.figures["trained_kinds"]["all"]
    per_source = Counter(p.source for p in photos)
    facts = [
        ("model_id", evidence.embedder.manifest.model_id),
        ("calibration_id", evidence.calibration.calibration_id),
        (
            "held-out photos",
            f"{len(photos):,} ("
            + ", ".join(f"{name} {n:,}" for name, n in sorted(per_source.items()))
            + ")",
        ),
        ("products (families)", f"{len({p.product for p in photos}):,} ({figures['n_families']:,})"),
        ("views", f"{figures['n_views']:,}: of each photo itself, two edits, a made look-alike and its edit"),
        ("duplicate pairs", f"{figures['n_duplicate_pairs']:,}"),
        ("look-alike pairs", f"{figures['n_look_alike_pairs']:,}"),
        ("unrelated pairs", f"{figures['n_unrelated_pairs']:,}"),
    ]  # fmt: skip
    rows = [(label, *_with_interval(figures, name)) for name, label in _COLUMNS.items()]
    body = table(("data", ""), facts, "facts")
    body += table(("figure", "value", "95 % interval"), rows)
    return Section(
        "summary",
        "Summary",
        "Figures of the int8 network as the nightly job runs it; an interval holds the figure in "
        "95 of 100 draws of products.",
        body,
    )


def _with_interval(figures: dict[str, Any], name: str) -> tuple[str, str]:
    limits = figures["intervals"].get(name)
    text = _number(figures[name])
    return text, f"{_number(limits[0])} to {_number(limits[1])}" if limits else "too few products"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _by_set(figures: dict[str, Any]) -> Section:
    sets = [
        ((part, label), one)
        for name, label in _SETS.items()
        for part, one in figures[name].items()
        if not part.startswith("by_")
    ]
    rows: list[tuple[Cell, ...]] = [
        (label, *(_with_interval(one, name) for _, one in sets)) for name, label in _COLUMNS.items()
    ]
    rows += [
        (f"false pairs at {said}", *(_false_pairs(one, point) for _, one in sets))
        for point, said in (("p95", "95 % precision"), ("p99", "99 % precision"))
    ]
    return Section(
        "sets",
        "By source, and on unseen kinds",
        "Each column ranks the pairs of its own views: known kinds are the edits that training uses, "
        "unseen kinds are edits and a look-alike generator it never uses; false pairs are what the "
        "precision lets through.",
        table(("", *(head for head, _ in sets)), rows),
    )


def _false_pairs(figures: dict[str, Any], point: str) -> Cell:
    return (
        f"{figures[f'false_pairs_at_{point}']:,}",
        f"from {_number(figures[f'threshold_at_{point}'])}",
    )


def _ranking(scored: Scored, at: dict[str, float | None]) -> Section:
    return Section(
        "similarity",
        "Similarity of pairs",
        "The better the model, the less the green hill (duplicates) overlaps the other two; the "
        "height is a share of the kind's pairs, on a logarithmic axis.",
        plot(plots.similarity_histogram(scored, at), "Histogram of cosines by kind of pair"),
    )


def _curves(scored: Scored) -> Section:
    sets = {"all": scored}
    sources = np.unique(scored.views.source)
    for name in sources if len(sources) > 1 else ():
        rows = np.flatnonzero(scored.views.source == name)
        sets[str(name)] = score(scored.vectors[rows], scored.views.take(rows))
    points = {f"{level} % precision": operating_point(scored, level / 100) for level in (95, 99)}
    return Section(
        "curves",
        "ROC and precision-recall",
        "Left, how many duplicates are found for the other pairs let through; right, how pure the "
        "pairs found are: nearer the upper corner is better.",
        plot(plots.ranking_curves(sets, points), "ROC and precision-recall curves"),
    )


def _confusion(scored: Scored, at: dict[str, float | None]) -> Section:
    return Section(
        "confusion",
        "Confusion at two thresholds",
        "Each row is a kind of pair and says how many of it are called duplicates; dark belongs on "
        "the left of the first row and on the right of the others.",
        plot(plots.confusion(scored, at), "Confusion matrices"),
    )


def _reliability(found: dict[str, Any]) -> Section:
    return Section(
        "reliability",
        "Reliability of the calibration",
        "A point above the dashed line means that duplicates are more frequent than the calibration "
        "promises, below it less; the views are other draws than the calibration's own.",
        plot(plots.reliability_diagram(found), "Reliability diagram")
        + note(
            f"Expected calibration error {found['error']:.5f}, Brier score {found['brier']:.5f}, "
            "over all pairs as they came, nearly all of them unrelated. If the calibration was measured "
            "on these photos, only the edits are new here, not the products."
        ),
    )


def _kinds(figures: dict[str, Any]) -> Iterator[Section]:
    body = ""
    for name, label in _SETS.items():
        kinds = figures[name]["by_kind"]
        body += plot(plots.kinds_chart(kinds, label), f"Edits and look-alikes: {label}")
        edits = [
            (k, _number(v["recall"]), f"{v['n']:,}") for k, v in kinds.items() if "recall" in v
        ]
        body += f"<details><summary>{len(edits)} edits as numbers</summary>"
        body += table(("edit", "recall at 95 % precision", "views"), edits) + "</details>"
    yield Section(
        "kinds",
        "By kind of edit and of made look-alike",
        "Left, the share of edited photos that still match the original at 95 % precision; right, "
        "the share of made look-alikes that match it too, which they should not.",
        body,
    )
    rows = [
        (f"{kind} ({label})", _number(v["auc"]), _number(v["merged"]), f"{v['n']:,}")
        for name, label in _SETS.items()
        for kind, v in figures[name]["by_look_alike"].items()
    ]
    yield Section(
        "look-alikes",
        "By kind of hard negative",
        "AUC is the chance that a duplicate pair outscores such a look-alike pair (.5 is a coin); "
        "merged is the share of these pairs above the threshold of 95 % precision.",
        table(("look-alike pairs", "AUC", "merged", "pairs"), rows),
    )


def _map(scored: Scored) -> Section:
    png, share = plots.embedding_map(scored)
    return Section(
        "map",
        "Map of the embedding",
        "Points near each other are alike for the model on the two main axes (PCA), which hold "
        f"{100 * share:.0f} % of the variance; edits of one photo should lie on one spot.",
        plot(png, "Embedding on two principal axes"),
    )
