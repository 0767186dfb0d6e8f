"""What the sample shop lists: garments, their look-alikes and their duplicates, before any is drawn."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from dedup_job.sample.backgrounds import BACKGROUNDS
from dedup_job.sample.cloth import COLOURS, PATTERNS, PRINTS, TEXTS, Cloth, colour
from dedup_job.sample.edits import EDITS
from dedup_job.sample.photo import Design, Shot
from dedup_job.sample.silhouettes import KINDS

SIZES = ("S", "M", "L", "XL")
_TEXTURES = ("jersey", "denim", "knit", "heather", "linen")
_SHARE_PATTERNED, _SHARE_PRINTED = 0.5, 0.3
_SHARE_LOOK_ALIKE, _SHARE_DUPLICATED, _SHARE_SIZED = 0.35, 0.45, 0.06
# Where a print is large enough to make another product of a garment; elsewhere it is a small logo.
_SHOWS_PRINT = {"t-shirt", "tank top", "hoodie", "sweater", "dress", "skirt", "cap"}
# Colours closer than this (Euclidean, RGB) are one colour to a shopper in another light.
_DISTINCT_RGB = 110.0


@dataclass(frozen=True)
class Listing:
    """One product page with one photo.

    `product_id`: what is sold; `look_alike_of`: the product it is easily mistaken for, else its
    own; `kind`: how the photo came to be, in the words of truth.csv; `edits`: empty for an
    original, ("copy",) for the same file; `sizes`: sold in several sizes that share the photo.
    """

    product_id: str
    look_alike_of: str
    kind: str
    design: Design
    shot: Shot
    edits: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What the shop calls it."""
        cloth = self.design.cloth
        decor = cloth.pattern if cloth.pattern != "plain" else cloth.print_name
        return " ".join(word for word in (cloth.base, decor, self.design.kind) if word)


def plan_listings(n_products: int, seed: int) -> list[Listing]:
    """Listings of `n_products` garments, each followed by its duplicates and its look-alike."""
    rng = np.random.default_rng([seed, 71])
    seen: set[tuple[str, ...]] = set()
    listings: list[Listing] = []
    for number in range(n_products):
        design = _new_design(rng, number, seen)
        listings += _listings_of(design, f"P{number:05d}", number, rng)
    return listings


def _listings_of(
    design: Design, product_id: str, number: int, rng: np.random.Generator
) -> Iterator[Listing]:
    shot = Shot(str(rng.choice(list(BACKGROUNDS))), int(rng.integers(1 << 30)))
    sizes = SIZES if rng.random() < _SHARE_SIZED else ()
    original = Listing(product_id, product_id, "original", design, shot, sizes=sizes)
    yield original
    if rng.random() < _SHARE_DUPLICATED:
        yield from _duplicates(original, "", rng)
    if rng.random() < _SHARE_LOOK_ALIKE:
        what, cloth = _other_cloth(design, rng)
        look_alike = replace(
            original,
            product_id=f"{product_id}v",
            kind=f"NEG:{what}",
            design=replace(design, cloth=cloth),
            sizes=(),
        )
        yield look_alike
        if rng.random() < _SHARE_DUPLICATED:
            yield from _duplicates(look_alike, f"NEGDUP:{what}", rng)


def _duplicates(listing: Listing, kind: str, rng: np.random.Generator) -> Iterator[Listing]:
    for _ in range(1 + int(rng.random() < 0.3)):
        if not kind and rng.random() < 0.15:
            edits: tuple[str, ...] = ("copy",)
        else:
            n_edits = 1 + int(rng.random() < 0.4)
            # In the order of EDITS: badges and watermarks are laid on last, so never mirrored.
            chosen = rng.choice(len(EDITS), n_edits, replace=False)
            edits = tuple(list(EDITS)[index] for index in sorted(chosen))
        yield replace(listing, kind=kind or "+".join(edits), edits=edits, sizes=())


def _new_design(rng: np.random.Generator, number: int, seen: set[tuple[str, ...]]) -> Design:
    """A garment unlike all before it in kind, colour and decoration together."""
    while True:
        kind = str(rng.choice(list(KINDS)))
        cloth = _new_cloth(rng)
        key = (kind, cloth.base, cloth.pattern, cloth.print_name)
        if key not in seen:
            seen.add(key)
            return Design(kind, number, cloth)


def _new_cloth(rng: np.random.Generator) -> Cloth:
    base = str(rng.choice(list(COLOURS)))
    cloth = Cloth(
        base=base,
        accent=_contrasting(base, rng),
        scale=float(rng.uniform(0.12, 0.3)),
        turn_deg=float(rng.choice([0, 0, 0, 45])),
        text=str(rng.choice(TEXTS)),
        texture=str(rng.choice(_TEXTURES)),
        seed=int(rng.integers(1 << 20)),
    )
    draw = rng.random()
    if draw < _SHARE_PATTERNED:
        return replace(cloth, pattern=_other(list(PATTERNS), "plain", rng))
    if draw < _SHARE_PATTERNED + _SHARE_PRINTED:
        return replace(cloth, print_name=str(rng.choice(PRINTS)))
    return cloth


def _other_cloth(design: Design, rng: np.random.Generator) -> tuple[str, Cloth]:
    """The cloth of a look-alike, and what sets it apart: colourway, print or pattern."""
    cloth = design.cloth
    what = str(rng.choice(["colourway", "print", "pattern"]))
    if what == "colourway":
        base = _contrasting(cloth.base, rng)
        return what, replace(cloth, base=base, accent=_contrasting(base, rng))
    if what == "print" and cloth.pattern == "plain" and design.kind in _SHOWS_PRINT:
        return what, replace(cloth, print_name=_other(list(PRINTS), cloth.print_name, rng))
    pattern = _other([name for name in PATTERNS if name != "plain"], cloth.pattern, rng)
    return "pattern", replace(cloth, pattern=pattern, print_name="")


def _contrasting(name: str, rng: np.random.Generator) -> str:
    far = [
        other for other in COLOURS if np.linalg.norm(colour(other) - colour(name)) >= _DISTINCT_RGB
    ]
    return str(rng.choice(far))


def _other(names: list[str], taken: str, rng: np.random.Generator) -> str:
    return str(rng.choice([name for name in names if name != taken]))
