"""Cloth: colours, woven patterns and prints, evaluated anywhere in garment space."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "white": (240, 238, 232),
    "black": (34, 33, 36),
    "navy": (30, 40, 78),
    "royal blue": (38, 84, 176),
    "sky blue": (142, 188, 224),
    "teal": (22, 116, 120),
    "bottle green": (28, 78, 54),
    "olive": (108, 110, 58),
    "mint": (164, 216, 188),
    "yellow": (240, 200, 56),
    "mustard": (200, 146, 34),
    "orange": (232, 116, 38),
    "rust": (168, 74, 42),
    "red": (196, 32, 44),
    "burgundy": (106, 24, 44),
    "pink": (240, 166, 188),
    "magenta": (192, 40, 122),
    "lilac": (186, 164, 216),
    "purple": (88, 48, 122),
    "brown": (96, 66, 46),
    "camel": (192, 152, 104),
    "beige": (220, 204, 176),
    "light grey": (186, 188, 192),
    "charcoal": (78, 80, 86),
}

TEXTS = ("NORTH", "SURF", "RIVER", "1987", "OSLO", "PLAY", "BOLD", "AMORE", "CAMP", "23", "ECHO")
PRINTS = ("text", "star", "rings", "heart", "peaks", "band", "sun", "logo")
_PRINT_PX = 160


@dataclass(frozen=True)
class Cloth:
    """What a garment is made of. `scale`: pattern period in units; `print_name`: '' for none."""

    base: str
    accent: str
    pattern: str = "plain"
    scale: float = 0.2
    turn_deg: float = 0.0
    print_name: str = ""
    text: str = ""
    texture: str = "jersey"
    seed: int = 0


def colour(name: str) -> Field:
    """RGB of a named colour: float32 (3,), 0 to 255."""
    return np.array(COLOURS[name], dtype=np.float32)


def weave(cloth: Cloth, u: Field, v: Field, angle_deg: float) -> Field:
    """Colour of patterned cloth at garment-space points.

    Args:
        cloth: what is woven.
        u: float32 (n,) x coordinates, in units.
        v: float32 (n,) y coordinates.
        angle_deg: how the piece is turned.

    Returns:
        float32 (n, 3) RGB, 0 to 255.
    """
    angle = np.deg2rad(angle_deg + cloth.turn_deg)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along: Field = ((u * cos + v * sin) / cloth.scale).astype(np.float32)
    across: Field = ((v * cos - u * sin) / cloth.scale).astype(np.float32)
    weight = PATTERNS[cloth.pattern](along, across, cloth.seed)[:, None]
    return colour(cloth.base) * (1 - weight) + colour(cloth.accent) * weight


def _edge(wave: Field, sharpness: float = 9.0) -> Field:
    """A soft step at zero: 0 below, 1 above."""
    return np.clip(wave * np.float32(sharpness) + np.float32(0.5), 0, 1)


def _wave(x: Field) -> Field:
    return np.sin(x * np.float32(2 * np.pi))


def _plain(along: Field, across: Field, seed: int) -> Field:
    return np.zeros_like(along)


def _stripes(along: Field, across: Field, seed: int) -> Field:
    return _edge(_wave(across) - np.float32((0.0, 0.6, -0.5)[seed % 3]))


def _breton(along: Field, across: Field, seed: int) -> Field:
    return _edge(_wave(across) - np.float32(0.55)) * (across > -1.2)


def _pinstripes(along: Field, across: Field, seed: int) -> Field:
    return _edge(_wave(along * 2) - np.float32(0.86)) * np.float32(0.8)


def _checks(along: Field, across: Field, seed: int) -> Field:
    return (_edge(_wave(along)) + _edge(_wave(across))) * np.float32(0.5)


def _tartan(along: Field, across: Field, seed: int) -> Field:
    broad = (_edge(_wave(along) - 0.3) + _edge(_wave(across) - 0.3)) * np.float32(0.38)
    fine = np.maximum(_edge(_wave(along + 0.3) - 0.96, 20), _edge(_wave(across + 0.3) - 0.96, 20))
    return np.maximum(broad, fine * np.float32(0.9))


def _dots(along: Field, across: Field, seed: int) -> Field:
    shifted = along + np.float32(0.5) * (np.floor(across) % 2)
    x, y = shifted - np.floor(shifted) - 0.5, across - np.floor(across) - 0.5
    return _edge(np.float32(0.27 - 0.03 * (seed % 3)) - np.sqrt(x * x + y * y), 18)


def _blots(along: Field, across: Field, seed: int) -> Field:
    """Camouflage: a few waves of unrelated directions, cut at a level."""
    phases = np.random.default_rng(seed).uniform(0, 6.28, 4).astype(np.float32)
    total = np.sin(1.9 * along + 1.3 * np.sin(1.1 * across + phases[0]) + phases[1])
    total = total + np.sin(2.3 * across + 1.7 * np.sin(1.4 * along + phases[2]) + phases[3])
    return _edge(total - np.float32(0.25), 5)


def _flowers(along: Field, across: Field, seed: int) -> Field:
    shifted = along + np.float32(0.5) * (np.floor(across) % 2)
    x, y = shifted - np.floor(shifted) - 0.5, across - np.floor(across) - 0.5
    radius, angle = np.sqrt(x * x + y * y), np.arctan2(y, x)
    petals = np.float32(0.22) + np.float32(0.11) * np.cos(5 * angle + np.float32(seed % 7))
    return _edge(petals - radius, 16) * _edge(radius - np.float32(0.07), 16)


def _blocks(along: Field, across: Field, seed: int) -> Field:
    level = np.float32((-0.9, 0.0, 0.9)[seed % 3])
    return _edge(across - level, 12)


PATTERNS: dict[str, Callable[[Field, Field, int], Field]] = {
    "plain": _plain,
    "stripes": _stripes,
    "breton": _breton,
    "pinstripes": _pinstripes,
    "checks": _checks,
    "tartan": _tartan,
    "dots": _dots,
    "camouflage": _blots,
    "flowers": _flowers,
    "blocks": _blocks,
}


def print_mask(cloth: Cloth) -> NDArray[np.uint8]:
    """The print as ink coverage: uint8 (160, 160), 0 none to 255 full."""
    mask = np.zeros((_PRINT_PX, _PRINT_PX), np.uint8)
    if cloth.print_name:
        _PRINTERS[cloth.print_name](mask, cloth.text)
    return mask


def _print_text(mask: NDArray[np.uint8], text: str) -> None:
    font, thick = cv2.FONT_HERSHEY_DUPLEX, 6
    (width, height), _ = cv2.getTextSize(text, font, 1.0, thick)
    scale = min(150 / width, 90 / height)
    (width, height), _ = cv2.getTextSize(text, font, scale, thick)
    at = ((_PRINT_PX - width) // 2, (_PRINT_PX + height) // 2)
    cv2.putText(mask, text, at, font, scale, 255, thick, cv2.LINE_AA)


def _polygon(mask: NDArray[np.uint8], points: NDArray[np.float64], ink: int = 255) -> None:
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], ink, cv2.LINE_AA)


def _print_star(mask: NDArray[np.uint8], text: str) -> None:
    angle = np.arange(10) * np.pi / 5 - np.pi / 2
    radius = np.where(np.arange(10) % 2 == 0, 72, 30)
    _polygon(mask, 80 + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1))


def _print_rings(mask: NDArray[np.uint8], text: str) -> None:
    for radius in (68, 44, 20):
        cv2.circle(mask, (80, 80), radius, 255, 9, cv2.LINE_AA)


def _print_heart(mask: NDArray[np.uint8], text: str) -> None:
    t = np.linspace(0, 2 * np.pi, 60)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    _polygon(mask, np.stack([80 + 4.2 * x, 76 - 4.2 * y], axis=1))


def _print_peaks(mask: NDArray[np.uint8], text: str) -> None:
    _polygon(mask, np.array([(6, 126), (56, 40), (106, 126)], float), 255)
    _polygon(mask, np.array([(66, 126), (112, 62), (156, 126)], float), 170)
    cv2.circle(mask, (118, 36), 14, 255, -1, cv2.LINE_AA)


def _print_band(mask: NDArray[np.uint8], text: str) -> None:
    for top, ink in ((50, 255), (74, 140), (98, 255)):
        cv2.rectangle(mask, (2, top), (157, top + 16), ink, -1)


def _print_sun(mask: NDArray[np.uint8], text: str) -> None:
    cv2.circle(mask, (80, 80), 34, 255, -1, cv2.LINE_AA)
    for angle in np.arange(12) * np.pi / 6:
        ray = np.array([np.cos(angle), np.sin(angle)])
        start, end = np.rint(80 + 44 * ray).astype(int), np.rint(80 + 70 * ray).astype(int)
        cv2.line(mask, start.tolist(), end.tolist(), 255, 8, cv2.LINE_AA)


def _print_logo(mask: NDArray[np.uint8], text: str) -> None:
    cv2.ellipse(mask, (80, 80), (70, 46), 0, 0, 360, 255, 8, cv2.LINE_AA)
    _polygon(mask, np.array([(50, 100), (80, 52), (110, 100), (80, 86)], float))


_PRINTERS: dict[str, Callable[[NDArray[np.uint8], str], None]] = {
    "text": _print_text,
    "star": _print_star,
    "rings": _print_rings,
    "heart": _print_heart,
    "peaks": _print_peaks,
    "band": _print_band,
    "sun": _print_sun,
    "logo": _print_logo,
}
