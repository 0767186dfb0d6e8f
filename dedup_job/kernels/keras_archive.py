"""`.keras` files looked at before Keras unpacks them."""

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

from dedup_job.errors import ModelContractError, one_line
from dedup_job.kernels.zips import check_zip

_MAX_WEIGHTS_BYTES = 500_000_000
_WEIGHTS = "model.weights.h5"
# What Keras writes for stock layers; layers with files of their own (`assets/`) are not among them.
_MEMBERS = {"metadata.json": 64 << 10, "config.json": 16 << 20, _WEIGHTS: _MAX_WEIGHTS_BYTES}


def check_keras_archive(path: Path) -> None:
    """Check a `.keras` file before Keras unpacks it.

    Keras' own guard against zip bombs begins at 4 GiB, for the archive and again for each array
    within its HDF5 file.

    Raises:
        ModelContractError: missing, cut short, other members, or too large when unpacked.
    """
    if not path.is_file():
        raise ModelContractError(f"{path} does not exist or is no file")
    check_zip(path, _MEMBERS)
    _check_weights(path)


def _check_weights(path: Path) -> None:
    import h5py  # comes with Keras

    try:
        with zipfile.ZipFile(path) as archive:
            packed = io.BytesIO(archive.read(_WEIGHTS))
        with h5py.File(packed) as weights:
            n_bytes = _unpacked_bytes(weights)
    except (OSError, ValueError, RuntimeError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelContractError(f"{path}: {_WEIGHTS} is damaged ({one_line(error)})") from None
    if n_bytes > _MAX_WEIGHTS_BYTES:
        raise ModelContractError(
            f"{path}: the arrays of {_WEIGHTS} would take {n_bytes} bytes, more than "
            f"{_MAX_WEIGHTS_BYTES}"
        )


def _unpacked_bytes(weights: Any) -> int:
    """Bytes that all arrays of an HDF5 file declare. Links to other files are not followed."""
    import h5py

    sizes: list[int] = []

    def measure(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            sizes.append(int(item.size or 0) * int(item.dtype.itemsize))

    weights.visititems(measure)
    return sum(sizes)
