"""Annoy files are verified before Annoy touches them; alone it crashes on them or answers wrong."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import annoy.annoylib
import pytest
from annoy import AnnoyIndex

from dedup_job.errors import DedupError, ModelContractError
from dedup_job.io import index_files
from dedup_job.io.index_files import open_index, read_description, save_index
from tests.indexes import (
    DIM,
    FACTS,
    N_ITEMS,
    ask_unverified,
    descendants_of_a_root,
    garbage,
    half_of_the_nodes,
    one_byte,
    small_index,
)


@pytest.fixture
def stored(tmp_path):
    return small_index(tmp_path)


def change(path, **facts):
    """Rewrite facts of the description."""
    described = path.with_suffix(".json")
    described.write_text(json.dumps(json.loads(described.read_text()) | facts))


def test_what_was_saved_is_opened_and_answers_alike(stored):
    status, answers = ask_unverified(stored)
    assert status == 0
    index = open_index(stored.parent, "cell", FACTS.model_id)
    found = [index.get_nns_by_item(item, 10) for item in range(0, N_ITEMS, 10)]
    assert str(found) == answers.strip()
    known = read_description(stored.parent, "cell")
    assert (known.n_items, known.dim, known.n_trees, known.seed) == (N_ITEMS, DIM, 8, FACTS.seed)
    assert sorted(path.name for path in stored.parent.iterdir()) == ["cell.ann", "cell.json"]


@pytest.mark.parametrize("n_items", [1, 2, 17])
def test_a_tiny_index_is_opened(tmp_path, n_items):
    index = AnnoyIndex(3, "angular")
    for item in range(n_items):
        index.add_item(item, [1.0, float(item), 0.5])
    index.build(4, 1)
    save_index(tmp_path, "tiny", index, FACTS)
    assert len(open_index(tmp_path, "tiny").get_nns_by_item(0, 50)) == n_items


def test_an_index_may_be_saved_again_while_the_old_one_is_open(stored):
    old = open_index(stored.parent, "cell")
    before = old.get_nns_by_item(3, 5)
    small_index(stored.parent)
    assert old.get_nns_by_item(3, 5) == before
    assert open_index(stored.parent, "cell").get_nns_by_item(3, 5) == before


@pytest.mark.parametrize(
    ("damage", "alone"),
    [
        (half_of_the_nodes, "answers wrong"),
        (descendants_of_a_root, "answers wrong"),
        (one_byte, "dies"),
        (garbage, "dies, fails or answers wrong"),  # it follows whatever numbers stand there
        (lambda data: data[:-10], "fails"),
        (lambda data: b"", "fails"),
    ],
    ids=["half of the nodes", "one bit, items", "one bit, child", "garbage", "cut", "empty"],
)
def test_a_damaged_file_is_refused_and_annoy_alone_would_not(stored, damage, alone):
    _, good = ask_unverified(stored)
    stored.write_bytes(damage(stored.read_bytes()))
    status, answers = ask_unverified(stored)
    outcome = "dies" if status < 0 else "fails" if status else "answers wrong"
    assert outcome in alone
    assert answers != good
    with pytest.raises(ModelContractError, match=r"cell\.ann .*; build it again$") as caught:
        open_index(stored.parent, "cell")
    assert "\n" not in str(caught.value)


def test_another_dimension_kills_annoy_and_is_refused(stored):
    assert ask_unverified(stored, dim=35)[0] < 0  # by a signal
    change(stored, dim=35)
    with pytest.raises(ModelContractError, match="no 8 trees of 2000 items in 35 dimensions"):
        open_index(stored.parent, "cell")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"metric": "euclidean"}, "metric euclidean; this version reads"),
        ({"index_format": 2}, "is of format 2"),
        ({"n_items": 1_999}, "no 8 trees of 1999 items"),
        ({"n_trees": 9}, "says 2000 in 9"),
        ({"n_trees": 7}, "holds 2000 items in 8 trees, its description says 2000 in 7"),
        ({"n_trees": 0}, "no 0 trees"),
        ({"n_items": 10**9}, "no 1000000000 or more nodes"),
        ({"dim": 0}, "damaged cell.json"),
        ({"dim": True}, "damaged cell.json"),
        ({"n_bytes": "336376"}, "damaged cell.json"),
        ({"sha256": "0" * 64}, r"was altered \(SHA-256 differs\)"),
    ],
)
def test_a_description_of_something_else_is_refused(stored, facts, message):
    change(stored, **facts)
    with pytest.raises(ModelContractError, match=message):
        open_index(stored.parent, "cell")


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", "[" * 50_000, " " * 100_000, "\xff"])
def test_a_damaged_description_is_refused(stored, text):
    stored.with_suffix(".json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelContractError, match=r"damaged cell\.json .*build it again"):
        open_index(stored.parent, "cell")


def test_missing_files_and_another_model_are_refused(stored):
    with pytest.raises(ModelContractError, match="is of model mmmmmmmmmmmm, expected model other"):
        open_index(stored.parent, "cell", "other")
    stored.with_suffix(".json").rename(stored.parent / "kept")
    with pytest.raises(ModelContractError, match=r"has no cell\.json beside it"):
        open_index(stored.parent, "cell")
    (stored.parent / "kept").rename(stored.with_suffix(".json"))
    stored.unlink()
    with pytest.raises(ModelContractError, match="does not exist"):
        open_index(stored.parent, "cell")
    stored.mkdir()
    with pytest.raises(ModelContractError, match="does not exist"):
        open_index(stored.parent, "cell")


@pytest.mark.parametrize("name", ["../cell", "a/b", "", ".", "..", "a\0b", "x\n"])
def test_a_name_is_never_a_path(stored, name):
    with pytest.raises(ModelContractError, match="no plain file name"):
        open_index(stored.parent, name)


def test_a_file_that_is_replaced_between_check_and_use_is_refused(stored, monkeypatch):
    other = shutil.copy(stored, stored.parent / "other")

    class Swapping(index_files.AnnoyIndex):
        def load(self, path):
            Path(other).replace(path)
            return super().load(path)

    monkeypatch.setattr(index_files, "AnnoyIndex", Swapping)
    with pytest.raises(ModelContractError, match="was replaced while it was opened"):
        open_index(stored.parent, "cell")


def test_where_nothing_can_be_written_is_told(stored, tmp_path):
    index = open_index(stored.parent, "cell")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DedupError, match="cannot be written"):
        save_index(tmp_path / "file" / "below", "cell", index, FACTS)


def test_annoy_is_built_for_any_processor_of_its_family():
    """A wheel or image built on one host must run on another: no AVX, whose registers are ymm, zmm."""
    objdump = shutil.which("objdump")
    if objdump is None:
        pytest.skip("needs objdump (binutils)")
    code = subprocess.run(
        [objdump, "-d", "--no-show-raw-insn", annoy.annoylib.__file__],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert code.count("\n") > 1_000
    wide = [line for line in code.splitlines() if "%ymm" in line or "%zmm" in line]
    # AVX on the narrow registers: the same instructions with a leading v, such as vmulss.
    coded = re.findall(r"\tv(?:mov|add|sub|mul|div|fn?madd|sqrt|xor|pxor)\w*", code)
    assert wide + coded == []
