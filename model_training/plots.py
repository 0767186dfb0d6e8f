"""The pictures of a report: PNG bytes from arrays, the same bytes for the same arrays.

White ground and dark letters whatever the reader's screen shows, and colours that most colour-blind
readers tell apart (seaborn's "colorblind").
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dedup_job.kernels.metrics import precision_recall_curve
from model_training.figures import MADE, OperatingPoint, Scored

_DPI = 110
_SETTINGS = {"font.size": 10, "axes.titlesize": 11, "svg.hashsalt": "report"}
_MAX_CURVE_POINTS = 1500
_MAX_MAP_FAMILIES = 10


@contextmanager
def _figure(width: float, height: float, columns: int = 1) -> Iterator[tuple[Figure, list[Any]]]:
    """A figure of its own, not of pyplot's: nothing stays behind."""
    with sns.axes_style("whitegrid"), matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)  # seaborn would ask pyplot for one, and for a screen
        yield figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without the name of the software: it holds a version and an address.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _colours() -> list[Any]:
    return list(sns.color_palette("colorblind"))


def similarity_histogram(scored: Scored, marks: Mapping[str, float | None]) -> bytes:
    """Shares of duplicates, look-alikes and unrelated pairs by cosine or score; the marks as lines."""
    groups = {
        "duplicates": scored.same,
        "look-alikes": scored.hard,
        "unrelated": ~scored.same & ~scored.hard,
    }
    colours = _colours()
    with _figure(8.5, 4.2) as (figure, (axes,)):
        lowest = 0.0 if scored.quantity == "score" else min(-0.3, float(scored.value.min()))
        edges = np.linspace(lowest, 1.0, 81)
        for (name, members), colour in zip(groups.items(), (2, 1, 0), strict=True):
            counted = np.histogram(np.clip(scored.value[members], -1, 1), edges)[0]
            share = counted / max(int(members.sum()), 1)
            label = f"{name} ({int(members.sum()):,})"
            sns.histplot(
                x=edges[:-1], weights=share, bins=list(edges), element="step", alpha=0.3, ax=axes,
                color=colours[colour], label=label,
            )  # fmt: skip
        for (name, at), style in zip(marks.items(), ("--", ":", "-."), strict=False):
            if at is not None:
                axes.axvline(at, color="black", linestyle=style, label=f"{name}: {at:.3f}")
        axes.set(xlabel=scored.quantity, ylabel="share of pairs of the kind", yscale="log")
        # Most scores are near 0, few cosines are low.
        axes.legend(loc="upper center" if scored.quantity == "score" else "upper left")
        return _png(figure)


def ranking_curves(scored: Mapping[str, Scored], points: Mapping[str, OperatingPoint]) -> bytes:
    """ROC with a logarithmic axis of false pairs, and precision over recall; a line for each set."""
    with _figure(10, 4.4, columns=2) as (figure, (roc, pr)):
        for number, (name, one) in enumerate(scored.items()):
            curve = precision_recall_curve(one.value, one.same)
            seen = curve.recall * one.same.sum() / np.maximum(curve.precision, 1e-12)
            n_others = max(int((~one.same).sum()), 1)
            false = np.maximum(seen * (1 - curve.precision), 0.5) / n_others
            keep = _spread(len(curve.recall), curve.recall)
            line = {"color": _colours()[number], "linewidth": 2 if number == 0 else 1.2}
            roc.plot(false[keep], curve.recall[keep], label=name, **line)
            pr.plot(curve.recall[keep], curve.precision[keep], label=name, **line)
        for (name, point), marker in zip(points.items(), "os", strict=False):
            if point.threshold is not None:
                precision = point.n_true / (point.n_true + point.n_false)
                pr.plot(point.recall, precision, f"k{marker}", label=name)
        roc.set(
            xscale="log", xlabel="share of other pairs let through", ylabel="recall", title="ROC",
            ylim=(0, 1.02),
        )  # fmt: skip
        pr.set(
            xlabel="recall", ylabel="precision", title="Precision and recall",
            xlim=(0, 1.02), ylim=(0, 1.02),
        )  # fmt: skip
        roc.legend(loc="lower right")
        pr.legend(loc="lower left")
        return _png(figure)


def _spread(n: int, recall: np.ndarray) -> np.ndarray:
    """Rows that draw the curve: even in rank, in the logarithm of rank, and in recall."""
    half = _MAX_CURVE_POINTS // 3
    ranks = np.r_[
        np.linspace(0, n - 1, half),
        np.geomspace(1, n, half) - 1,
        np.searchsorted(recall, np.linspace(0, 1, half)).clip(max=n - 1),
    ]
    return np.unique(ranks.astype(int))


def confusion(scored: Scored, thresholds: Mapping[str, float | None]) -> bytes:
    """For each threshold a table: kinds of pairs against what is said of them."""
    rows = {
        "duplicates": scored.same,
        "look-alikes": scored.hard,
        "unrelated": ~scored.same & ~scored.hard,
    }
    with _figure(5 * len(thresholds), 3.2, columns=len(thresholds)) as (figure, all_axes):
        for axes, (name, at) in zip(all_axes, thresholds.items(), strict=True):
            called = scored.value >= (np.inf if at is None else at)
            n = np.array([[(m & called).sum(), (m & ~called).sum()] for m in rows.values()])
            share = n / np.maximum(n.sum(axis=1, keepdims=True), 1)
            text = [
                [f"{c:,}\n{100 * s:.3g} %" for c, s in zip(*both, strict=True)]
                for both in zip(n, share, strict=True)
            ]
            sns.heatmap(
                share, annot=text, fmt="", cmap="Blues", vmin=0, vmax=1, cbar=False, ax=axes,
                xticklabels=["called duplicates", "called different"], yticklabels=list(rows),
                linewidths=1,
            )  # fmt: skip
            said = "no threshold" if at is None else f"{scored.quantity} {at:.3f}"
            axes.set_title(f"{name}: {said}")
            axes.tick_params(axis="y", rotation=0)
        return _png(figure)


