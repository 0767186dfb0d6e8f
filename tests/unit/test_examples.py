"""Which pairs a report shows, against sorting by hand; and attention as maps over photos."""

from dataclasses import replace

import numpy as np
import pytest

from dedup_job.kernels.bundle import KERAS_MODEL, read_manifest
from model_training import examples
from model_training.attention_maps import enlarge, hide, stage_maps
from model_training.figures import score
from tests.broken_bundles import DEFAULT
from tests.unit.test_figures import draw_scored


@pytest.fixture(scope="module")
def scored():
    return draw_scored(7)


def labels(scored, rows, column):
    values = getattr(scored.views, column)
    return [tuple(sorted((values[scored.a[r]], values[scored.b[r]]))) for r in rows]


def by_hand(scored, order, column, n):
    """The first n of an order, each pair of labels once."""
    chosen = {}
    for row in order:
        chosen.setdefault(labels(scored, [row], column)[0], row)
    return list(chosen.values())[:n]


def test_false_pairs_are_the_highest_of_other_products_each_two_products_once(scored):
    order = sorted(np.flatnonzero(~scored.same), key=lambda row: (-scored.value[row], row))
    got = examples.false_pairs(scored, 20)
    assert list(got) == by_hand(scored, order, "product", 20) and len(got) == 20
    order = [row for row in order if not scored.hard[row]]
    got = examples.false_pairs(scored, 20, ~scored.hard)
    assert list(got) == by_hand(scored, order, "product", 20)


def test_missed_pairs_are_the_lowest_duplicates_one_of_each_photo(scored):
    order = sorted(np.flatnonzero(scored.same), key=lambda row: (scored.value[row], row))
    got = examples.missed_pairs(scored, 5)
    assert list(got) == by_hand(scored, order, "family", 5)


def test_recognised_pairs_are_edited_most_and_above_the_threshold(scored):
    got = examples.recognised_pairs(scored, float(np.median(scored.value[scored.same])), 3)
    edits = {"original": 0, "crop": 1, "badge+pad": 2, "NEG:trim": 0, "NEG:trim+crop": 1}
    n = [sum(edits[scored.views.kind[end[r]]] for end in (scored.a, scored.b)) for r in got]
    assert n == sorted(n, reverse=True) and n[0] == 3 and scored.same[got].all()
    assert not len(examples.recognised_pairs(scored, None, 3))


def test_look_alikes_told_apart_are_plain_and_below_the_threshold(scored):
    got = examples.told_apart_pairs(scored, 0.9, 4)
    assert len(got) and scored.hard[got].all() and (scored.value[got] < 0.9).all()
    for row in got:
        assert not any("+" in scored.views.kind[end[row]] for end in (scored.a, scored.b))


@pytest.mark.parametrize("n", [1, 2, 5, 100])
def test_photos_come_from_every_source_with_their_own_look_alike(scored, n):
    chosen = examples.look_alike_examples(scored, n)
    views = scored.views
    assert len(chosen) == len(set(chosen)) == min(n, 14)
    for a, b in chosen:
        assert views.kind[a] == "original" and views.kind[b] == "NEG:trim"
        assert views.product[b].split("#")[0] == views.product[a]
    assert n < 2 or len({views.source[a] for a, _ in chosen}) == 2


def test_of_two_duplicate_photos_each_has_its_own_look_alike():
    """As of labelled pairs: two photos under one name, each with a look-alike of its own."""
    one = draw_scored(8, n_products=2)
    name = np.char.replace(one.views.identity, "p1", "p0")
    labels = {"identity": name, "product": name, "family": np.full(len(name), "p0")}
    both = score(one.vectors, replace(one.views, **labels))
    assert examples.look_alike_examples(both, 9) == [(0, 3), (5, 8)]


def test_gates_and_erased_cells_of_the_default_bundle():
    manifest = read_manifest(DEFAULT)
    photos = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), np.uint8)
    maps = stage_maps(DEFAULT, manifest, photos)
    assert {n: gate.shape for n, gate in maps.gates.items()} == {3: (3, 8, 8), 4: (3, 4, 4)}
    assert all(((gate >= 0) & (gate <= 1)).all() for gate in maps.gates.values())
    assert np.ptp(maps.gates[3]) > 0
    # a tenth of 64 cells and of 16
    assert [cells.sum(axis=(1, 2)).tolist() for cells in maps.erased.values()] == [[6] * 3, [2] * 3]


@pytest.mark.parametrize("network", [{"erasure_kind": "threshold", "erasure_gamma": 0.5}, None])
def test_the_rule_of_erasure_is_the_one_of_the_training(network):
    manifest = read_manifest(DEFAULT)
    config = {"network": network} if network else "by another hand"
    manifest.raw["training"] = {"config": config}
    photos = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    maps = stage_maps(DEFAULT, manifest, photos)
    assert maps.rule == ("above 0.5 of the photo's highest" if network else "the highest 10 %")
    assert (maps.erased[3].sum() != 12) == (network is not None)


def test_without_a_keras_model_it_says_why(tmp_path):
    manifest = read_manifest(DEFAULT)
    del manifest.files[KERAS_MODEL]
    said = stage_maps(tmp_path, manifest, np.zeros((1, 128, 128, 3), np.uint8))
    assert isinstance(said, str) and KERAS_MODEL in said


def test_what_is_hidden_is_dark_and_the_rest_is_as_it_was():
    photo = np.full((8, 8, 3), 240, np.uint8)
    cells = np.array([[True, False], [False, False]])
    got = hide(photo, cells)
    assert (got[:4, :4] == 40).all()
    got[:4, :4] = 240
    assert (got == photo).all()


def test_a_gate_is_drawn_from_its_lowest_value():
    got = enlarge(np.array([[0.4, 0.4], [0.4, 0.6]], np.float32), 8)
    assert got.shape == (8, 8) and got.min() == 0 and got.argmax() == 63
    assert (enlarge(np.full((2, 2), 0.5, np.float32), 8) == 0).all()
