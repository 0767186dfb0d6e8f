"""Bundles, `.keras` files and Annoy indexes that are damaged, or made to do harm.

All hashes of a changed bundle are made to agree again, unless the case is about them: what is tested
is what stands behind the hash.
"""

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dedup_job.errors import DedupError
from dedup_job.io.index_files import open_index
from dedup_job.kernels.bundle import CALIBRATION, EMBEDDER, GOLDEN, KERAS_MODEL, MANIFEST
from dedup_job.kernels.keras_archive import check_keras_archive
from dedup_job.kernels.model import load_embedder, load_keras_model
from tests.broken_bundles import (
    copy_bundle,
    edit_keras,
    keras_kernels,
    kernels_of,
    rehash,
    zero_keras_kernel,
    zeroed,
)
from tests.hostile.cases import Case
from tests.hostile.keras_files import (
    config_twice,
    cut_short,
    file_reading_layer,
    function_as_activation,
    many_members,
    packed_by_bzip2,
    plain_hdf5,
    program_as_layer,
    saved_model_layer,
    second_directory,
    with_member,
    zeros,
)
from tests.indexes import (
    descendants_of_a_root,
    garbage,
    half_of_the_nodes,
    one_byte,
    small_index,
)

_CODE = "code of the file ran"


def _answer(work: Callable[[], object], *words: str) -> str:
    """`ok`, or the first of the words that the error's one line holds."""
    try:
        work()
    except DedupError as error:
        text = str(error)
        if "\n" in text:
            return f"error of several lines: {text}"
        return f"error: {next((word for word in words if word in text), text)}"
    return "ok"


def bundle(change: Callable[[Path], object], word: str, runtime: str = "litert") -> Any:
    """Load a copy of the default bundle that `change` altered."""

    def run(folder: Path) -> str:
        directory = copy_bundle(folder)
        change(directory)
        return _answer(lambda: load_embedder(directory, runtime), word)

    return run


def keras_file(make: Callable[[Path], object], word: str) -> Any:
    """Load a `.keras` file that `make` wrote; nothing in it may run."""

    def run(folder: Path) -> str:
        path, marker = folder / KERAS_MODEL, folder / "marker"
        make(path)
        answer = _answer(lambda: load_keras_model(path), word)
        return _CODE if marker.exists() else answer

    return run


def index(damage: Callable[[Path], object], word: str) -> Any:
    """Open a small index that `damage` altered. Annoy alone would crash or answer from it."""

    def run(folder: Path) -> str:
        path = small_index(folder)
        damage(path)
        return _answer(lambda: open_index(folder, path.stem), word)

    return run


# Bundles.


