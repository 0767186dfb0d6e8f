"""Copies of the default bundle that are wrong in one way, with every hash as it should be."""

import io
import shutil
import zipfile

import h5py
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from dedup_job.io.bundles import locate_bundle
from dedup_job.kernels.bundle import read_manifest, write_manifest

DEFAULT = locate_bundle("")


def copy_bundle(folder):
    """A sound copy of the default bundle."""
    return shutil.copytree(DEFAULT, folder / "bundle")


def rehash(bundle):
    """Write the manifest anew, as whoever changed the files would: all hashes and the id agree."""
    old = read_manifest(DEFAULT)
    return write_manifest(
        bundle,
        dim=old.dim,
        input_px=old.input_px,
        blur_sigma_px=old.blur_sigma_px,
        facts={"verifier": old.raw["verifier"]},
    )


def kernels_of(network):
    """Every convolution and dense kernel of a .tflite: name -> (position, length) in its bytes."""
    interpreter = Interpreter(
        model_content=network,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    names = {t["index"]: t["name"] for t in interpreter.get_tensor_details()}
    found = {}
    for op in interpreter._get_ops_details():
        if op["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            index = op["inputs"][1]
            raw = interpreter.get_tensor(index).tobytes()
            assert network.count(raw) == 1
            found[f"{names[index]} ({index})"] = network.find(raw), len(raw)
    return found


def zeroed(network, place):
    """The .tflite with one kernel all zero. `place`: position and length."""
    at, length = place
    return network[:at] + bytes(length) + network[at + length :]


def edit_keras(path, edit=None, **members):
    """Rewrite a .keras file. `edit` gets its weights as an open HDF5 file; `members` replace others.

    A keyword `config` is the text of config.json.
    """
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    if edit is not None:
        weights = io.BytesIO(content["model.weights.h5"])
        with h5py.File(weights, "r+") as file:
            edit(file)
        content["model.weights.h5"] = weights.getvalue()
    content |= {name.replace("config", "config.json"): text for name, text in members.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def keras_kernels(file):
    """Paths of the kernels in an open weights file: arrays of two dimensions and more."""
    found = []
    file.visititems(
        lambda name, item: (
            found.append(name) if isinstance(item, h5py.Dataset) and item.ndim >= 2 else None
        )
    )
    return found


def zero_keras_kernel(file, name):
    """Fill one array of an open weights file with zeros."""
    file[name][...] = np.zeros(file[name].shape, file[name].dtype)
