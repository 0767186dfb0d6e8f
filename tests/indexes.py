"""A small Annoy index on disk, ways to damage it, and what Annoy makes of a file by itself."""

import subprocess
import sys

import numpy as np
from annoy import AnnoyIndex

from dedup_job.io.index_files import IndexFacts, save_index

DIM, N_ITEMS = 16, 2_000
NODE_BYTES = 12 + 4 * DIM
FACTS = IndexFacts("m" * 64, seed=7)
# Opens a file as `open_index` does once it has verified it, and asks for neighbours.
_UNVERIFIED = """
import sys
from annoy import AnnoyIndex
index = AnnoyIndex(int(sys.argv[2]), "angular")
index.load(sys.argv[1])
print([index.get_nns_by_item(item, 10) for item in range(0, index.get_n_items(), 10)])
"""


def small_index(folder, name="cell"):
    """Build and store an index; returns the path of NAME.ann."""
    index = AnnoyIndex(DIM, "angular")
    index.set_seed(FACTS.seed)
    for item, vector in enumerate(np.random.default_rng(1).standard_normal((N_ITEMS, DIM))):
        index.add_item(item, vector.tolist())
    index.build(8, 1)
    save_index(folder, name, index, FACTS)
    return folder / f"{name}.ann"


def half_of_the_nodes(data):
    return data[: len(data) // NODE_BYTES // 2 * NODE_BYTES]


def one_byte(data):
    """Flip one bit of a child's number in the last node, a root."""
    at = len(data) - NODE_BYTES + 4 + 2
    return data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]


def descendants_of_a_root(data):
    """Flip one bit of how many items the last root has below it."""
    at = len(data) - NODE_BYTES
    return data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]


def garbage(data):
    """Noise of the same size."""
    return np.random.default_rng(2).bytes(len(data))


def ask_unverified(path, dim=DIM):
    """What Annoy alone does with a file, in a process of its own: exit status and answer."""
    done = subprocess.run(
        [sys.executable, "-c", _UNVERIFIED, str(path), str(dim)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout
