"""`dedup-job compare`: do two photos show one product?"""

import json
from pathlib import Path

import numpy as np

from dedup_job.commands.output_file import written_whole
from dedup_job.commands.photo_query import PhotoModel
from dedup_job.errors import ConfigError
from dedup_job.gallery.explanation import (
    Explained,
    draw_explanation,
    explain_photos,
    render_explanation,
)
from dedup_job.kernels.images import Pixels

Facts = list[tuple[str, str]]


def compare(
    photo_a: str, photo_b: str, bundle: str, out: str | None = None, *, as_json: bool = False
) -> None:
    """Print how likely two photos show one product; optionally draw why.

    Args:
        photo_a: a file.
        photo_b: another one.
        bundle: as `--model`.
        out: a .png or .html to write.
        as_json: print one JSON object.

    Raises:
        ConfigError: a photo cannot be used, or `out` cannot be written.
    """
    model = PhotoModel(bundle)
    a, b = (model.prepare(Path(photo)) for photo in (photo_a, photo_b))
    vectors = model.embed_pixels(np.stack([a, b]))
    cosine = float(np.clip(vectors[0].astype(np.float64) @ vectors[1], -1, 1))
    probability = model.probability(cosine)
    if out is not None:
        facts = [("cosine", f"{cosine:.4f}"), ("probability", f"{probability:.4f}")]
        title = f"{Path(photo_a).name} and {Path(photo_b).name}"
        write_explanation(Path(out), title, facts, a, b, explain_photos(a, b, model.embed_pixels))
    if as_json:
        print(json.dumps({"cosine": cosine, "match_probability": probability, "picture": out}))
        return
    print(
        f"{'one product' if probability >= 0.5 else 'two products'}, probability of one {probability:.4f}"
    )
    print(f"  cosine {cosine:.4f}" + (f"; picture {out}" if out else ""))


def write_explanation(
    out: Path, title: str, facts: Facts, a: Pixels, b: Pixels, explained: Explained
) -> None:
    """Write a .png, or a .html with facts.

    Raises:
        ConfigError: another suffix, or the file cannot be written.
    """
    png = draw_explanation(a, b, explained)
    if out.suffix == ".png":
        data = png
    elif out.suffix == ".html":
        data = render_explanation(title, [*facts, explained.fact], png).encode()
    else:
        raise ConfigError(f"--out {out}: expected a .png or .html file")
    with written_whole(out) as partial:
        partial.write_bytes(data)
