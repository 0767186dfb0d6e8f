"""Golden vectors: drawn pictures and what the network made of them when it was exported."""

import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dedup_job.errors import ModelContractError, one_line
from dedup_job.kernels.bundle import Manifest
from dedup_job.kernels.zips import check_zip

_IMAGES, _INT8, _FLOAT = "images", "embeddings", "float_embeddings"
_MAX_IMAGES = 64
_HEADER_BYTES = 4_096  # of an .npy file, at most
_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    tokenize.TokenError,  # of a header that is no Python literal, which NumPy then takes for Python 2's
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Golden:
    """What a bundle must reproduce, n pictures.

    Attributes:
        images: uint8 (n, input_px, input_px, 3).
        embeddings: float32 (n, dim), of the int8 network.
        float_embeddings: float32 (n, dim), of the Keras network; bundles of earlier versions have
            none.
    """

    images: NDArray[np.uint8]
    embeddings: NDArray[np.float32]
    float_embeddings: NDArray[np.float32] | None = None

    def of_runtime(self, runtime: str) -> NDArray[np.float32]:
        """The vectors that a runtime is compared with."""
        if runtime == "tensorflow" and self.float_embeddings is not None:
            return self.float_embeddings
        return self.embeddings


def write_golden_file(path: Path, golden: Golden) -> None:
    """Write `golden.npz`."""
    arrays: dict[str, Any] = {_IMAGES: golden.images, _INT8: golden.embeddings}
    if golden.float_embeddings is not None:
        arrays[_FLOAT] = golden.float_embeddings
    np.savez_compressed(path, **arrays)


def read_golden(path: Path, manifest: Manifest) -> Golden:
    """Read `golden.npz`, bounded in size, without pickles.

    Raises:
        ModelContractError: damaged, too large, other shapes than the manifest promises, or not
            finite.
    """
    vectors_bytes = _MAX_IMAGES * manifest.dim * 8 + _HEADER_BYTES
    limits = {
        f"{_IMAGES}.npy": _MAX_IMAGES * manifest.input_px**2 * 3 + _HEADER_BYTES,
        f"{_INT8}.npy": vectors_bytes,
        f"{_FLOAT}.npy": vectors_bytes,
    }
    check_zip(path, limits, frozenset({f"{_FLOAT}.npy"}))
    try:
        with zipfile.ZipFile(path) as archive:
            found = {
                name.removesuffix(".npy"): _read_array(archive, name) for name in archive.namelist()
            }
    except _DAMAGE as error:
        raise ModelContractError(f"{path} is damaged: {one_line(error)}") from None
    side = manifest.input_px
    n = len(found[_IMAGES]) if found[_IMAGES].ndim else 0
    if n == 0:
        raise ModelContractError(f"{path} holds no image")
    _check_array(path, _IMAGES, found[_IMAGES], (n, side, side, 3), "u1")
    for name in (_INT8, _FLOAT):
        if name in found:
            _check_array(path, name, found[name], (n, manifest.dim), "f")
    return Golden(found[_IMAGES], found[_INT8], found.get(_FLOAT))


def _read_array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """One array, whose header may not promise more than the member holds: NumPy allocates first."""
    size = archive.getinfo(name).file_size
    with archive.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"{name} has .npy version {version}, expected (1, 0)")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=_HEADER_BYTES)
        n_bytes = dtype.itemsize
        for length in shape:
            n_bytes *= length
    if dtype.hasobject or not 0 <= n_bytes <= size:
        raise ValueError(f"{name} promises {shape} of {dtype} in {size} bytes")
    with archive.open(name) as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def _check_array(
    path: Path, name: str, array: NDArray[Any], shape: tuple[int, ...], kind: str
) -> None:
    if array.shape != shape or not array.dtype.str[1:].startswith(kind):
        raise ModelContractError(
            f"{path}: {name} is {array.dtype} {array.shape}, the manifest promises {shape}"
        )
    if not np.isfinite(array).all():
        raise ModelContractError(f"{path}: {name} holds values that are not finite")
