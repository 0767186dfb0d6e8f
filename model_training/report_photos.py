"""The parts of a report that show photos: what counts in them, attention, best and worst pairs."""

from collections.abc import Iterator
from pathlib import Path

from dedup_job.kernels.bundle import Manifest
from dedup_job.kernels.occlusion import Embed, compare_places, overlay
from model_training import examples
from model_training.attention_maps import StageMaps, enlarge, hide, stage_maps
from model_training.figures import Scored, look_alike_kinds
from model_training.report_page import Section, card, grid, note, photo

_N_WORST, _N_BEST, _N_PHOTOS = 20, 8, 8


def what_counts(scored: Scored, embed: Embed) -> Section:
    """Photos and look-alikes with occlusion maps."""
    views = scored.views
    cards = []
    for a, b in examples.look_alike_examples(scored, _N_PHOTOS):
        first, second = views.views[a], views.views[b]
        found = compare_places(first, second, embed)
        name = _name_of(scored, a)
        cards.append(
            card(
                [
                    (photo(first, f"photo {name}"), "photo"),
                    (photo(overlay(first, found.attention_a), f"what counts in {name}"), "what counts"),
                    (photo(second, f"look-alike of {name}"), f"look-alike ({_kind_of(scored, b)})"),
                    (photo(overlay(second, found.difference), f"difference to {name}"), "where they differ"),
                ],
                f"{name}, cosine {found.cosine:.3f}",
            )
        )  # fmt: skip
    return Section(
        "what-counts",
        "What counts in a photo",
        "Red is where hiding a patch moves the embedding most (occlusion), and in the last picture "
        "where a patch swapped between the two makes them more alike: it should be on the garment.",
        grid(cards, 4),
    )


def attention(scored: Scored, bundle: Path, manifest: Manifest) -> Iterator[Section]:
    """What the attention gates let through, and what attention erasure hides."""
    rows = [a for a, _ in examples.look_alike_examples(scored, _N_PHOTOS)]
    maps = stage_maps(bundle, manifest, scored.views.views[rows])
    yield Section(
        "gates",
        "Spatial attention",
        "Red is where the network's own gate is most open in that photo, each map from its lowest "
        "to its highest value (given below it).",
        note(maps) if isinstance(maps, str) else _gates(scored, rows, maps),
    )
    rule = "" if isinstance(maps, str) else f" ({maps.rule})"
    yield Section(
        "erasure",
        "Attention erasure",
        f"Dark cells are the most salient{rule}: what training with attention erasure hides, so that "
        "the network also learns from the rest.",
        note(maps) if isinstance(maps, str) else _erased(scored, rows, maps),
    )


def _gates(scored: Scored, rows: list[int], maps: StageMaps) -> str:
    if not maps.gates:
        return note("This network has no spatial attention.")
    cards = []
    for i, row in enumerate(rows):
        rgb, name = scored.views.views[row], _name_of(scored, row)
        pictures = [(photo(rgb, f"photo {name}"), "photo")]
        for stage, gates in maps.gates.items():
            heat = overlay(rgb, enlarge(gates[i], rgb.shape[0]))
            said = f"stage {stage}: {gates[i].min():.2f} to {gates[i].max():.2f}"
            pictures.append((photo(heat, f"gate of stage {stage} on {name}"), said))
        cards.append(card(pictures, name))
    return grid(cards, 1 + len(maps.gates))


def _erased(scored: Scored, rows: list[int], maps: StageMaps) -> str:
    cards = []
    for i, row in enumerate(rows):
        rgb, name = scored.views.views[row], _name_of(scored, row)
        pictures = [(photo(rgb, f"photo {name}"), "photo")]
        for stage, cells in maps.erased.items():
            shown = photo(hide(rgb, cells[i]), f"erased at stage {stage} of {name}")
            pictures.append(
                (shown, f"stage {stage}: {int(cells[i].sum())} of {cells[i].size} cells")
            )
        cards.append(card(pictures, name))
    return grid(cards, 1 + len(maps.erased))


def pairs(scored: Scored, threshold: float | None) -> Iterator[Section]:
    """The best and the worst pairs; the best are judged at a threshold."""
    kinds = look_alike_kinds(scored)
    chosen = (
        ("recognised", "Best: duplicates recognised",
         "The most edited duplicates that are still above the threshold of 95 % precision.",
         examples.recognised_pairs(scored, threshold, _N_BEST)),
        ("told-apart", "Best: look-alikes told apart",
         "The look-alikes below that threshold that differ least as pixels.",
         examples.told_apart_pairs(scored, threshold, _N_BEST)),
        ("false", f"Worst: {_N_WORST} false pairs",
         f"Other products with the highest {scored.quantity}, the most harmful first: look for wrong labels, "
         "and for what the model does not see.",
         examples.false_pairs(scored, _N_WORST)),
        ("unrelated", f"Worst: {_N_WORST} unrelated pairs",
         "The same without look-alikes: different photos, so either one garment twice under two "
         "names or goods that the model confuses.",
         examples.false_pairs(scored, _N_WORST, ~scored.hard)),
        ("missed", f"Worst: {_N_WORST} missed duplicates",
         f"Duplicates with the lowest {scored.quantity}, one of each photo: look for the edits that cost most.",
         examples.missed_pairs(scored, _N_WORST)),
    )  # fmt: skip
    for anchor, title, reading, rows in chosen:
        cards = [_pair(scored, int(row), str(kinds[row])) for row in rows]
        yield Section(anchor, title, reading, grid(cards) if cards else note("There are none."))


def _pair(scored: Scored, row: int, kind: str) -> str:
    ends = (int(scored.a[row]), int(scored.b[row]))
    pictures = [
        (
            photo(scored.views.views[end], f"{_kind_of(scored, end)} of {_name_of(scored, end)}"),
            _kind_of(scored, end),
        )
        for end in ends
    ]
    what = "duplicates" if scored.same[row] else kind or "unrelated"
    names = " and ".join(dict.fromkeys(_name_of(scored, end) for end in ends))
    said = f"{scored.quantity} {scored.value[row]:.3f}"
    if scored.quantity == "score":
        said += f" (cosine {scored.vectors[ends[0]] @ scored.vectors[ends[1]]:.3f})"
    return card(pictures, f"{said}, {what}: {names}")


def _name_of(scored: Scored, row: int) -> str:
    """The photo a view was made from."""
    return str(scored.views.identity[row]).split("#other")[0]


def _kind_of(scored: Scored, row: int) -> str:
    """What was done to it, in words."""
    return str(scored.views.kind[row]).replace("NEG:", "made by ").replace("+", ", ")
