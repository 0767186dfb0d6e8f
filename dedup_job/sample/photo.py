"""A garment photographed: cloth on its silhouette, folded, lit, laid or hung, and taken by a camera."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dedup_job.sample.backgrounds import HEIGHT_PX, WIDTH_PX, background, smooth_noise
from dedup_job.sample.cloth import Cloth, Field, colour, print_mask, weave
from dedup_job.sample.silhouettes import Line, Part, Points, Silhouette, cut

Pixels = NDArray[np.uint8]
_SUBPIXEL_BITS = 4  # cv2 draws at 1/16 pixel, so seams do not jitter between similar cuts


@dataclass(frozen=True)
class Design:
    """A garment as its maker knows it: what it is, how it is cut, what it is made of."""

    kind: str
    cut_seed: int
    cloth: Cloth


@dataclass(frozen=True)
class Shot:
    """How a garment is photographed; two designs with one shot differ in cut and cloth alone."""

    background: str
    seed: int


@dataclass
class _Scene:
    """Where garment space lies in the picture. `bend`: (height, width, 2) cloth shift in pixels."""

    unit_px: float
    angle_rad: float
    centre: tuple[float, float]
    bend: Field

    def to_pixels(self, points: Points) -> NDArray[np.float64]:
        at = points @ _turn(self.angle_rad) * self.unit_px + np.array(self.centre)
        column = np.clip(at[:, 0].astype(int), 0, WIDTH_PX - 1)
        row = np.clip(at[:, 1].astype(int), 0, HEIGHT_PX - 1)
        return at + self.bend[row, column]

    def to_garment(self) -> tuple[Field, Field]:
        """Garment-space x and y of every pixel."""
        x, y = np.meshgrid(np.arange(WIDTH_PX), np.arange(HEIGHT_PX))
        dx = (x - self.bend[..., 0] - self.centre[0]) / self.unit_px
        dy = (y - self.bend[..., 1] - self.centre[1]) / self.unit_px
        cos, sin = np.cos(self.angle_rad), np.sin(self.angle_rad)
        u, v = dx * cos + dy * sin, dy * cos - dx * sin
        return u.astype(np.float32), v.astype(np.float32)


def photograph(design: Design, shot: Shot) -> Pixels:
    """Draw one photo: uint8 (533, 400, 3) RGB, the same for equal arguments."""
    rng = np.random.default_rng([shot.seed, 37])
    silhouette = cut(design.kind, design.cut_seed)
    hung = shot.background == "wall" and silhouette.hangs_at is not None
    scene = _set_up(silhouette, rng, hung)
    picture = background(shot.background, shot.seed)
    if hung:
        _draw_hanger(picture, scene, silhouette)
    garment, alpha = _sew(silhouette, design.cloth, scene)
    garment *= _folds(scene, rng)[..., None] * _texture(design.cloth, scene)[..., None]
    _cast_shadow(picture, alpha, rng, 14.0 if hung else 6.0)
    picture += (garment - picture) * alpha[..., None]
    return _expose(picture, rng)


def _set_up(silhouette: Silhouette, rng: np.random.Generator, hung: bool) -> _Scene:
    """Choose a scale that keeps the turned garment inside the frame with a shop photo's margins."""
    angle = float(np.deg2rad(rng.normal(0, 0.8 if hung else 4.0)))
    points = np.concatenate([part.outline for part in silhouette.parts]) @ _turn(angle)
    low, high = points.min(axis=0), points.max(axis=0)
    fill = rng.uniform(0.78, 0.92)
    unit = min(fill * WIDTH_PX / (high[0] - low[0]), fill * 0.97 * HEIGHT_PX / (high[1] - low[1]))
    middle = (low + high) / 2
    drop = 14 if hung else 0  # room for the hanger
    centre = np.array([WIDTH_PX, HEIGHT_PX]) / 2 - middle * unit + rng.uniform(-6, 6, 2)
    bend = np.stack([smooth_noise(rng, 6, 5), smooth_noise(rng, 6, 5)], axis=2) * 5
    return _Scene(float(unit), angle, (float(centre[0]), float(centre[1] + drop)), bend)


