"""Lay one photo over another: SIFT matches, a robust affine map, a mirrored try, a fine adjustment.

Copies of one photo differ by crop, margin, turn, mirror and perspective. Once they lie over each other, what is
left are differences of the product (a print, a colour) or of the page (a badge, a watermark). Photos taken
apart do not lie over each other at all, however alike the garments: few matches agree on one map.

SIFT: Lowe 2004; CLAHE: Zuiderveld 1994; RootSIFT: Arandjelovic and Zisserman 2012; ECC: Evangelidis and Psarakis 2008.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from dedup_job.kernels.images import Pixels

Points = npt.NDArray[np.float32]

# Rises with everything that moves a map: scores of other versions are not comparable.
ALIGNMENT_VERSION = 2
_MAX_FEATURES = 300
# Black trousers have corners too, once contrast is stretched tile by tile.
_CONTRAST_LIMIT, _CONTRAST_TILES = 8.0, (4, 4)
_MIN_MATCH_COSINE = 0.7
_MAX_ERROR_PX = 2.5
# A map that shrinks, stretches or squeezes more is no catalog edit.
_SCALES, _MAX_SQUEEZE = (0.4, 2.5), 1.6
_MIN_MATCHES = 4
# So few that chance may bring them: the map is not worth adjusting.
_SURE_MATCHES = 8
_DETAIL_PX = 1.5
_WHITE = (255, 255, 255)


@dataclass(frozen=True)
class LocalFeatures:
    """Corners and blobs of a photo.

    Attributes:
        points: float32 (k, 2), x and y in pixels.
        descriptors: float32 (k, 128), unit L2 norm (RootSIFT).
        size_px: side of the photo.
    """

    points: Points
    descriptors: Points
    size_px: int

    def __len__(self) -> int:
        return len(self.points)

    def mirrored(self) -> "LocalFeatures":
        """Those of the photo turned left to right, without looking at it again."""
        points = self.points.copy()
        points[:, 0] = self.size_px - 1 - points[:, 0]
        # A descriptor is a 4x4 grid of 8 directions in a frame turned to the main one: the mirror swaps the
        # sides of that frame and the sense of every direction.
        grid = self.descriptors.reshape(-1, 4, 4, 8)[:, ::-1]
        directions = grid[..., (-np.arange(8)) % 8]
        return LocalFeatures(points, directions.reshape(-1, 128), self.size_px)


@dataclass(frozen=True)
class Placement:
    """How photo b lies over photo a.

    Attributes:
        to_a: float64 (2, 3), affine from b (mirrored, where `is_mirrored`) to a; None where none was found.
        is_mirrored: whether b's mirror image is what fits.
        n_matches: local features that agree on the map; 0: none was found.
    """

    to_a: npt.NDArray[np.float64] | None
    is_mirrored: bool
    n_matches: int


@dataclass(frozen=True)
class Alignment:
    """A photo as it lies over another one.

    Attributes:
        pixels: uint8 (size, size, 3), the second photo in the frame of the first; white beside it.
        inside: uint8 (size, size), 255 where the second photo is.
        n_matches: local features that agree on the map; 0: none was found, and the photo lies as it was.
    """

    pixels: Pixels
    inside: Pixels
    n_matches: int


def find_features(rgb: Pixels) -> LocalFeatures:
    """SIFT features of a prepared photo.

    Args:
        rgb: uint8 (size, size, 3).
    """
    sift = cv2.SIFT.create(
        nfeatures=_MAX_FEATURES, contrastThreshold=0.01, edgeThreshold=20, sigma=1.2
    )
    stretch = cv2.createCLAHE(_CONTRAST_LIMIT, _CONTRAST_TILES)
    found, descriptors = sift.detectAndCompute(stretch.apply(_grey(rgb)), None)
    size = rgb.shape[0]
    if descriptors is None:
        return LocalFeatures(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32), size)
    rooted = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6))
    points = np.array([feature.pt for feature in found], np.float32)
    return LocalFeatures(points, rooted.astype(np.float32), size)


def find_placement(
    a: Pixels, b: Pixels, features_a: LocalFeatures, features_b: LocalFeatures
) -> Placement:
    """Where photo b, or its mirror image if that fits better, lies over photo a.

    Args:
        a: uint8 (size, size, 3).
        b: same shape.
        features_a: of a.
        features_b: of b.
    """
    straight, mirrored = (
        _find_map(features_a, features) for features in (features_b, features_b.mirrored())
    )
    is_mirrored = mirrored[1] > straight[1]
    to_a, n_matches = mirrored if is_mirrored else straight
    if to_a is not None and n_matches >= _SURE_MATCHES:
        to_a = _adjust(_grey(a), _grey(turn(b, is_mirrored)), to_a)
    return Placement(to_a, is_mirrored, n_matches)


def turn(photo: Pixels, is_mirrored: bool) -> Pixels:
    """The photo, or its mirror image."""
    return np.ascontiguousarray(photo[:, ::-1]) if is_mirrored else photo


def place(photo: Pixels, where: npt.NDArray[np.float64] | None, n_matches: int) -> Alignment:
    """Draw a photo where a map puts it, on white; without a map it stays as it is."""
    size = photo.shape[0]
    whole = np.full((size, size), 255, np.uint8)
    if where is None:
        return Alignment(photo, whole, 0)
    pixels = cv2.warpAffine(photo, where, (size, size), flags=cv2.INTER_LINEAR, borderValue=_WHITE)
    inside = cv2.warpAffine(whole, where, (size, size), flags=cv2.INTER_NEAREST)
    return Alignment(pixels, inside, n_matches)


def align(a: Pixels, b: Pixels, features_a: LocalFeatures, features_b: LocalFeatures) -> Alignment:
    """Lay photo b, or its mirror image if that fits better, over photo a; arguments as `find_placement`."""
    found = find_placement(a, b, features_a, features_b)
    return place(turn(b, found.is_mirrored), found.to_a, found.n_matches)


@dataclass(frozen=True)
class LaidOver:
    """What two pictures of one photo differ in, once they lie over each other.

    Attributes:
        pixels: uint8 (size, size, 3), the second over the first; where it does not reach, the first.
        difference: float32 (size, size), CIE76 units of colour, fine detail left out; 0 beside the second.
        n_matches: local features that agree on how it lies.
    """

    pixels: Pixels
    difference: npt.NDArray[np.float32]
    n_matches: int


def lay_over(a: Pixels, b: Pixels) -> LaidOver | None:
    """Photo b over photo a, and where their colours differ.

    Args:
        a: uint8 (size, size, 3).
        b: same shape.

    Returns:
        None where the two do not lie over each other: they were taken apart, or show too little.
    """
    found = align(a, b, find_features(a), find_features(b))
    if found.n_matches < _SURE_MATCHES:
        return None
    # Beside the second photo, and at its edge, nothing is compared.
    inside = cv2.erode(found.inside, np.ones((5, 5), np.uint8)) > 0
    pixels = np.where(inside[..., None], found.pixels, a)
    lab_a, lab_b = (_to_lab(cv2.GaussianBlur(x, (0, 0), _DETAIL_PX)) for x in (a, pixels))
    return LaidOver(pixels, np.linalg.norm(lab_a - lab_b, axis=2), found.n_matches)


def _to_lab(rgb: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    lab: npt.NDArray[np.float32] = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return lab


def _find_map(a: LocalFeatures, b: LocalFeatures) -> tuple[npt.NDArray[np.float64] | None, int]:
    """Affine 2x3 from b to a and how many matches agree; (None, 0) where there is none."""
    if min(len(a), len(b)) < _MIN_MATCHES:
        return None, 0
    cosine = a.descriptors @ b.descriptors.T
    nearest_b, nearest_a = cosine.argmax(axis=1), cosine.argmax(axis=0)
    row = np.arange(len(a))
    mutual = nearest_a[nearest_b] == row
    keep = np.flatnonzero(mutual & (cosine[row, nearest_b] > _MIN_MATCH_COSINE))
    if len(keep) < _MIN_MATCHES:
        return None, 0
    place, agree = cv2.estimateAffine2D(
        b.points[nearest_b[keep]],
        a.points[keep],
        method=cv2.RANSAC,
        ransacReprojThreshold=_MAX_ERROR_PX,
        maxIters=1000,
        confidence=0.99,
    )
    if place is None or not _is_plausible(place):
        return None, 0
    return place, int(agree.sum())


def _is_plausible(place: npt.NDArray[np.float64]) -> bool:
    if not np.isfinite(place).all():
        return False
    largest, smallest = np.linalg.svd(place[:, :2], compute_uv=False)
    lowest, highest = _SCALES
    return bool(lowest < smallest and largest < highest and largest < _MAX_SQUEEZE * smallest)


def _adjust(a: Pixels, b: Pixels, place: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The map moved to where the grey values agree best; as it was where that does not converge."""
    inverse = cv2.invertAffineTransform(place).astype(np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 1e-3)
    try:
        _, inverse = cv2.findTransformECC(a, b, inverse, cv2.MOTION_AFFINE, stop, None, 3)
    except cv2.error:
        return place
    adjusted = cv2.invertAffineTransform(inverse).astype(np.float64)
    return adjusted if _is_plausible(adjusted) else place


def _grey(rgb: Pixels) -> Pixels:
    grey: Pixels = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return grey
