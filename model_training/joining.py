"""One picture that several photos show: it must neither repel itself nor lie on both sides of the split."""

import itertools
from dataclasses import replace

import cv2
import numpy as np

from dedup_job.kernels.images import Pixels
from model_training.near_identical import near_identical
from model_training.photo_set import SOURCES, Photo, PhotoSet, connected, origin_of

# A photo and the first one of its product, neither of them of the product table.
_NO_STYLE = {("folder", "pairs"), ("folder", "folder")}


def join_near_identical(loaded: PhotoSet) -> PhotoSet:
    """Join photos of several sources that are all but the same picture.

    Every photo goes with at most one of a better source (`SOURCES`), the nearest, and a photo of a pair brings
    its duplicates and its product along. With a photo of the product table both are duplicates. Photos of a
    folder and labelled ones, or two of a folder, become neither duplicates nor different.

    Looks never join two photos of the product table, as a colourway may look the same; nor two of one table
    of pairs, where people said what is what: a pair said to differ stays apart. But what people said to be
    the same joins even SKUs of the product table.

    The side of the split is that of the best source's first photo, for all that is connected to a picture.
    """
    photos = loaded.photos
    rank = np.array([SOURCES.index(photo.source) for photo in photos], int)
    origin = [origin_of(photo) for photo in photos]
    near = near_identical(loaded.pixels)
    order = np.lexsort((near.second, near.first, near.apart))
    pairs = [
        (i, j) if rank[i] <= rank[j] else (j, i)
        for i, j in zip(near.first[order].tolist(), near.second[order].tolist(), strict=True)
        if origin[i] != origin[j] or photos[i].source == "folder"
    ]
    if not pairs:
        return loaded
    joined = _Joined(photos, rank, loaded.dissimilar)
    for leader, follower in sorted(pairs, key=lambda pair: (rank[pair[0]], rank[pair[1]])):
        joined.follow(leader, follower)
    return replace(loaded, photos=_on_one_side(joined.photos(), rank, pairs), near=pairs)


class _Joined:
    """Identities and products, as numbers that become equal."""

    def __init__(self, photos: list[Photo], rank: np.ndarray, differ: dict[int, list[int]]) -> None:
        self._photos, self._rank = photos, rank
        self._identity = _codes([photo.identity for photo in photos])
        self._product = _codes([photo.product for photo in photos])
        ends = [(i, j) for i, others in differ.items() for j in others]
        self._differ = np.array(ends, int).reshape(-1, 2).T
        self._led: set[int] = set()

    def follow(self, leader: int, follower: int) -> None:
        """Let a photo go with another one, unless it goes with one already or a label forbids it."""
        sources = (self._photos[leader].source, self._photos[follower].source)
        if sources == ("folder", "folder"):
            if not (self._is_labelled(leader) and self._is_labelled(follower)):
                _unite(self._product, leader, follower)
            return
        are_copies = sources != ("pairs", "folder")
        if follower in self._led or (are_copies and self._differ_by_label(leader, follower)):
            return
        self._led.add(follower)
        _unite(self._product, leader, follower)
        if are_copies:
            _unite(self._identity, leader, follower)

    def photos(self) -> list[Photo]:
        """The photos, by the names of their best source's first photo."""
        of_identity = _first_of(self._identity, self._rank)
        of_product = _first_of(self._product, self._rank)
        answer = []
        for i, photo in enumerate(self._photos):
            first = self._photos[of_product[i]]
            # What the table says of a style stays; and a folder's photo has none but the table's.
            own = photo.source == "products" or (photo.source, first.source) in _NO_STYLE
            family = photo.family if own else first.family
            identity = self._photos[of_identity[i]].identity
            answer.append(replace(photo, identity=identity, product=first.product, family=family))
        return answer

    def _is_labelled(self, row: int) -> bool:
        of_product = self._product == self._product[row]
        return bool((self._rank[of_product] < SOURCES.index("folder")).any())

    def _differ_by_label(self, one: int, other: int) -> bool:
        a, b = self._identity[self._differ]
        x, y = self._identity[[one, other]]
        return bool((((a == x) & (b == y)) | ((a == y) & (b == x))).any())


def _on_one_side(photos: list[Photo], rank: np.ndarray, near: list[tuple[int, int]]) -> list[Photo]:
    component = connected(photos, near)
    first = _first_of(component, rank)
    moved = set(component[[leader for leader, _ in near]].tolist())
    return [
        replace(photo, held_out=photos[first[i]].held_out) if component[i] in moved else photo
        for i, photo in enumerate(photos)
    ]


def _first_of(code: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Of each photo's code, the first row of the best source."""
    order = np.argsort(rank, kind="stable")
    _, at, of_row = np.unique(code[order], return_index=True, return_inverse=True)
    first = np.empty(len(code), int)
    first[order] = order[at][of_row]
    return first


def _unite(code: np.ndarray, one: int, other: int) -> None:
    if code[one] != code[other]:
        code[code == code[other]] = code[one]


def _codes(names: list[str]) -> np.ndarray:
    return np.unique(np.array(names), return_inverse=True)[1]


def join_equal_colourways(loaded: PhotoSet) -> PhotoSet:
    """Give SKUs of one style that show one picture under two colours one product.

    Shops do this ("blue" trousers shown in black). As hard negatives such pairs are errors: no
    picture can tell them apart. Equal: at 64 px no pixel differs by 15 CIE76 units, the mean by 1.
    """
    rows: dict[str, list[int]] = {}
    for i, photo in enumerate(loaded.photos):
        if photo.source == "products":
            rows.setdefault(photo.family, []).append(i)
    product = {photo.product: photo.product for photo in loaded.photos}
    for members in rows.values():
        small = {i: _small_lab(loaded.pixels[i]) for i in members}
        for i, j in itertools.combinations(members, 2):
            a, b = loaded.photos[i], loaded.photos[j]
            apart = np.linalg.norm(small[i] - small[j], axis=2)
            if a.product != b.product and apart.max() < 15 and apart.mean() < 1:
                first, second = product[a.product], product[b.product]
                product = {k: first if v == second else v for k, v in product.items()}
    loaded.photos[:] = [replace(p, product=product[p.product]) for p in loaded.photos]
    return loaded


def _small_lab(rgb: Pixels) -> np.ndarray:
    small = cv2.resize(rgb, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
    lab: np.ndarray = cv2.cvtColor(small / 255, cv2.COLOR_RGB2LAB)
    return lab