def _turn(angle_rad: float) -> NDArray[np.float64]:
    """Rotation matrix to multiply row vectors with."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[cos, sin], [-sin, cos]])


def _sew(silhouette: Silhouette, cloth: Cloth, scene: _Scene) -> tuple[Field, Field]:
    """Colour and coverage of the unlit garment: float32 (h, w, 3) and (h, w)."""
    u, v = scene.to_garment()
    garment = np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.float32)
    alpha = np.zeros((HEIGHT_PX, WIDTH_PX), np.float32)
    for part in silhouette.parts:
        _sew_part(garment, alpha, part, cloth, scene, u, v)
    if cloth.print_name:
        _print(garment, silhouette, cloth, u, v)
    for line in silhouette.lines:
        _stitch(garment, line, scene)
    for at in silhouette.buttons:
        _button(garment, scene.to_pixels(np.array([at]))[0], cloth)
    return garment, alpha


def _sew_part(
    garment: Field, alpha: Field, part: Part, cloth: Cloth, scene: _Scene, u: Field, v: Field
) -> None:
    """Lay one piece over the others; it darkens towards its edge and shades what lies below."""
    outline = scene.to_pixels(_rounded(part.outline))
    mask = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
    cv2.fillPoly(mask, [_fixed(outline)], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
    coverage = mask.astype(np.float32) / 255
    near = cv2.GaussianBlur(coverage, (0, 0), 4)
    garment *= 1 - 0.3 * near[..., None]
    inside = mask > 0
    plain = part.accented
    rgb = (
        np.tile(colour(cloth.accent), (int(inside.sum()), 1))
        if plain
        else weave(cloth, u[inside], v[inside], part.angle_deg)
    )
    rgb *= (part.tone * (0.78 + 0.22 * np.clip(2.2 * near[inside] - 1.1, 0, 1)))[:, None]
    weight = coverage[inside][:, None]
    # An edge pixel takes full cloth colour where nothing lies below: alpha does the blending there.
    below = np.where(alpha[inside][:, None] > 0.5, garment[inside], rgb)
    garment[inside] = below * (1 - weight) + rgb * weight
    np.maximum(alpha, coverage, out=alpha)


def _rounded(outline: Points) -> Points:
    """Chaikin's corner cutting, twice; a corner given twice stays sharp."""
    for _ in range(2):
        following = np.roll(outline, -1, axis=0)
        pair = np.stack([0.75 * outline + 0.25 * following, 0.25 * outline + 0.75 * following], 1)
        outline = pair.reshape(-1, 2)
    return outline


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.rint(points * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def _stitch(garment: Field, line: Line, scene: _Scene) -> None:
    mask = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
    steps = np.linspace(0, len(line.points) - 1, 4 * len(line.points))
    index = np.arange(len(line.points))
    dense = np.stack([np.interp(steps, index, line.points[:, axis]) for axis in (0, 1)], axis=1)
    thick = max(1, round(line.width * scene.unit_px))
    at = [_fixed(scene.to_pixels(dense))]
    cv2.polylines(mask, at, False, 255, thick, cv2.LINE_AA, _SUBPIXEL_BITS)
    rows, columns = np.nonzero(mask)
    ink = (mask[rows, columns] / np.float32(255))[:, None]
    target = 0.0 if line.tone < 1 else 235.0
    strength = abs(1 - line.tone) * ink
    garment[rows, columns] += (target - garment[rows, columns]) * strength


def _button(garment: Field, at: NDArray[np.float64], cloth: Cloth) -> None:
    dark = float(colour(cloth.base).mean()) > 140
    centre = (round(float(at[0])), round(float(at[1])))
    cv2.circle(garment, centre, 4, (60, 56, 52) if dark else (214, 206, 190), -1, cv2.LINE_AA)
    cv2.circle(garment, centre, 1, (30, 28, 26), -1, cv2.LINE_AA)


def _print(garment: Field, silhouette: Silhouette, cloth: Cloth, u: Field, v: Field) -> None:
    texture = print_mask(cloth)
    side = texture.shape[0]
    x = ((u - silhouette.print_at[0]) / silhouette.print_size + 0.5) * side
    y = ((v - silhouette.print_at[1]) / silhouette.print_size + 0.5) * side
    ink = cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderValue=0)
    rows, columns = np.nonzero(ink)
    weight = (ink[rows, columns] / np.float32(255) * np.float32(0.93))[:, None]
    garment[rows, columns] += (colour(cloth.accent) - garment[rows, columns]) * weight


