import hashlib
import pickle
from functools import partial

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup_job.io.known_contents import (
    KnownContents,
    load_known_contents,
    write_known_contents,
)
from dedup_job.io.storage import Folder

# Few distinct bytes, zero among them: prefixes that agree for long, and that end in zeros.
digests = st.lists(st.sampled_from([0, 1, 127, 128, 255]), min_size=16, max_size=16).map(
    lambda head: (bytes(head) + b"\x11" * 16).hex()
)


def shas(n, seed=0):
    return [hashlib.sha256(b"%d %d" % (seed, i)).hexdigest() for i in range(n)]


def reload(folder, name="known.npy"):
    load_known_contents.cache_clear()
    return load_known_contents(folder, name)


@pytest.mark.parametrize(
    "as_given",
    [list, iter, pa.array, lambda s: pa.chunked_array([s[:10], s[10:]])],
    ids=["list", "iterator", "array", "chunks"],
)
def test_holds_what_was_written_and_nothing_else(tmp_path, as_given):
    folder = Folder(str(tmp_path / "new"))
    write_known_contents(folder, "known.npy", as_given(shas(1_000)))
    known = reload(folder)
    assert len(known) == 1_000
    assert all(sha in known for sha in shas(1_000))
    assert not any(sha in known for sha in shas(1_000, seed=1))
    assert None not in known


@given(st.sets(digests, max_size=40), st.sets(digests, max_size=40))
def test_agrees_with_a_set(tmp_path_factory, held, others):
    folder = Folder(str(tmp_path_factory.mktemp("known")))
    write_known_contents(folder, "known.npy", held)
    known = reload(folder)
    assert {sha for sha in held | others if sha in known} == held


def test_nothing_and_repeats_are_no_trouble(tmp_path):
    folder = Folder(str(tmp_path))
    write_known_contents(folder, "none.npy", [])
    assert shas(1)[0] not in reload(folder, "none.npy")
    write_known_contents(folder, "twice.npy", shas(2) * 2)
    twice = reload(folder, "twice.npy")
    assert [sha in twice for sha in [*shas(2), *shas(2, seed=1)]] == [True, True, False, False]


def test_a_process_opens_a_file_once_and_a_task_carries_its_name_only(tmp_path):
    folder = Folder(str(tmp_path))
    write_known_contents(folder, "known.npy", shas(100_000))
    assert (tmp_path / "known.npy").stat().st_size < 16 * 100_000 + 1_000
    task = pickle.dumps(partial(load_known_contents, folder, "known.npy"))
    assert len(task) < 500
    first = pickle.loads(task)()
    assert isinstance(first, KnownContents)
    assert pickle.loads(task)() is first


def test_reads_from_an_object_store(s3_server):
    s3_server.create_bucket("known-contents")
    folder = Folder("s3://known-contents/staging")
    write_known_contents(folder, "known.npy", shas(100))
    known = reload(folder)
    assert shas(100)[7] in known
    assert shas(1, seed=1)[0] not in known
    with pytest.raises(FileNotFoundError):
        reload(folder, "none.npy")


def test_a_missing_file_is_an_error_not_an_empty_set(tmp_path):
    with pytest.raises(FileNotFoundError):
        reload(Folder(str(tmp_path)))
