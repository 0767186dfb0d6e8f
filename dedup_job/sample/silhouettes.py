"""Outlines of garments as flat lays show them: the cut, without cloth or light.

Garment space: x to the right and y down, the garment centred near (0, 0), about 2 units wide and
2.4 units high. Symmetric garments are given by their right half.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Cut = Callable[[np.random.Generator], "Silhouette"]


@dataclass(frozen=True)
class Part:
    """A piece of cloth.

    `outline`: (n, 2); `tone`: brightness factor; `angle_deg`: how its pattern is turned;
    `accented`: cut from the second colour, without pattern.
    """

    outline: Points
    tone: float = 1.0
    angle_deg: float = 0.0
    accented: bool = False


@dataclass(frozen=True)
class Line:
    """A seam, cord or zip. `width`: in units; `tone`: 0 dark to 1 cloth colour to 2 white."""

    points: Points
    width: float = 0.012
    tone: float = 0.62


@dataclass(frozen=True)
class Silhouette:
    """Parts in drawing order, lines and buttons above them, and where a print goes."""

    parts: list[Part]
    lines: list[Line] = field(default_factory=list)
    buttons: list[tuple[float, float]] = field(default_factory=list)
    print_at: tuple[float, float] = (0.0, -0.15)
    print_size: float = 0.5
    hangs_at: tuple[float, float] | None = None


def cut(kind: str, seed: int) -> Silhouette:
    """Cut one garment of a kind in `KINDS`; the seed decides its widths and lengths."""
    return KINDS[kind](np.random.default_rng([seed, 11]))


def _points(*xy: tuple[float, float]) -> Points:
    return np.array(xy, dtype=np.float64)


def _mirrored(outline: Points) -> Points:
    """The left twin of a right-hand part."""
    return outline[::-1] * np.array([-1.0, 1.0])


def _whole(right_half: Points) -> Points:
    """Close a right half (top centre to bottom centre) with its mirror image."""
    return np.concatenate([right_half, _mirrored(right_half)])


def _sleeves(outline: Points, angle_deg: float, tone: float = 0.96) -> list[Part]:
    return [Part(outline, tone, -angle_deg), Part(_mirrored(outline), tone, angle_deg)]


def _both(line: Points, width: float = 0.012, tone: float = 0.62) -> list[Line]:
    return [Line(line, width, tone), Line(_mirrored(line), width, tone)]


def _arc(rx: float, ry: float, y: float, start_deg: float = 0, end_deg: float = 180) -> Points:
    """Lower half of an ellipse by default: necklines and hems."""
    angle = np.deg2rad(np.linspace(start_deg, end_deg, 13))
    return np.stack([rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def _neck(rx: float, front: float, y: float, rib: float = 0.035) -> tuple[Part, Line]:
    """The dark inside of the back, seen through the neck hole, and the collar around it."""
    hole = np.concatenate([_arc(rx, front, y), _arc(rx, 0.05, y, 180, 360)])
    return Part(hole, 0.55), Line(_arc(rx + rib / 2, front + rib / 2, y), rib, 0.85)


def _top_body(chest: float, hem_y: float, neck: float, flare: float = 0.0) -> Points:
    return _whole(
        _points(
            (0.0, -0.83),
            (neck, -0.86),
            (neck, -0.86),
            (chest - 0.03, -0.72),
            (chest + 0.02, -0.60),
            (chest, -0.28),
            (chest - 0.01 + flare / 2, 0.2),
            (chest + flare, hem_y),
            (chest + flare, hem_y),
            (0.0, hem_y + 0.02),
        )
    )


def _long_sleeve(chest: float, reach: float) -> Points:
    return _points(
        (chest - 0.06, -0.74),
        (chest + 0.12, -0.62),
        (chest + 0.12 + reach * 0.5, -0.1),
        (chest + 0.10 + reach, 0.52),
        (chest + 0.10 + reach, 0.52),
        (chest - 0.06 + reach, 0.58),
        (chest - 0.06 + reach, 0.58),
        (chest + 0.02, -0.12),
        (chest - 0.03, -0.30),
    )


def _cuffs(chest: float, reach: float) -> list[Line]:
    return _both(_points((chest + 0.09 + reach, 0.44), (chest - 0.06 + reach, 0.50)), 0.014)


def _t_shirt(rng: np.random.Generator) -> Silhouette:
    chest, hem = rng.uniform(0.43, 0.52), rng.uniform(0.62, 0.84)
    length, neck = rng.uniform(0.0, 0.18), rng.uniform(0.15, 0.22)
    sleeve = _points(
        (chest - 0.06, -0.74),
        (chest + 0.12, -0.62),
        (chest + 0.36 + length, -0.22 + length),
        (chest + 0.36 + length, -0.22 + length),
        (chest + 0.17 + length / 2, -0.06 + length),
        (chest + 0.17 + length / 2, -0.06 + length),
        (chest - 0.02, -0.30),
    )
    hole, collar = _neck(neck, rng.uniform(0.07, 0.26), -0.83)
    hem_line = Line(_points((-chest, hem - 0.05), (chest, hem - 0.05)), 0.008)
    lines = [collar, hem_line, *_both(_points((chest - 0.03, -0.72), (chest - 0.01, -0.28)))]
    parts = [*_sleeves(sleeve, 40), Part(_top_body(chest, hem, neck)), hole]
    return Silhouette(parts, lines, hangs_at=(0.0, -0.86))


def _tank_top(rng: np.random.Generator) -> Silhouette:
    chest, hem, depth = rng.uniform(0.40, 0.47), rng.uniform(0.6, 0.85), rng.uniform(0.25, 0.42)
    strap = rng.uniform(0.08, 0.14)
    front = _whole(
        _points(
            (0.0, -0.86 + depth),
            (0.12, -0.88 + depth),
            (0.20, -0.84),
            (0.20, -0.84),
            (0.20 + strap, -0.84),
            (0.20 + strap, -0.84),
            (0.14 + strap, -0.52),
            (0.20 + strap, -0.32),
            (chest, -0.20),
            (chest, -0.20),
            (chest - 0.03, 0.2),
            (chest + 0.02, hem),
            (chest + 0.02, hem),
            (0.0, hem + 0.02),
        )
    )
    back = _whole(_points((0.0, -0.68), (0.2, -0.83), (0.2, -0.83), (0.2, -0.3), (0.0, -0.3)))
    edge = _points((0.21, -0.82), (0.13, -0.86 + depth), (0.0, -0.84 + depth))
    return Silhouette([Part(back, 0.55), Part(front)], _both(edge, 0.02, 0.8), hangs_at=(0, -0.86))


def _shirt(rng: np.random.Generator) -> Silhouette:
    chest, hem, reach = rng.uniform(0.42, 0.5), rng.uniform(0.68, 0.88), rng.uniform(0.12, 0.3)
    collar = _points(
        (0.02, -0.70), (0.02, -0.70), (0.19, -0.92), (0.24, -0.84), (0.20, -0.62), (0.20, -0.62)
    )
    body = Part(_top_body(chest, hem, 0.18, 0.02))
    inside = Part(_whole(_points((0, -0.92), (0.17, -0.92), (0.12, -0.8), (0, -0.68))), 0.5)
    parts = [*_sleeves(_long_sleeve(chest, reach), 65), body, inside]
    parts += [Part(collar, 1.06, 30), Part(_mirrored(collar), 1.06, -30)]
    lines = [Line(_points((0.05, -0.68), (0.05, hem))), Line(_points((-0.05, -0.68), (-0.05, hem)))]
    lines += _cuffs(chest, reach)
    lines += _both(_points((0.02, -0.70), (0.20, -0.62), (0.24, -0.84)), 0.01, 0.55)
    if rng.random() < 0.7:
        lines.append(
            Line(
                _points((0.14, -0.38), (0.34, -0.38), (0.34, -0.14), (0.24, -0.1), (0.14, -0.14)),
                0.01,
            )
        )
    buttons = [(0.0, y) for y in np.arange(-0.58, hem - 0.05, 0.2)]
    return Silhouette(parts, lines, buttons, (-0.24, -0.25), 0.2, (0.0, -0.9))


def _hoodie(rng: np.random.Generator) -> Silhouette:
    chest, hem, reach = rng.uniform(0.46, 0.54), rng.uniform(0.56, 0.74), rng.uniform(0.1, 0.26)
    hood = _whole(_points((0, -1.12), (0.22, -1.08), (0.34, -0.86), (0.3, -0.62), (0, -0.52)))
    opening = _whole(_points((0, -1.0), (0.14, -0.96), (0.19, -0.8), (0.1, -0.64), (0, -0.6)))
    pocket = _points(
        (-0.2, 0.12), (0.2, 0.12), (0.2, 0.12), (0.33, 0.32), (0.33, hem - 0.1), (0.33, hem - 0.1)
    )
    pocket = np.concatenate(
        [pocket, _points((-0.33, hem - 0.1), (-0.33, hem - 0.1), (-0.33, 0.32))]
    )
    parts = [*_sleeves(_long_sleeve(chest, reach), 65), Part(_top_body(chest, hem, 0.2))]
    parts += [Part(hood, 0.93), Part(opening, 0.5), Part(pocket, 1.03)]
    lines = [
        Line(np.concatenate([pocket, pocket[:1]]), 0.012, 0.6),
        Line(_points((-chest, hem - 0.09), (chest, hem - 0.09)), 0.014),
        *_cuffs(chest, reach),
        *_both(_points((0.08, -0.6), (0.09, -0.35), (0.075, -0.2)), 0.02, 1.9),
    ]
    if rng.random() < 0.4:
        lines.append(Line(_points((0, -0.58), (0, hem)), 0.022, 0.4))
    return Silhouette(parts, lines, [], (0.0, -0.12), 0.4)


def _sweater(rng: np.random.Generator) -> Silhouette:
    chest, hem, reach = rng.uniform(0.45, 0.55), rng.uniform(0.56, 0.78), rng.uniform(0.1, 0.34)
    hole, collar = _neck(0.18, rng.choice([0.09, 0.3]), -0.83, 0.07)
    parts = [*_sleeves(_long_sleeve(chest, reach), 65), Part(_top_body(chest, hem, 0.18)), hole]
    rib_x = np.arange(-chest + 0.03, chest, 0.045)
    lines = [Line(_points((x, hem - 0.1), (x, hem)), 0.01, 0.75) for x in rib_x]
    lines += [collar, Line(_points((-chest, hem - 0.1), (chest, hem - 0.1)), 0.012)]
    lines += _cuffs(chest, reach)
    return Silhouette(parts, lines, print_size=0.55)


def _jacket(rng: np.random.Generator) -> Silhouette:
    chest, hem, reach = rng.uniform(0.47, 0.56), rng.uniform(0.55, 0.9), rng.uniform(0.1, 0.22)
    parts = [*_sleeves(_long_sleeve(chest, reach), 65), Part(_top_body(chest, hem, 0.2, 0.02))]
    inner = _whole(_points((0, -0.9), (0.16, -0.9), (0.14, -0.7), (0.0, -0.28), (0.0, -0.28)))
    lapel = _points((0.0, -0.24), (0.17, -0.9), (0.25, -0.86), (0.3, -0.52), (0.22, -0.5))
    collar = _whole(_points((0, -0.98), (0.2, -0.97), (0.22, -0.78), (0, -0.72)))
    quilted = bool(rng.random() < 0.35)
    if quilted:
        parts.append(Part(collar, 0.9))
        lines = [
            Line(_points((-chest, y), (0, y + 0.03), (chest, y)), 0.014, 0.7)
            for y in np.arange(-0.5, hem - 0.05, 0.19)
        ]
    else:
        parts += [Part(inner, accented=True), Part(lapel, 1.07, 25)]
        parts += [Part(_mirrored(lapel), 1.07, -25)]
        lines = _both(_points((0.0, -0.24), (0.22, -0.5), (0.3, -0.52), (0.25, -0.86)), 0.01, 0.5)
    top = -0.74 if quilted else -0.24
    lines += [Line(_points((0, top), (0.0, hem)), 0.02, 0.35), *_cuffs(chest, reach)]
    lines += _both(_points((0.18, 0.26), (0.38, 0.2)), 0.03, 0.6)
    buttons = [] if quilted else [(0.05, y) for y in np.arange(-0.12, hem - 0.15, 0.24)]
    return Silhouette(parts, lines, buttons, (0.28, -0.28), 0.16)


def _dress(rng: np.random.Generator) -> Silhouette:
    chest, waist = rng.uniform(0.32, 0.38), rng.uniform(0.25, 0.32)
    flare, hem = rng.uniform(0.45, 0.8), rng.uniform(0.85, 1.2)
    depth = rng.uniform(0.12, 0.34)
    front = _whole(
        _points(
            (0.0, -0.98 + depth),
            (0.16, -0.98),
            (0.16, -0.98),
            (0.27, -0.95),
            (0.27, -0.95),
            (0.27, -0.72),
            (chest, -0.56),
            (chest - 0.02, -0.4),
            (waist, -0.14),
            (waist, -0.14),
            (waist + 0.4 * (flare - waist), 0.3),
            (flare, hem - 0.02),
            (flare, hem - 0.02),
            (0.0, hem + 0.05),
        )
    )
    back = _whole(_points((0, -0.93), (0.16, -0.97), (0.16, -0.97), (0.1, -0.6), (0, -0.6)))
    lines = [Line(_points((-waist, -0.14), (waist, -0.14)), 0.03, 0.7)]
    lines += [
        Line(_points((t * waist * 0.8, -0.1), (t * flare * 0.85, hem - 0.05)), 0.016, 0.8)
        for t in (-0.8, -0.45, -0.1, 0.3, 0.7)
    ]
    parts = [Part(back, 0.55), Part(front)]
    if rng.random() < 0.45:
        sleeve = _points(
            (0.22, -0.95), (0.3, -0.94), (0.56, -0.6), (0.56, -0.6), (0.42, -0.5), (0.3, -0.66)
        )
        parts = [*_sleeves(sleeve, 40), *parts]
    return Silhouette(parts, lines, [], (0.0, 0.4), 0.4, (0.0, -0.96))


def _skirt(rng: np.random.Generator) -> Silhouette:
    waist, flare, hem = rng.uniform(0.34, 0.42), rng.uniform(0.45, 0.85), rng.uniform(0.35, 0.95)
    body = _whole(
        _points(
            (0, -0.62), (waist, -0.64), (waist, -0.64), (waist + 0.1, -0.3),
            (flare, hem), (flare, hem), (0, hem + 0.06),
        )
    )  # fmt: skip
    band = _whole(_points((0, -0.74), (waist, -0.76), (waist, -0.76), (waist, -0.6), (0, -0.58)))
    pleats = np.linspace(-0.85, 0.85, rng.integers(3, 10))
    lines = [
        Line(_points((t * waist, -0.56), (t * flare, hem)), 0.018, rng.uniform(0.6, 0.85))
        for t in pleats
    ]
    lines.append(Line(_points((-waist, -0.6), (0, -0.58), (waist, -0.6)), 0.012))
    return Silhouette([Part(body), Part(band, 0.92)], lines, [(waist - 0.06, -0.68)], (0, 0.1), 0.4)


def _legs(rng: np.random.Generator, hem: float, taper: float) -> Silhouette:
    waist, hip, gap = rng.uniform(0.33, 0.4), rng.uniform(0.42, 0.5), rng.uniform(0.02, 0.09)
    top = -1.1 if hem > 0.6 else -0.75
    crotch = top + rng.uniform(0.58, 0.72)
    leg = _points(
        (-0.02, top + 0.03),
        (waist, top),
        (waist, top),
        (hip, top + 0.42),
        (hip + 0.02 - taper * 0.4, (hem + crotch) / 2),
        (hip + gap - taper, hem),
        (hip + gap - taper, hem),
        (gap + 0.02 + taper * 0.2, hem + 0.01),
        (gap + 0.02 + taper * 0.2, hem + 0.01),
        (-0.01, crotch),
        (-0.02, crotch),
    )
    band = _whole(
        _points((0, top + 0.02), (waist, top - 0.02), (waist + 0.01, top + 0.1), (0, top + 0.13))
    )
    parts = [Part(_mirrored(leg), 0.97, 4), Part(leg, 1.0, -4), Part(band, 0.93)]
    lines = [
        Line(_points((0, top + 0.1), (0.03, crotch - 0.12), (0, crotch)), 0.014, 0.55),
        Line(_points((-waist, top + 0.11), (0, top + 0.13), (waist, top + 0.11)), 0.012, 0.6),
        *_both(
            _points(
                (waist - 0.14, top + 0.12), (waist - 0.04, top + 0.3), (hip - 0.02, top + 0.34)
            ),
            0.012,
            0.55,
        ),
        *_both(
            _points((gap + 0.02 + taper * 0.2, hem - 0.05), (hip + gap - taper, hem - 0.06)),
            0.01,
            0.65,
        ),
    ]
    return Silhouette(parts, lines, [(0.0, top + 0.05)], (0.26, top + 0.55), 0.18)


def _trousers(rng: np.random.Generator) -> Silhouette:
    return _legs(rng, rng.uniform(0.95, 1.2), rng.uniform(0.0, 0.2))


def _shorts(rng: np.random.Generator) -> Silhouette:
    return _legs(rng, rng.uniform(0.15, 0.5), rng.uniform(-0.14, -0.02))


def _cap(rng: np.random.Generator) -> Silhouette:
    crown_y, width = rng.uniform(-0.62, -0.48), rng.uniform(0.56, 0.66)
    crown = _whole(
        _points(
            (0, crown_y), (0.34, crown_y + 0.06), (width, -0.1),
            (width, 0.26), (width, 0.26), (0, 0.18),
        )
    )  # fmt: skip
    brim_y = rng.uniform(0.5, 0.68)
    brim = _whole(
        _points(
            (0, 0.12), (width - 0.06, 0.2), (width, 0.26), (width + 0.1, 0.44),
            (0.5, brim_y - 0.04), (0, brim_y),
        )
    )  # fmt: skip
    lines = [
        Line(_points((0, crown_y), (0, 0.14)), 0.012, 0.6),
        *_both(_points((0.03, crown_y + 0.01), (0.3, -0.2), (0.36, 0.18)), 0.012, 0.6),
        Line(
            np.array([[x, 0.15 + 0.1 * (x / width) ** 2] for x in np.linspace(-width, width, 9)]),
            0.02,
            0.5,
        ),
        Line(
            np.array(
                [[x, brim_y - 0.1 - 0.2 * (x / width) ** 2] for x in np.linspace(-0.5, 0.5, 9)]
            ),
            0.008,
            0.7,
        ),
    ]
    parts = [Part(crown), Part(brim, 0.9, accented=bool(rng.random() < 0.4))]
    return Silhouette(parts, lines, [(0.0, crown_y + 0.01)], (0, -0.14), 0.34)


KINDS: dict[str, Cut] = {
    "t-shirt": _t_shirt,
    "tank top": _tank_top,
    "shirt": _shirt,
    "hoodie": _hoodie,
    "sweater": _sweater,
    "jacket": _jacket,
    "dress": _dress,
    "skirt": _skirt,
    "trousers": _trousers,
    "shorts": _shorts,
    "cap": _cap,
}
