"""Annoy indexes as files that are verified before Annoy touches them.

Annoy maps a file into memory and follows the numbers it finds there: cut short by a whole number of
nodes it answers from what is left, and one wrong byte can end the process. So beside every NAME.ann
stands a NAME.json that says what the file is, and a file that is not that is never opened.
"""

import json
import os
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from annoy import AnnoyIndex

from dedup_job.errors import ModelContractError
from dedup_job.kernels.bundle import is_plain_name, sha256_of

INDEX_FORMAT = 1
METRIC: Final = "angular"
_MAX_DESCRIPTION_BYTES = 64_000
# A node of Annoy's angular index: descendants (int32), two children or a norm, then the vector.
_NODE_HEAD_BYTES, _NODE_FLOAT_BYTES = 12, 4


@dataclass(frozen=True)
class IndexFacts:
    """What cannot be read from an index itself.

    Attributes:
        model_id: the model whose embeddings it holds.
        seed: of its random splits.
    """

    model_id: str
    seed: int


@dataclass(frozen=True)
class IndexDescription:
    """The content of NAME.json. `sha256` and `n_bytes` are of NAME.ann."""

    sha256: str
    n_bytes: int
    n_items: int
    dim: int
    n_trees: int
    seed: int
    model_id: str
    metric: str = METRIC
    index_format: int = INDEX_FORMAT


def save_index(folder: Path, name: str, index: AnnoyIndex, facts: IndexFacts) -> IndexDescription:
    """Store a built index.

    Each file is replaced in one step, the description last. Who opens them in between, or after a
    crash there, finds that they do not belong together.

    Args:
        folder: made if absent; on a local disk, as Annoy needs it.
        name: of the index, without a suffix.
        index: built, metric angular. Annoy reads it from the file afterwards.
        facts: what the index does not know.

    Raises:
        ModelContractError: `name` is no plain file name, or the files cannot be written.
    """
    data, description = _paths(folder, name)
    temporary = folder / f".{name}.{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        index.save(str(temporary))
        _sync(temporary)
        known = IndexDescription(
            sha256=sha256_of(temporary),
            n_bytes=temporary.stat().st_size,
            n_items=index.get_n_items(),
            dim=index.f,
            n_trees=index.get_n_trees(),
            seed=facts.seed,
            model_id=facts.model_id,
        )
        temporary.replace(data)
        temporary.write_text(json.dumps(asdict(known), indent=2) + "\n", encoding="utf-8")
        _sync(temporary)
        temporary.replace(description)
    except OSError as error:
        with suppress(OSError):  # what went wrong is said below
            temporary.unlink()
        raise ModelContractError(
            f"index {data} cannot be written: {error.strerror or error}"
        ) from None
    return known


def open_index(folder: Path, name: str, model_id: str | None = None) -> AnnoyIndex:
    """Verify an index and open it.

    Args:
        folder: where `save_index` put it.
        name: as it was saved.
        model_id: the model whose vectors will be looked up; None: not checked.

    Raises:
        ModelContractError: missing, damaged, replaced meanwhile, or of another model. The remedy is
            to build it again.
    """
    data, _ = _paths(folder, name)
    known = read_description(folder, name)
    if model_id is not None and known.model_id != model_id:
        raise _unusable(data, f"is of model {known.model_id[:12]}, expected model {model_id[:12]}")
    before = _verify(data, known)
    index = AnnoyIndex(known.dim, METRIC)
    try:
        index.load(str(data))
    except OSError as error:
        raise _unusable(data, f"cannot be opened ({error})") from None
    if _identity(data) != before:
        raise _unusable(data, "was replaced while it was opened")
    if (index.get_n_items(), index.get_n_trees()) != (known.n_items, known.n_trees):
        raise _unusable(
            data,
            f"holds {index.get_n_items()} items in {index.get_n_trees()} trees, its description "
            f"says {known.n_items} in {known.n_trees}",
        )
    return index


def read_description(folder: Path, name: str) -> IndexDescription:
    """Read NAME.json and check it by itself.

    Raises:
        ModelContractError: missing, damaged, or of another format or metric.
    """
    data, path = _paths(folder, name)
    try:
        with path.open("rb") as stream:
            text = stream.read(_MAX_DESCRIPTION_BYTES + 1)
    except OSError as error:
        raise _unusable(data, f"has no {path.name} beside it ({error.strerror})") from None
    try:
        if len(text) > _MAX_DESCRIPTION_BYTES:
            raise ValueError(f"larger than {_MAX_DESCRIPTION_BYTES} bytes")
        known = _parse(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unusable(data, f"has a damaged {path.name} ({error!r:.100})") from None
    if (known.index_format, known.metric) != (INDEX_FORMAT, METRIC):
        raise _unusable(
            data,
            f"is of format {known.index_format}, metric {known.metric}; this version reads "
            f"format {INDEX_FORMAT}, metric {METRIC}",
        )
    return known


def _parse(content: dict[str, Any]) -> IndexDescription:
    known = IndexDescription(**{one.name: content[one.name] for one in fields(IndexDescription)})
    for one in fields(IndexDescription):
        value = getattr(known, one.name)
        # bool is an int to isinstance
        if type(value) is not one.type:
            raise ValueError(f"{one.name} is {value!r:.40}")
    if not (known.dim > 0 and known.n_items >= 0 and known.n_trees >= 0):
        raise ValueError("dim, n_items and n_trees must not be negative")
    return known


def _verify(data: Path, known: IndexDescription) -> tuple[int, ...]:
    """Compare the file with its description, the cheap facts first; returns which file that was."""
    if not data.is_file():
        raise _unusable(data, "does not exist")
    identity = _identity(data)
    size = data.stat().st_size
    node = _NODE_HEAD_BYTES + _NODE_FLOAT_BYTES * known.dim
    if size != known.n_bytes:
        raise _unusable(data, f"has {size} bytes, its description says {known.n_bytes}")
    if size % node or size // node < known.n_items:
        raise _unusable(
            data, f"has {size} bytes, no {known.n_items} or more nodes of dimension {known.dim}"
        )
    if size == 0:
        raise _unusable(data, "is empty")
    if sha256_of(data) != known.sha256:
        raise _unusable(data, "was altered (SHA-256 differs)")
    if _items_below_the_roots(data, known) != {known.n_items}:
        # The hash is right, so the description is wrong: Annoy would read vectors at wrong places.
        raise _unusable(
            data, f"has no {known.n_trees} trees of {known.n_items} items in {known.dim} dimensions"
        )
    return identity


def _items_below_the_roots(data: Path, known: IndexDescription) -> set[int]:
    """What the roots, the last `n_trees` nodes, say of the number of items below them."""
    node = _NODE_HEAD_BYTES + _NODE_FLOAT_BYTES * known.dim
    found = set()
    with data.open("rb") as stream:
        for tree in range(1, min(known.n_trees, known.n_bytes // node) + 1):
            stream.seek(known.n_bytes - tree * node)
            found.add(int.from_bytes(stream.read(4), "little", signed=True))
    return found


def _identity(path: Path) -> tuple[int, ...]:
    facts = path.stat()
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    if not is_plain_name(name):
        raise ModelContractError(f"index name {name!a:.80} is no plain file name")
    return folder / f"{name}.ann", folder / f"{name}.json"


def _unusable(data: Path, why: str) -> ModelContractError:
    return ModelContractError(f"index {data} {why}; build it again")


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