def _folds(scene: _Scene, rng: np.random.Generator) -> Field:
    """Brightness factor of folds and wrinkles: float32 (height, width) around 1."""
    x, y = np.meshgrid(np.arange(0, WIDTH_PX, 2), np.arange(0, HEIGHT_PX, 2))
    x, y = x.astype(np.float32), y.astype(np.float32)
    shade = np.zeros_like(x)
    for _ in range(int(rng.integers(7, 13))):
        angle = rng.normal(np.pi / 2, 0.6) + scene.angle_rad
        at_x, at_y = rng.uniform(0.2, 0.8, 2) * (WIDTH_PX, HEIGHT_PX)
        cos, sin = np.cos(angle), np.sin(angle)
        along = (x - at_x) * cos + (y - at_y) * sin
        across = (y - at_y) * cos - (x - at_x) * sin + 0.002 * along * along * rng.normal()
        width, length = rng.uniform(5, 13), rng.uniform(40, 120)
        envelope = np.exp(-((across / width) ** 2) - (along / length) ** 2)
        # The slope of a ridge: one flank lit, the other in shade.
        shade += rng.uniform(0.12, 0.3) * envelope * across / width
    folds = cv2.resize(shade, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_LINEAR)
    return 1 + folds + 0.06 * smooth_noise(rng, 9, 7) + 0.03 * smooth_noise(rng, 24, 18)


def _texture(cloth: Cloth, scene: _Scene) -> Field:
    """Brightness factor of the yarn: float32 (height, width) around 1."""
    rng = np.random.default_rng([cloth.seed, 41])
    grain = rng.normal(0, 1, (HEIGHT_PX, WIDTH_PX)).astype(np.float32)
    if cloth.texture == "jersey":
        return 1 + 0.02 * grain
    if cloth.texture == "heather":
        return 1 + 0.11 * cv2.GaussianBlur(grain, (0, 0), 0.7)
    x, y = np.meshgrid(np.arange(WIDTH_PX), np.arange(HEIGHT_PX))
    if cloth.texture == "denim":
        worn = 0.12 * smooth_noise(rng, 6, 4)
        return (1 + worn + 0.06 * np.sin((x + y) * 1.7) + 0.05 * grain).astype(np.float32)
    if cloth.texture == "knit":
        rows = np.sin(y * 1.25 + 2.2 * np.abs((x % 8) - 4) / 4)
        return (1 + 0.09 * rows + 0.02 * grain).astype(np.float32)
    linen = cv2.blur(grain, (1, 9)) + cv2.blur(grain, (9, 1))
    return 1 + 0.09 * linen


def _draw_hanger(picture: Field, scene: _Scene, silhouette: Silhouette) -> None:
    top = np.array(silhouette.hangs_at or (0.0, 0.0))
    hook = np.array([(0, 0), (0, -0.12), (0.05, -0.16), (0.06, -0.22), (0, -0.27), (-0.05, -0.24)])
    bar = np.array([(-0.34, 0.14), (0, 0.0), (0.34, 0.14)])
    for points, thick, rgb in ((hook, 3, (120, 120, 124)), (bar, 9, (120, 84, 52))):
        at = [_fixed(scene.to_pixels(points + top))]
        cv2.polylines(picture, at, False, rgb, thick, cv2.LINE_AA, _SUBPIXEL_BITS)


def _cast_shadow(picture: Field, alpha: Field, rng: np.random.Generator, height: float) -> None:
    shift = rng.normal(0, 1, 2)
    shift = shift / (np.linalg.norm(shift) + 1e-6) * height
    move = np.array([[1, 0, shift[0]], [0, 1, abs(shift[1])]], np.float64)
    moved = cv2.warpAffine(alpha, move, (WIDTH_PX, HEIGHT_PX))
    soft = cv2.GaussianBlur(moved, (0, 0), height * 0.9)
    picture *= 1 - np.float32(rng.uniform(0.3, 0.5)) * soft[..., None]


def _expose(picture: Field, rng: np.random.Generator) -> Pixels:
    """Uneven light, white balance, exposure, lens and sensor."""
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-1, 1, WIDTH_PX, dtype=np.float32)[None]
    y = np.linspace(-1, 1, HEIGHT_PX, dtype=np.float32)[:, None]
    light = 1 + rng.uniform(0.02, 0.12) * (x * np.cos(angle) + y * np.sin(angle))
    light = light * (1 - rng.uniform(0.0, 0.1) * (x * x + y * y) / 2) * rng.uniform(0.9, 1.04)
    warmth = rng.normal(0, 0.03)
    balance = np.array([1 + warmth, 1.0, 1 - warmth], np.float32)
    lit = cv2.GaussianBlur(picture * light[..., None].astype(np.float32) * balance, (0, 0), 0.6)
    noise = rng.standard_normal((HEIGHT_PX, WIDTH_PX), dtype=np.float32)
    return np.clip(lit + rng.uniform(0.8, 2.5) * noise[..., None] + 0.5, 0, 255).astype(np.uint8)
