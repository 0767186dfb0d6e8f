"""`model-training evaluate --html`: everything known of a bundle on held-out products, as one file.

The same bundle and photos give the same file: no time, no path, no draw without a seed.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dedup_job.errors import ConfigError
from dedup_job.kernels.calibration import Calibration
from dedup_job.kernels.model import Embedder
from model_training import plots
from model_training.data import PhotoSet
from model_training.figures import NEIGHBOURS, Scored, operating_point
from model_training.report_numbers import RANKING, SETS, compare, even_odds, number, with_interval
from model_training.report_page import Section, note, plot, render_page, table
from model_training.report_photos import attention, pairs, what_counts
from model_training.report_verified import pairs_seen_again
from model_training.verified_figures import Verified

_COLUMNS = RANKING | {f"recall_at_{k}": f"recall@{k}" for k in NEIGHBOURS}


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
        figures: as `bundle_figures.evaluate_bundle` returns them.
        verified: what the bundle's verifier makes of them; None without one.
    """

    bundle: Path
    embedder: Embedder
    calibration: Calibration
    held_out: PhotoSet
    trained: Scored
    unseen: Scored
    figures: dict[str, Any]
    verified: Verified | None


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
    scored, verified = evidence.trained, evidence.verified
    acted_on = scored if verified is None else verified.trained
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
        *([] if verified is None else [pairs_seen_again(scored, verified, evidence.figures)]),
        *_kinds(evidence.figures),
        _map(scored),
        what_counts(scored, evidence.embedder.embed),
        *attention(scored, evidence.bundle, evidence.embedder.manifest),
        *pairs(acted_on, operating_point(acted_on, 0.95).threshold),
    ]
    return render_page(f"Model {_short_id(evidence)} on held-out products", sections)


def _short_id(evidence: Evidence) -> str:
    """The model's id, short."""
    return evidence.embedder.manifest.model_id[:12]


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
    rows = [(label, *with_interval(figures, name)) for name, label in _COLUMNS.items()]
    body = table(("data", ""), facts, "facts")
    body += table(("figure", "value", "95 % interval"), rows)
    return Section(
        "summary",
        "Summary",
        "Figures of the int8 network as the nightly job runs it; an interval holds the figure in "
        "95 of 100 draws of products.",
        body,
    )


def _by_set(figures: dict[str, Any]) -> Section:
    columns = [
        ((part, label), one)
        for name, label in SETS.items()
        for part, one in figures[name].items()
        if not part.startswith("by_")
    ]
    return Section(
        "sets",
        "By source, and on unseen kinds",
        "Each column ranks the pairs of its own views: known kinds are the edits that training uses, "
        "unseen kinds are edits and a look-alike generator it never uses; false pairs are what the "
        "precision lets through.",
        compare(columns, _COLUMNS),
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
    sets = {"all": scored, **scored.by_source()}
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
    for name, label in SETS.items():
        kinds = figures[name]["by_kind"]
        body += plot(plots.kinds_chart(kinds, label), f"Edits and look-alikes: {label}")
        edits = [(k, number(v["recall"]), f"{v['n']:,}") for k, v in kinds.items() if "recall" in v]
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
        (f"{kind} ({label})", number(v["auc"]), number(v["merged"]), f"{v['n']:,}")
        for name, label in SETS.items()
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
