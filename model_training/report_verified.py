"""The part of a report on a bundle's verifier: what looking at both photos of a pair gains."""

from typing import Any

from model_training import plots
from model_training.figures import Scored, operating_point
from model_training.report_numbers import RANKING, SETS, compare, even_odds
from model_training.report_page import Section, note, plot
from model_training.verified_figures import Verified


def pairs_seen_again(scored: Scored, verified: Verified, figures: dict[str, Any]) -> Section:
    """Cosine against score.

    Args:
        scored: views by kinds of edits that training uses, by cosine.
        verified: the same by score.
        figures: of both, as `bundle_figures.evaluate_bundle` returns them.
    """
    by_score = verified.trained
    found = verified.figures["calibration"]
    at = {
        "95 % precision": operating_point(by_score, 0.95).threshold,
        "probability .5": even_odds(verified.calibration),
    }
    points = {f"score, {p} % precision": operating_point(by_score, p / 100) for p in (95, 99)}
    n_verified = verified.figures["n_verified"]["trained_kinds"]
    body = compare(
        [
            ((quantity, label), by[name]["all"])
            for name, label in SETS.items()
            for quantity, by in (("cosine", figures), ("score", verified.figures))
        ],
        RANKING,
    )
    body += note(
        f"{n_verified:,} of {len(scored.a):,} pairs of known kinds have a cosine of "
        f"{verified.figures['floor_cosine']:g} or more and were seen again; the others have score 0. "
        f"Calibration of the scores: {verified.calibration.calibration_id}."
    )
    body += plot(
        plots.ranking_curves({"score": by_score, "cosine": scored}, points),
        "ROC and precision-recall curves by score and by cosine",
    )
    body += plot(plots.similarity_histogram(by_score, at), "Histogram of scores by kind of pair")
    body += plot(plots.reliability_diagram(found), "Reliability diagram of scores")
    body += note(
        f"Expected calibration error of the scores {found['error']:.5f}, Brier score {found['brier']:.5f}, "
        "on other draws of edits than the calibration's own."
    )
    return Section(
        "verified",
        "Pairs seen again",
        "What the nightly job acts on with this bundle: its verifier looks at both photos of a pair at "
        "once, and figures by score should be above those by cosine; all other sections are by cosine, "
        "but for the best and worst pairs, which are by score.",
        body,
    )