def _edit(name: str, edit: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_bytes(edit((directory / name).read_bytes()))


def _manifest(**changes: object) -> Callable[[Path], object]:
    def change(directory: Path) -> None:
        path = directory / MANIFEST
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def _listed(name: str, **fact: object) -> Callable[[Path], object]:
    """Change what the manifest says of one file, or let it list another."""

    def change(directory: Path) -> None:
        path = directory / MANIFEST
        content = json.loads(path.read_text())
        content["files"][name] = content["files"].get(name, {}) | fact
        path.write_text(json.dumps(content))

    return change


def _sparse(name: str, n_bytes: int) -> Callable[[Path], object]:
    """Make a file appear huge; it takes no disk."""

    def change(directory: Path) -> None:
        os.truncate(directory / name, n_bytes)
        if name != MANIFEST:
            _listed(name, bytes=n_bytes)(directory)

    return change


def _many_files(directory: Path) -> None:
    """Each of them alone would pass."""
    for number in range(8):
        name = f"part{number}"
        (directory / name).touch()
        _sparse(name, 90_000_000)(directory)


def _unlisted(directory: Path) -> None:
    path = directory / MANIFEST
    content = json.loads(path.read_text())
    del content["files"][KERAS_MODEL]
    path.write_text(json.dumps(content))


def _flip(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def _replace_by(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(directory: Path) -> None:
        (directory / EMBEDDER).unlink()
        make(directory / EMBEDDER)

    return change


def _link_out(directory: Path) -> None:
    """The same bytes, behind a symbolic link out of the bundle."""
    outside = directory.parent / "store"
    (directory / EMBEDDER).rename(outside)
    (directory / EMBEDDER).symlink_to(outside)


def _golden(**arrays: object) -> Callable[[Path], object]:
    def change(directory: Path) -> None:
        with np.load(directory / GOLDEN) as golden:
            kept = {name: golden[name] for name in golden.files}
        changed = {n: f(kept[n]) if callable(f) else f for n, f in arrays.items()}
        np.savez_compressed(directory / GOLDEN, **(kept | changed))
        rehash(directory)

    return change


class _RunsCode:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def _pickled_golden(folder: Path) -> str:
    """Golden vectors whose unpickling would write a file."""
    directory, marker = copy_bundle(folder), folder / "marker"
    hostile = np.empty(6, object)
    hostile[:] = [_RunsCode(f"touch {marker}")] * 6
    _golden(embeddings=hostile)(directory)
    answer = _answer(lambda: load_embedder(directory), "promises")
    if marker.exists():
        return _CODE
    np.load(directory / GOLDEN, allow_pickle=True)["embeddings"]
    return answer if marker.exists() else "the file holds no code"


def _npy_that_lies(directory: Path) -> None:
    """An array whose header promises a terabyte: NumPy would ask for it before it reads."""
    header = io.BytesIO()
    shape = (10**12, 128)
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    _replace_images(directory, header.getvalue() + b"\0" * 1000)


def _npy_of_brackets(directory: Path) -> None:
    """An array whose header is no Python literal."""
    header = b"[" * 1000
    magic = np.lib.format.magic(1, 0)
    _replace_images(directory, magic + len(header).to_bytes(2, "little") + header)


def _replace_images(directory: Path, images: bytes) -> None:
    with np.load(directory / GOLDEN) as golden, zipfile.ZipFile(directory / "new", "w") as archive:
        vectors = io.BytesIO()
        np.save(vectors, golden["embeddings"])
        archive.writestr("embeddings.npy", vectors.getvalue())
        archive.writestr("images.npy", images)
    (directory / "new").replace(directory / GOLDEN)
    rehash(directory)


def _zeroed_kernel(directory: Path) -> None:
    network = (directory / EMBEDDER).read_bytes()
    place = list(kernels_of(network).values())[30]
    (directory / EMBEDDER).write_bytes(zeroed(network, place))
    rehash(directory)


def _zeroed_keras_kernel(directory: Path) -> None:
    edit_keras(
        directory / KERAS_MODEL, lambda file: zero_keras_kernel(file, keras_kernels(file)[20])
    )
    rehash(directory)


def _delete_weights(directory: Path) -> None:
    def delete(file: Any) -> None:
        del file["layers/conv2d_20"]

    edit_keras(directory / KERAS_MODEL, delete)
    rehash(directory)


def _link_weights(directory: Path) -> None:
    import h5py

    def link(file: Any) -> None:
        del file["layers/conv2d_20"]
        file["layers/conv2d_20"] = h5py.ExternalLink("/etc/passwd", "/")

    edit_keras(directory / KERAS_MODEL, link)
    rehash(directory)


def _rehashed(change: Callable[[Path], object]) -> Callable[[Path], object]:
    def both(directory: Path) -> None:
        change(directory)
        rehash(directory)

    return both


def _shape_bomb(directory: Path) -> None:
    """An array of 3 GiB zeros that takes nothing in its HDF5 file; Keras' guard begins at 4 GiB."""

    def grow(file: Any) -> None:
        file.create_dataset("bomb", shape=(3 << 30,), dtype="u1", chunks=(1 << 20,), compression=9)

    edit_keras(directory / KERAS_MODEL, grow)
    rehash(directory)


# `.keras` files.


def _lambda(folder: Path) -> str:
    """A layer whose code writes a file beside the model."""
    import keras

    path, marker = folder / KERAS_MODEL, folder / "marker"
    name = str(marker)
    layer = keras.layers.Lambda(lambda x: (open(name, "w").close(), x)[1])
    keras.Sequential([keras.Input((1,)), layer]).save(path)
    marker.unlink()  # Keras called the layer to learn its shape
    answer = _answer(lambda: load_keras_model(path), "Lambda")
    if marker.exists():
        return _CODE
    keras.models.load_model(path, safe_mode=False)
    return answer if marker.exists() else "the file holds no code"


def checked(make: Callable[[Path], object], word: str) -> Any:
    """Look at a `.keras` file; Keras is not asked."""

    def run(folder: Path) -> str:
        make(folder / KERAS_MODEL)
        return _answer(lambda: check_keras_archive(folder / KERAS_MODEL), word)

    return run


# Indexes.


def _data(damage: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(damage(path.read_bytes()))


def _described(**changes: object) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        described = path.with_suffix(".json")
        described.write_text(json.dumps(json.loads(described.read_text()) | changes))

    return change


CASES: tuple[Case, ...] = (
    Case("bundle: sound", "ok", bundle(lambda d: None, "")),
    Case("bundle: a file behind a symbolic link, same bytes", "ok", bundle(_link_out, "")),
    Case(
        "bundle: the path is a file",
        "error: --model takes a bundle directory",
        lambda folder: _answer(
            lambda: load_embedder(Path(__file__)), "--model takes a bundle directory"
        ),
    ),
    Case(
        "bundle: an empty directory",
        "error: --model takes a bundle directory",
        lambda folder: _answer(lambda: load_embedder(folder), "--model takes a bundle directory"),
    ),
    Case(
        "bundle: embedder missing",
        "error: is missing",
        bundle(lambda d: (d / EMBEDDER).unlink(), "is missing"),
    ),
    Case(
        "bundle: embedder is a directory",
        "error: is missing",
        bundle(_replace_by(Path.mkdir), "is missing"),
    ),
    Case(
        "bundle: embedder is a pipe, which never ends",
        "error: is missing",
        bundle(_replace_by(os.mkfifo), "is missing"),
    ),
    Case(
        "bundle: embedder is /dev/zero",
        "error: is missing",
        bundle(_replace_by(lambda p: p.symlink_to("/dev/zero")), "is missing"),
    ),
    Case(
        "bundle: one byte of the embedder altered",
        "error: was altered",
        bundle(_edit(EMBEDDER, _flip), "was altered"),
    ),
    Case(
        "bundle: calibration altered",
        "error: was altered",
        bundle(_edit(CALIBRATION, _flip), "was altered"),
    ),
    Case(
        "bundle: Keras model altered",
        "error: was altered",
        bundle(_edit(KERAS_MODEL, _flip), "was altered"),
    ),
    Case(
        "bundle: embedder cut short",
        "error: the manifest says",
        bundle(_edit(EMBEDDER, lambda b: b[:999]), "the manifest says"),
    ),
    Case(
        "bundle: embedder of 2 GB, as listed",
        "error: that is no bundle",
        bundle(_sparse(EMBEDDER, 2 * 10**9), "that is no bundle"),
    ),
    Case(
        "bundle: calibration of 100 MB, as listed",
        "error: that is no bundle",
        bundle(_sparse(CALIBRATION, 10**8), "that is no bundle"),
    ),
    Case(
        "bundle: many files, too large together",
        "error: that is no bundle",
        bundle(_many_files, "that is no bundle"),
    ),
    Case(
        "manifest: missing",
        "error: has no manifest.json",
        bundle(lambda d: (d / MANIFEST).unlink(), "has no manifest.json"),
    ),
    Case(
        "manifest: no JSON",
        "error: is damaged",
        bundle(_edit(MANIFEST, lambda b: b[:-9]), "is damaged"),
    ),
    Case(
        "manifest: not UTF-8",
        "error: is damaged",
        bundle(_edit(MANIFEST, lambda b: b"\xff" + b), "is damaged"),
    ),
    Case(
        "manifest: a list",
        "error: is damaged",
        bundle(_edit(MANIFEST, lambda b: b"[]"), "is damaged"),
    ),
    Case(
        "manifest: 100,000 nested brackets",
        "error: is damaged",
        bundle(_edit(MANIFEST, lambda b: b"[" * 100_000), "is damaged"),
    ),
    Case(
        "manifest: 100 MB",
        "error: is larger than",
        bundle(_sparse(MANIFEST, 10**8), "is larger than"),
    ),
    Case(
        "manifest: another format",
        "error: export it again",
        bundle(_manifest(bundle_format=2), "export it again"),
    ),
    Case(
        "manifest: another preprocessing",
        "error: retrain it",
        bundle(_manifest(preprocessing_version=99), "retrain it"),
    ),
    Case(
        "manifest: dim 10^9",
        "error: dim is 1000000000",
        bundle(_manifest(dim=10**9), "dim is 1000000000"),
    ),
    Case(
        "manifest: input_px infinite",
        "error: is damaged",
        bundle(_manifest(input_px=float("inf")), "is damaged"),
    ),
    Case(
        "manifest: blur NaN",
        "error: blur_sigma_px is nan",
        bundle(_manifest(blur_sigma_px=float("nan")), "blur_sigma_px is nan"),
    ),
    Case(
        "manifest: another blur",
        "error: model_id does not match",
        bundle(_manifest(blur_sigma_px=2), "model_id does not match"),
    ),
    Case(
        "manifest: lists ../../etc/passwd",
        "error: the name of a file beside it",
        bundle(_listed("../../etc/passwd", bytes=1), "the name of a file beside it"),
    ),
    Case(
        "manifest: lists /etc/passwd",
        "error: the name of a file beside it",
        bundle(_listed("/etc/passwd", bytes=1), "the name of a file beside it"),
    ),
    Case(
        "manifest: lists `..`",
        "error: the name of a file beside it",
        bundle(_listed("..", bytes=1), "the name of a file beside it"),
    ),
    Case("golden: pickled code", "error: promises", _pickled_golden),
    Case(
        "golden: NaN",
        "error: not finite",
        bundle(_golden(embeddings=lambda e: e * np.nan), "not finite"),
    ),
    Case(
        "golden: all zero",
        "error: golden embeddings differ",
        bundle(_golden(embeddings=lambda e: e * 0), "golden embeddings differ"),
    ),
    Case(
        "golden: of another network",
        "error: golden embeddings differ",
        bundle(_golden(embeddings=lambda e: np.roll(e, 1, 1)), "golden embeddings differ"),
    ),
    Case(
        "golden: no picture",
        "error: holds no image",
        bundle(_golden(images=lambda i: i[:0], embeddings=lambda e: e[:0]), "holds no image"),
    ),
    Case(
        "golden: pictures of another size",
        "error: the manifest promises",
        bundle(_golden(images=lambda i: i[:, :64]), "the manifest promises"),
    ),
    Case(
        "golden: 1,000 pictures",
        "error: more than allowed",
        bundle(
            _golden(images=lambda i: np.zeros((1000, *i.shape[1:]), np.uint8)), "more than allowed"
        ),
    ),
    Case(
        "golden: an array that promises a terabyte",
        "error: promises",
        bundle(_npy_that_lies, "promises"),
    ),
    Case(
        "golden: an array whose header is 1,000 brackets",
        "error: is damaged",
        bundle(_npy_of_brackets, "is damaged"),
    ),
    Case(
        "golden: a member too many",
        "error: and nothing else",
        bundle(_golden(other=np.zeros(1)), "and nothing else"),
    ),
    Case(
        "golden: no zip",
        "error: no whole zip archive",
        bundle(_rehashed(_edit(GOLDEN, lambda b: b[:500])), "no whole zip archive"),
    ),
    Case(
        "embedder: one zeroed kernel",
        "error: golden embeddings differ",
        bundle(_zeroed_kernel, "golden embeddings differ"),
    ),
    Case(
        "embedder: noise",
        "error: cannot be loaded",
        bundle(_rehashed(_edit(EMBEDDER, lambda b: garbage(b[:5000]))), "cannot be loaded"),
    ),
    Case(
        "embedder: cut short",
        "error: cannot be loaded",
        bundle(_rehashed(_edit(EMBEDDER, lambda b: b[: len(b) // 2])), "cannot be loaded"),
    ),
    Case(
        "embedder: empty",
        "error: cannot be loaded",
        bundle(_rehashed(_edit(EMBEDDER, lambda b: b"")), "cannot be loaded"),
    ),
    Case("TensorFlow: sound", "ok", bundle(lambda d: None, "", "tensorflow")),
    Case(
        "TensorFlow: one zeroed kernel",
        "error: golden embeddings differ",
        bundle(_zeroed_keras_kernel, "golden embeddings differ", "tensorflow"),
    ),
    Case(
        "TensorFlow: a weight group deleted",
        "error: model.keras cannot be loaded",
        bundle(_delete_weights, "model.keras cannot be loaded", "tensorflow"),
    ),
    Case(
        "TensorFlow: no Keras model in the bundle",
        "error: has no model.keras",
        bundle(_rehashed(lambda d: (d / KERAS_MODEL).unlink()), "has no model.keras", "tensorflow"),
    ),
    Case(
        "TensorFlow: an unlisted Keras model",
        "error: has no model.keras",
        bundle(_unlisted, "has no model.keras", "tensorflow"),
    ),
    Case(
        "TensorFlow: weights linked to another file (HDF5)",
        "error: ExternalLink",
        bundle(_link_weights, "ExternalLink", "tensorflow"),
    ),
    Case(
        "TensorFlow: weights of 3 GiB in nothing (HDF5)",
        "error: the arrays of model.weights.h5 would take",
        bundle(_shape_bomb, "the arrays of model.weights.h5 would take", "tensorflow"),
    ),
    Case(".keras: a Lambda layer with code", "error: Lambda", _lambda),
    Case(
        ".keras: TFSMLayer, a program of its own",
        "error: TFSMLayer",
        keras_file(saved_model_layer, "TFSMLayer"),
    ),
    Case(
        ".keras: StringLookup reads a file",
        "error: vocabulary",
        keras_file(file_reading_layer, "vocabulary"),
    ),
    Case(
        ".keras: os.system as activation",
        "error: Could not locate function 'system'",
        keras_file(function_as_activation("os", "system"), "Could not locate function 'system'"),
    ),
    Case(
        ".keras: builtins.exec as activation",
        "error: Could not locate function 'exec'",
        keras_file(function_as_activation("builtins", "exec"), "Could not locate function 'exec'"),
    ),
    Case(
        ".keras: subprocess.Popen as a layer",
        "error: Could not locate class 'Popen'",
        keras_file(program_as_layer, "Could not locate class 'Popen'"),
    ),
    Case(
        ".keras: an HDF5 file (`.h5`) under that name",
        "error: no whole zip archive",
        checked(plain_hdf5, "no whole zip archive"),
    ),
    Case(
        ".keras: a directory (SavedModel)", "error: is no file", checked(Path.mkdir, "is no file")
    ),
    Case(".keras: missing", "error: does not exist", checked(lambda p: None, "does not exist")),
    Case(
        ".keras: empty",
        "error: no whole zip archive",
        checked(lambda p: p.write_bytes(b""), "no whole zip archive"),
    ),
    Case(
        ".keras: cut short",
        "error: no whole zip archive",
        checked(cut_short, "no whole zip archive"),
    ),
    Case(
        ".keras: 2 GB of zeros in 2 MB",
        "error: more than allowed",
        checked(zeros(119), "more than allowed"),
    ),
    Case(
        ".keras: 400 MB of zeros in 400 kB",
        "error: times what it takes packed",
        checked(zeros(25), "times what it takes packed"),
    ),
    Case(
        ".keras: 5,000 members",
        "error: has a zip directory of over",
        checked(many_members, "has a zip directory of over"),
    ),
    Case(
        ".keras: a member outside",
        "error: and nothing else",
        checked(with_member("../../evil"), "and nothing else"),
    ),
    Case(
        ".keras: a file of assets",
        "error: and nothing else",
        checked(with_member("assets/vocabulary.txt"), "and nothing else"),
    ),
    Case(
        ".keras: config.json twice",
        "error: and nothing else",
        checked(config_twice, "and nothing else"),
    ),
    Case(
        ".keras: packed by bzip2",
        "error: expected stored or deflated",
        checked(packed_by_bzip2, "expected stored or deflated"),
    ),
    Case(
        ".keras: a second directory (Zip64)",
        "error: has a zip directory of over",
        checked(second_directory, "has a zip directory of over"),
    ),
    Case("index: sound", "ok", index(lambda p: None, "")),
    Case(
        "index: half of the nodes (Annoy alone answers)",
        "error: its description says",
        index(_data(half_of_the_nodes), "its description says"),
    ),
    Case(
        "index: one bit of a child (Annoy alone dies)",
        "error: was altered",
        index(_data(one_byte), "was altered"),
    ),
    Case(
        "index: one bit of a count (Annoy alone answers)",
        "error: was altered",
        index(_data(descendants_of_a_root), "was altered"),
    ),
    Case(
        "index: noise of the same size", "error: was altered", index(_data(garbage), "was altered")
    ),
    Case(
        "index: empty",
        "error: its description says",
        index(_data(lambda b: b""), "its description says"),
    ),
    Case("index: missing", "error: does not exist", index(Path.unlink, "does not exist")),
    Case(
        "index: without its JSON",
        "error: has no cell.json",
        index(lambda p: p.with_suffix(".json").unlink(), "has no cell.json"),
    ),
    Case(
        "index: JSON damaged",
        "error: has a damaged cell.json",
        index(lambda p: p.with_suffix(".json").write_text("{"), "has a damaged cell.json"),
    ),
    Case(
        "index: another dimension (Annoy alone dies)",
        "error: in 35 dimensions",
        index(_described(dim=35), "in 35 dimensions"),
    ),
    Case(
        "index: another metric",
        "error: this version reads",
        index(_described(metric="dot"), "this version reads"),
    ),
    Case(
        "index: its name is a path",
        "error: no plain file name",
        lambda folder: _answer(lambda: open_index(folder, "../cell"), "no plain file name"),
    ),
)