def reliability_diagram(found: Mapping[str, Any]) -> bytes:
    """Share of duplicates over the promised probability, from `figures.reliability`."""
    bins = found["bins"]
    x = np.array([b["promised"] for b in bins])
    y = np.array([b["found"] for b in bins])
    error = [y - [min(b["low"], b["found"]) for b in bins],
             [max(b["high"], b["found"]) for b in bins] - y]  # fmt: skip
    with _figure(10, 4.2, columns=2) as (figure, (axes, counts)):
        axes.plot([0, 1], [0, 1], color="grey", linestyle="--", label="as promised")
        axes.errorbar(
            x, y, np.nan_to_num(error), fmt="o-", color=_colours()[0], capsize=3,
            label="found, 95 % over products",
        )  # fmt: skip
        axes.set(xlabel="promised match probability", ylabel="share of duplicates found")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title="Reliability")
        axes.legend(loc="lower right")
        counts.bar(x, [b["n"] for b in bins], width=0.06, color=_colours()[0])
        counts.set(xlabel="promised match probability", ylabel="pairs", yscale="log")
        counts.set(title="Pairs behind each point", xlim=(-0.05, 1.05))
        return _png(figure)


def kinds_chart(by_kind: Mapping[str, Mapping[str, float]], title: str) -> bytes:
    """Recall of each edit and share merged of each made look-alike, with counts."""
    edits = {k: v["recall"] for k, v in by_kind.items() if "recall" in v}
    merged = {k.removeprefix(MADE): v["merged"] for k, v in by_kind.items() if "merged" in v}
    n_bars = max(len(edits), len(merged), 1)
    with _figure(10, 1.6 + 0.24 * n_bars, columns=2) as (figure, both):
        for axes, values, colour, label in (
            (both[0], edits, 2, "edits recognised (higher is better)"),
            (both[1], merged, 1, "look-alikes merged (lower is better)"),
        ):
            names = sorted(values, key=lambda name: (values[name], name))
            if names:
                sns.barplot(
                    x=[values[n] for n in names], y=names, ax=axes, color=_colours()[colour]
                )
                axes.bar_label(axes.containers[0], fmt="%.3f", padding=3, fontsize=8)
            right = 1.0 if axes is both[0] else max([0.1, *values.values()])
            axes.set(xlim=(0, 1.14 * right), xlabel="share at 95 % precision", ylabel="")
            axes.set(title=label, ylim=(n_bars - 0.5, -0.5))
        figure.suptitle(title)
        return _png(figure)


def embedding_map(scored: Scored) -> tuple[bytes, float]:
    """Views on the two main axes of the embedding; and the share of variance these hold.

    Left by source, right the families with the most views.
    """
    views = scored.views
    centred = scored.vectors.astype(np.float64) - scored.vectors.mean(axis=0, dtype=np.float64)
    _, size, axes_of = np.linalg.svd(centred, full_matrices=False)
    # An axis has no sign of its own: the largest weight is made positive.
    sign = np.sign(axes_of[np.arange(2), np.abs(axes_of[:2]).argmax(axis=1)])
    at = centred @ axes_of[:2].T * sign
    made = np.char.startswith(views.kind, MADE)
    names, n = np.unique(views.family, return_counts=True)
    largest = names[np.argsort(-n, kind="stable")][:_MAX_MAP_FAMILIES]
    with _figure(11, 5, columns=2) as (figure, (left, right)):
        for axes, labels, order in (
            (left, views.source, np.unique(views.source)),
            (right, views.family, largest),
        ):
            grey = ~np.isin(labels, order)
            axes.scatter(*at[grey].T, s=5, color="0.82", linewidths=0)
            palette = sns.color_palette("colorblind", len(order))
            for name, colour in zip(order, palette, strict=True):
                for chosen, marker in ((~made, "o"), (made, "x")):
                    rows = (labels == name) & chosen
                    sizes = {"s": 9 if axes is left else 30, "alpha": 0.5 if axes is left else 0.9}
                    axes.scatter(
                        *at[rows].T, marker=marker, color=[colour], linewidths=0.8, **sizes
                    )
            axes.set(xlabel="first axis", ylabel="second axis")
        left.set_title("by source: " + _legend_of(left, np.unique(views.source)))
        right.set_title(f"{len(largest)} families with the most views, one colour each")
        return _png(figure), float((size[:2] ** 2).sum() / max((size**2).sum(), 1e-12))


def _legend_of(axes: Any, names: np.ndarray) -> str:
    palette = sns.color_palette("colorblind", len(names))
    handles: list[Any] = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=str(name))
        for name, colour in zip(names, palette, strict=True)
    ]
    handles += [Line2D([], [], marker=m, linestyle="", color="black", label=label)
                for m, label in (("o", "photo or edit"), ("x", "made look-alike"))]  # fmt: skip
    axes.legend(handles=handles, loc="best", fontsize=8)
    return ", ".join(map(str, names))
