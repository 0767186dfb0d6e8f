"""`dedup-job compare`: do two photos show one product?"""

import json
from pathlib import Path

from dedup_job.commands.output_file import written_whole
from dedup_job.commands.photo_query import Likeness, PhotoModel, cosine_of
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
    a, b = (model.open(Path(photo)) for photo in (photo_a, photo_b))
    found = model.likeness(cosine_of(a, b), a.shown, b.shown)
    if out is not None:
        facts = [*_facts(found, model), ("probability", f"{found.probability:.4f}")]
        title = f"{Path(photo_a).name} and {Path(photo_b).name}"
        explained = explain_photos(a.pixels, b.pixels, model.embed_pixels)
        write_explanation(Path(out), title, facts, a.pixels, b.pixels, explained)
    if as_json:
        told = {
            "cosine": found.cosine,
            "score": found.score,
            "match_probability": found.probability,
            "picture": out,
        }
        print(json.dumps(told))
        return
    verdict = "one product" if found.probability >= 0.5 else "two products"
    print(f"{verdict}, probability of one {found.probability:.4f}")
    figures = ", ".join(f"{name} {value}" for name, value in _facts(found, model))
    print(f"  {figures}" + (f"; picture {out}" if out else ""))


def _facts(found: Likeness, model: PhotoModel) -> Facts:
    facts = [("cosine", f"{found.cosine:.4f}")]
    return [*facts, ("score", f"{found.score:.4f}")] if model.verifies else facts


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
