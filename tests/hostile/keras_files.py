"""Makers of `.keras` files that do harm or are broken: each writes one at a path."""

import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _members(path: Path, config: object, **others: bytes) -> None:
    """A `.keras` file with this model configuration and, unless given, empty weights."""
    import h5py

    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file.create_group("layers")
    content = {
        "metadata.json": json.dumps({"keras_version": "3.15.1", "date_saved": ""}).encode(),
        "config.json": json.dumps(config).encode(),
        "model.weights.h5": weights.getvalue(),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (content | others).items():
            archive.writestr(name, data)


def _model_of(layer: dict[str, Any]) -> dict[str, Any]:
    """A Sequential model of one layer, as Keras writes it."""
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "m", "trainable": True, "layers": [layer]},
        "registered_name": None,
    }


def _layer(class_name: str, **config: object) -> dict[str, Any]:
    return {
        "module": "keras.layers",
        "class_name": class_name,
        "config": {"name": "x", "trainable": True, **config},
        "registered_name": None,
    }


def saved_model_layer(path: Path) -> None:
    """A layer that would load a SavedModel, which is a program."""
    _members(
        path,
        _model_of(_layer("TFSMLayer", filepath=str(path.parent), call_endpoint="serve")),
    )


def file_reading_layer(path: Path) -> None:
    """A layer that would read a file of this machine into its vocabulary."""
    secret = path.parent / "secret"
    secret.write_text("a\nb\n")
    _members(path, _model_of(_layer("StringLookup", vocabulary=str(secret))))


def function_as_activation(module: str, name: str) -> Callable[[Path], object]:
    """An activation that is a function of Python's own."""
    activation = {
        "module": module,
        "class_name": "function",
        "config": name,
        "registered_name": name,
    }
    return lambda path: _members(path, _model_of(_layer("Dense", units=1, activation=activation)))


def program_as_layer(path: Path) -> None:
    """A layer that is a process to start."""
    layer = _layer("Popen") | {"module": "subprocess"}
    layer["config"] = {"args": ["touch", str(path.parent / "marker")]}
    _members(path, _model_of(layer))


def zeros(n_chunks: int) -> Callable[[Path], object]:
    """A `.keras` file whose weights unpack to `n_chunks` times 16 MiB of zeros."""

    def make(path: Path) -> None:
        chunk = bytes(16 << 20)
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = packer.compress(chunk) + packer.flush(zlib.Z_FULL_FLUSH)  # may be repeated
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", b"{}")
            archive.writestr("config.json", b"{}")
            archive.writestr("model.weights.h5", packed * n_chunks + packer.flush())
            member = archive.infolist()[-1]
            member.compress_type, member.file_size = zipfile.ZIP_DEFLATED, len(chunk) * n_chunks

    return make


def many_members(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(5_000):
            archive.writestr(f"assets/{number}", b"")


def with_member(name: str) -> Callable[[Path], object]:
    return lambda path: _members(path, {}, **{name: b"x"})


def config_twice(path: Path) -> None:
    _members(path, {})
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("config.json", b"{}")


def packed_by_bzip2(path: Path) -> None:
    _members(path, {})
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def second_directory(path: Path) -> None:
    """A second, 64-bit directory: readers may differ in which of the two they believe."""
    _members(path, {})
    data = path.read_bytes()
    path.write_bytes(data[:-22] + struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1) + data[-22:])


def cut_short(path: Path) -> None:
    _members(path, {})
    path.write_bytes(path.read_bytes()[:-30])


def plain_hdf5(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_group("layers")
