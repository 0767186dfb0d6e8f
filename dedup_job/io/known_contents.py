"""Contents whose embedding is stored already, as a file that every worker process looks them up in.

The file is a NumPy array of sorted 16-byte prefixes of SHA-256 digests: 128 bits tell contents
apart, and a million contents take 16 MB. Processes of one machine share a local file's memory.
"""

import io
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedup_job.io.storage import Folder

_PREFIX_BYTES = 16
# NumPy compares byte strings as bytes, from the left. That it takes trailing zero bytes for padding
# does no harm among strings of one length.
_PREFIX = np.dtype(f"S{_PREFIX_BYTES}")


class KnownContents:
    """`content_sha256 in known`, by binary search.

    Args:
        prefixes: S16, sorted; repeats do no harm.
    """

    def __init__(self, prefixes: NDArray[np.bytes_]) -> None:
        self._prefixes = prefixes

    def __len__(self) -> int:
        return len(self._prefixes)

    def __contains__(self, content_sha256: object) -> bool:
        if not isinstance(content_sha256, str):
            return False
        prefix = _to_prefixes([content_sha256])
        place = int(np.searchsorted(self._prefixes, prefix)[0])
        return place < len(self) and bool(self._prefixes[place] == prefix[0])


def write_known_contents(
    folder: Folder, name: str, shas: Iterable[str] | pa.Array | pa.ChunkedArray
) -> None:
    """Write the file, in one step.

    Args:
        folder: where; need not exist.
        name: of the file. One that workers may have loaded is never written again.
        shas: `content_sha256` of each content, 64 hex digits, in any order.
    """
    if isinstance(shas, pa.Array | pa.ChunkedArray):
        shas = shas.to_pylist()
    stream = io.BytesIO()
    np.save(stream, np.sort(_to_prefixes(shas)), allow_pickle=False)
    folder.replace_bytes(name, stream.getvalue())


@lru_cache(maxsize=1)  # one run's file at a time: workers outlive runs
def load_known_contents(folder: Folder, name: str) -> KnownContents:
    """Open the file, once per process: a local one is mapped, of an object store it is read whole.

    Raises:
        FileNotFoundError: it is not there.
    """
    if folder.is_local:
        mapped = np.load(folder.path(name), mmap_mode="r", allow_pickle=False)
        return KnownContents(np.asarray(mapped))  # a plain view: memmap's own indexing is slow
    with folder.open_read(name) as stream:
        return KnownContents(np.load(io.BytesIO(stream.read()), allow_pickle=False))


def _to_prefixes(shas: Iterable[str]) -> NDArray[np.bytes_]:
    text = "".join(sha[: 2 * _PREFIX_BYTES] for sha in shas)
    return np.frombuffer(bytes.fromhex(text), _PREFIX)
