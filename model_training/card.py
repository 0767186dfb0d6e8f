"""The model card: what a bundle was made of, how good it is, and where it must not be trusted."""

from pathlib import Path
from typing import Any

CARD = "MODEL_CARD.md"
_LABELS = {
    "int8_folder": "int8, home photos only",
    "int8_products": "int8, shop photos only",
    "int8_pairs": "int8, labelled pairs only",
    "int8_unseen_kinds": "int8, unseen kinds",
}

_TEXT = """# Model card

Embeds a product photo into {dim} numbers whose cosine says whether two photos are catalog edits of
one another (recompressed, resized, cropped, padded, watermarked, badged, relit, turned, mirrored)
or show different products, even when those differ by a colour, a pattern or a print only.

## Network

ResNet50 v1 at {width} of its width, {input_px} px, {attention}, {pooling} pooling, {dim}-d
head. Input: 8-bit RGB; scaling is a layer. `embedder.tflite` is int8; `model.keras` holds the same
weights as float16.

## Training

{n_photos} photos, {views} views, {hours:.1f} hours of computing, {weights}. {commands}:

```
{command}
```

{identities}

## Quality on held-out products (int8, through the job's decode path)

| views | µAP | recall at 95 % precision | at 99 % | hard-negative AUC |
|---|---|---|---|---|
{rows}

Held-out: {n_held_out} photos of products that training never saw. "Unseen kinds" are edits and a
look-alike generator that training never used.
{verifier}
## Data and licences

{data_note}

The bundle holds no photo: the golden pictures are drawn.

## Limits

- Goods unlike those of the training photos were never seen.
- Another view of a product (back, detail) is not a duplicate for this model.
- A change of a small part of the photo, such as a small logo, is often not seen.
- Photos of one model in one pose on white are alike: expect a higher threshold for such shops. The
  job solves it from the calibration.
- Edits that training never saw cost recall (last row of the table).
"""
_VERIFIER = """
## Pair verifier

Sees both photos of a candidate pair (cosine {floor:g} and more), laid over each other, and gives the pair a score; the job's
threshold acts on it. Trained on {pairs} pairs of the same photos. {commands}:

```
{command}
```

| the same held-out pairs, ranked by | µAP | recall at 95 % precision | at 99 % | hard-negative AUC |
|---|---|---|---|---|
{rows}
"""
_RANKED_BY = {"cosine": "cosine", "score": "score (int8)"}
_POOLING = {
    "avgmax": "average and maximum",
    "avg": "average",
    "gem": "generalised-mean (p = {p:g})",
}
_NO_DATA_NOTE = "State here where the photos come from and under which licences."
_IDENTITIES = {
    "folder": "{n} photos without labels are a product each.",
    "products": "{n} photos of a product table bring the other colours of their styles as negatives.",
    "pairs": "{n} photos of labelled pairs: similar ones attract, dissimilar ones repel.",
}


def write_card(directory: Path, facts: dict[str, Any]) -> None:
    """Write `MODEL_CARD.md` from the facts of the manifest; before the manifest, which hashes it.

    A bundle with a verifier has facts of it under `verifier`, see `verifier_bundle`.
    """
    training, network = facts["training"], facts["training"]["config"]["network"]
    trainings = _all_trainings(training)
    on = [k for k in ("channel", "spatial") if network[f"{k}_attention"]]
    stages = ", ".join(str(s) for s in network["attention_stages"])
    text = _TEXT.format(
        dim=network["dim"],
        width=network["width"],
        input_px=network["input_px"],
        attention=f"{' and '.join(on)} attention after stages {stages}" if on else "no attention",
        # Bundles of earlier versions do not say how they pool.
        pooling=_POOLING[network.get("pooling", "avgmax")].format(p=network.get("gem_p", 3.0)),
        n_photos=training["n_photos"],
        views=sum(phase["views"] for phase in trainings),
        weights=_weights(network["backbone_weights"]),
        identities=_identities(training["sources"]),
        data_note=training["config"]["data_note"].strip() or _NO_DATA_NOTE,
        hours=sum(phase["spent_s"] for phase in trainings) / 3600,
        commands=_commands(trainings),
        command=_lines(trainings),
        n_held_out=training["n_held_out_photos"],
        rows="\n".join(_row(name, figures) for name, figures in facts["quality"].items()),
        verifier=_verifier(facts["verifier"]) if "verifier" in facts else "",
    )
    (directory / CARD).write_text(text, encoding="utf-8")


def _verifier(facts: dict[str, Any]) -> str:
    trainings = _all_trainings(facts)
    rows = [_row(label, facts["quality"][name]) for name, label in _RANKED_BY.items()]
    return _VERIFIER.format(
        floor=facts["floor_cosine"],
        pairs=sum(phase["pairs"] for phase in trainings),
        commands=_commands(trainings),
        command=_lines(trainings),
        rows="\n".join(rows),
    )


def _all_trainings(last: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that made these weights, one after the other; bundles of earlier versions tell of the last alone."""
    return [*last.get("earlier", []), last]


def _commands(trainings: list[dict[str, Any]]) -> str:
    if len(trainings) == 1:
        return "Command"
    return f"{len(trainings)} trainings, each going on from the one before"


def _lines(trainings: list[dict[str, Any]]) -> str:
    return "\n".join(training["command"] for training in trainings)


def _weights(loaded: str) -> str:
    if loaded == "none":
        return "from scratch: no pretrained weights"
    # The name only: a path of the machine it was trained on is nobody's business.
    return f"starting from ResNet50 weights ({Path(loaded).name})"


def _identities(n_by_source: dict[str, int]) -> str:
    lines = [
        "Of every photo two edits attract, and repel two views of it whose garment was turned into "
        "another product.",
        *(_IDENTITIES[source].format(n=n) for source, n in sorted(n_by_source.items())),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _row(name: str, figures: dict[str, float]) -> str:
    keys = ("uap", "recall_at_p95", "recall_at_p99", "hard_auc")
    label = _LABELS.get(name, name)
    return f"| {label} | " + " | ".join(f"{figures[k]:.3f}" for k in keys) + " |"
