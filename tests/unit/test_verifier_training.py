"""The pair verifier's training: pairs and their labels, the weighing of its answers, kill and resume, the command."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from keras import Input, Sequential, layers

from dedup_job.errors import ConfigError, DedupError
from dedup_job.kernels.bundle import read_manifest
from dedup_job.kernels.calibration import read_calibration, read_score_calibration
from dedup_job.kernels.verifier import PAIR_CHANNELS, ScoreRule, describe, describe_stored, lay_pair
from dedup_job.kernels.verifier_model import load_verifier
from model_training import verifier_training
from model_training.cli import main
from model_training.config import ExperimentConfig
from model_training.evaluate import ValidationSet, pair_labels
from model_training.score_rule import fit_score_rule
from model_training.train import learning_rate
from model_training.verifier_bundle import choose_floor
from model_training.verifier_network import N_VOTES, build_verifier, channels_of
from model_training.verifier_pairs import PairSampler, PairSet, draw_pairs
from model_training.verifier_training import (
    Reservoir,
    VerifierTrainer,
    plan_schedule,
    train_verifier,
)
from tests.photos_for_training import draw_garment
from tests.unit.test_model_training import photos_in_memory

_SIZE = 32


def experiment(**verifier: Any) -> ExperimentConfig:
    raw = {
        "network": {"input_px": _SIZE},
        "training": {"checkpoint_every_s": 1e-9},
        "verifier": {"pairs": 500, "batch": 8, "uses": 0.02, "learning_rate": 0.01, **verifier},
    }
    return ExperimentConfig.model_validate(raw)


def garments(n: int = 12) -> Any:
    return photos_in_memory(n)


def neighbours_of(n: int) -> np.ndarray:
    return np.array([[(i + 1) % n, (i + 2) % n] for i in range(n)], np.int32)


def drawn_part(seed: int, n: int = 6) -> PairSet:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (n, 2, _SIZE, _SIZE, PAIR_CHANNELS)).astype(np.uint8)
    return PairSet(frames, rng.random(n) < 0.5)


def test_pairs_called_the_same_come_from_one_picture() -> None:
    sampler = PairSampler(garments(), experiment(), 3, neighbours_of(12))
    inner = sampler._sampler
    source_of: dict[int, str] = {}
    photo, change = inner.photo, inner.look_alike_of
    made: list[Any] = []

    def remember(name: str, rgb: Any) -> Any:
        made.append(rgb)  # or its id would be another picture's
        source_of[id(rgb)] = name
        return rgb

    inner.photo = lambda row: remember(f"photo {row}", photo(row).copy())  # type: ignore[method-assign]
    inner.look_alike_of = lambda rgb, row: remember(  # type: ignore[method-assign]
        f"made {len(made)} of {source_of[id(rgb)]}", change(rgb, row)
    )
    viewed: dict[int, str] = {}
    view = sampler._view

    def watch(rgb: Any) -> Any:
        described = view(rgb)
        made.append(described)
        viewed[id(described)] = source_of[id(rgb)]
        return described

    sampler._view = watch  # type: ignore[method-assign]
    kinds = set()
    same_share = []
    for _ in range(60):
        for a, b, same in sampler.draw():
            assert a.pixels.shape == b.pixels.shape == (_SIZE, _SIZE, 3)
            first, second = viewed[id(a)], viewed[id(b)]
            assert same == (first == second)
            same_share.append(same)
            kinds.add((same, first.startswith("made"), second.startswith("made")))
    assert 25 / 80 < np.mean(same_share) < 55 / 80
    # Copies of both; a photo beside a look-alike and beside a stranger; a look-alike of a look-alike.
    assert {
        (True, False, False),
        (True, True, True),
        (False, True, False),
        (False, True, True),
    } <= kinds
    assert (False, False, False) in kinds


def test_a_photo_labelled_a_copy_is_one() -> None:
    photos = garments()
    photos.photos[:] = [replace(p, identity="one", product="one") for p in photos.photos]
    sampler = PairSampler(photos, experiment(), 4, neighbours_of(12))
    rows = [sampler._copy_of(5) for _ in range(60)]
    assert len(set(rows)) > 3 and 15 < rows.count(5) < 45


def test_equal_arguments_draw_equal_pairs() -> None:
    arguments = (garments(), experiment(), neighbours_of(12), 1, 9)
    first, again = (next(iter(draw_pairs(*arguments, n_processes=1))) for _ in range(2))
    assert np.array_equal(first.frames, again.frames) and np.array_equal(first.same, again.same)
    assert first.frames.shape[1:] == (2, _SIZE, _SIZE, PAIR_CHANNELS)


def test_a_reservoir_forgets_the_oldest_and_keeps_labels_beside_frames() -> None:
    reservoir = Reservoir(2)
    parts = [drawn_part(i) for i in range(3)]
    for part in parts:
        reservoir.add(part, np.ones((len(part.same), 2)))
    frames, labels = reservoir.draw(np.random.default_rng(0), 200)
    label_of = {
        part.frames[i, side].tobytes(): (number, part.same[i])
        for number, part in enumerate(parts)
        for i in range(len(part.same))
        for side in (0, 1)
    }
    seen = [label_of[frame.tobytes()] for frame in frames]
    assert {number for number, _ in seen} == {1, 2}
    assert [same for _, same in seen] == labels.astype(bool).tolist()


def test_a_share_of_the_frames_is_drawn_by_loss() -> None:
    part = drawn_part(1, 8)
    losses = np.full((8, 2), 1e-9)
    losses[3, 1] = 1.5
    reservoir = Reservoir(1, hard_share=0.5)
    reservoir.add(part, losses)
    frames, _ = reservoir.draw(np.random.default_rng(0), 2_000)
    hard = part.frames[3, 1].tobytes()
    # Half of them by loss, and one in 16 of the other half.
    assert np.mean([f.tobytes() == hard for f in frames]) == pytest.approx(0.5 + 0.5 / 16, abs=0.05)


def test_losses_are_those_that_training_would_see() -> None:
    trainer = VerifierTrainer(experiment(), Path("unused"))
    part = drawn_part(4)
    found = trainer.losses_of(part)
    odds = trainer.model.predict_on_batch(part.frames[:, 1].astype(np.float32)).sum(axis=1)
    expected = [
        np.log1p(np.exp(-o if same else o)) for o, same in zip(odds, part.same, strict=True)
    ]
    np.testing.assert_allclose(found[:, 1], expected, rtol=1e-4)


def test_each_frame_is_used_as_often_as_asked() -> None:
    config = experiment(pairs=1_000, batch=50, uses=3.0).verifier
    plan = plan_schedule(config)
    assert plan.steps * config.batch == 2 * 1_000 * 3.0


def test_the_rate_warms_up_and_falls() -> None:
    config = experiment().verifier
    rates = [learning_rate(config, step, step / 1_000) for step in range(1_000)]
    top = int(np.argmax(rates))
    assert 50 < top < 150 and rates[0] < 0.02 * config.learning_rate
    assert rates[-1] < 0.02 * config.learning_rate and (np.diff(rates[top:]) <= 0).all()


def test_the_rule_finds_the_odds_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    answers, cosines = rng.normal(0, 3, 40_000), rng.uniform(0.6, 1, 40_000)
    odds = 0.7 * answers + 5.0 * cosines - 4.0
    same = rng.random(40_000) < 1 / (1 + np.exp(-odds))
    rule = fit_score_rule(answers, cosines, same)
    # Both kinds weigh the same in all: only the bias moves, by the logarithm of their shares.
    assert rule.answer_weight == pytest.approx(0.7, rel=0.05)
    assert rule.cosine_weight == pytest.approx(5.0, rel=0.1)
    assert rule.bias == pytest.approx(-4.0 - np.log(same.mean() / (1 - same.mean())), abs=0.3)


def test_a_rule_never_falls_with_likeness() -> None:
    rng = np.random.default_rng(1)
    answers, cosines = rng.normal(0, 1, 500), rng.uniform(0, 1, 500)
    rule = fit_score_rule(answers, cosines, cosines < 0.5)  # the wrong way round
    assert rule.cosine_weight == 0.0 and rule.answer_weight >= 0.0


def test_a_rule_needs_both_kinds() -> None:
    with pytest.raises(DedupError, match="needs duplicates and other pairs"):
        fit_score_rule(np.zeros(3), np.ones(3), np.ones(3, bool))


def test_the_network_votes_and_learns_what_a_difference_means() -> None:
    trainer = VerifierTrainer(experiment(pairs=250, uses=2.0), Path("unused"))
    rng = np.random.default_rng(0)
    same = (np.arange(64) % 2).astype(np.float32)
    frames = rng.integers(0, 256, (64, _SIZE, _SIZE, PAIR_CHANNELS)).astype(np.uint8)
    frames[same == 1, :, :, 6:9] = 0
    losses = [trainer.train_on(frames, same, 0.0) for _ in range(25)]
    assert np.mean(losses[-3:]) < 0.3 < losses[0]
    votes = trainer.model.predict_on_batch(frames.astype(np.float32))
    assert votes.shape == (64, N_VOTES)


def test_a_killed_training_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [drawn_part(1), drawn_part(2)]
    asked: list[int] = []

    def draw(photos: Any, config: Any, neighbours: Any, n: int, seed: int, processes: int) -> Any:
        asked.append(n)
        return iter(parts[-(n // 250) :])

    monkeypatch.setattr(verifier_training, "draw_pairs", draw)
    whole = VerifierTrainer(experiment(), tmp_path / "whole")
    train_verifier(whole, garments(), neighbours_of(12), report=lambda line: None)
    assert whole.step == whole.schedule.steps

    class Killed(Exception):
        pass

    killed = VerifierTrainer(experiment(), tmp_path / "killed")
    monkeypatch.setattr(verifier_training, "draw_pairs", lambda *_: iter([parts[0], Killed()]))
    with pytest.raises(AttributeError):  # an exception is no part
        train_verifier(killed, garments(), neighbours_of(12), report=lambda line: None)
    monkeypatch.setattr(verifier_training, "draw_pairs", draw)
    again = VerifierTrainer(experiment(), tmp_path / "killed", resume=True)
    assert again.step == whole.schedule.steps_per_part
    for kept, left in zip(again.model.weights, killed.model.weights, strict=True):
        assert np.array_equal(kept.numpy(), left.numpy())
    train_verifier(again, garments(), neighbours_of(12), report=lambda line: None)
    assert again.step == whole.step and asked[-1] == 250


def test_a_training_may_end_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []

    def draw(*arguments: Any) -> Any:
        while True:
            yield drawn_part(len(shares))

    monkeypatch.setattr(verifier_training, "draw_pairs", draw)
    trainer = VerifierTrainer(experiment(pairs=1), tmp_path)
    learn = trainer.train_on

    def watch(frames: Any, same: np.ndarray, share: float) -> float:
        shares.append(share)
        return learn(frames, same, share)

    trainer.train_on = watch  # type: ignore[method-assign]
    ticks = itertools.count(1_000.0)
    clock = SimpleNamespace(time=lambda: next(ticks), monotonic=lambda: next(ticks))
    monkeypatch.setattr(verifier_training, "time", clock)
    train_verifier(
        trainer, garments(), neighbours_of(12), finish_at=1_030.0, report=lambda line: None
    )
    assert 1_030.0 <= next(ticks) < 1_040.0
    assert shares[0] < 0.2 < 0.5 < shares[-1] and shares == sorted(shares)
    assert trainer.step > trainer.schedule.steps and trainer.pairs == 250 * trainer.step
    again = VerifierTrainer(experiment(pairs=1), tmp_path, resume=True)
    assert again.spent_s == trainer.spent_s > 0


def test_a_training_starts_from_a_verifier_of_any_width_and_from_nothing_else(
    tmp_path: Path,
) -> None:
    wide = build_verifier(_SIZE, (8, 8, 8, 16))
    wide.save(tmp_path / "verifier.keras")
    trainer = VerifierTrainer(experiment(), tmp_path, start=tmp_path / "verifier.keras")
    assert trainer.channels == (8, 8, 8, 16)
    for kept, given in zip(trainer.model.get_weights(), wide.get_weights(), strict=True):
        assert np.array_equal(kept, given)
    other = Sequential([Input((4,)), layers.Dense(1)])
    path = tmp_path / "other.keras"
    other.save(path)
    with pytest.raises(ConfigError, match=r"other\.keras is another verifier"):
        VerifierTrainer(experiment(), tmp_path, start=path)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / verifier_training.CHECKPOINT, step=np.array(1))
    with pytest.raises(ConfigError, match="is of another network"):
        VerifierTrainer(experiment(), tmp_path, resume=True)


def test_a_view_lies_over_its_copy_as_the_job_sees_it() -> None:
    photo = np.ascontiguousarray(draw_garment(5, (_SIZE * 4, _SIZE * 4)))
    frames = lay_pair(describe_stored(photo), describe_stored(photo))
    apart, inside = frames[..., 6:9], frames[..., 9]
    assert frames.shape == (2, _SIZE * 4, _SIZE * 4, PAIR_CHANNELS)
    assert apart[inside > 0].mean() < 2


@pytest.mark.parametrize("spread", [0.3, 1.0])
@pytest.mark.parametrize(("noise", "share"), [(0.1, 0.02), (10.0, 0.2)], ids=["sharp", "poor"])
def test_strangers_say_from_where_on_pairs_are_verified_whatever_the_scale_of_the_cosines(
    spread: float, noise: float, share: float
) -> None:
    rng = np.random.default_rng(0)
    names = np.repeat(np.arange(60), 2).astype(str)  # two views of each product
    pixels = np.zeros((len(names), 1, 1, 3), np.uint8)
    views = ValidationSet(pixels, names, names, names, names, names)
    # All share a direction, and the more so the less they are spread.
    products = np.repeat(rng.standard_normal((60, 16)), 2, axis=0)
    apart = spread * (products + noise * rng.standard_normal((len(names), 16)))
    vectors = apart / np.std(apart) * spread + 4 * np.eye(16)[0]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    floor = choose_floor(vectors, views)
    a, b, same, hard = pair_labels(views)
    verified = ((vectors @ vectors.T)[a, b] >= floor)[~same & ~hard].mean()
    assert verified == pytest.approx(share, abs=0.25 * share)


def test_the_network_is_built_for_any_size() -> None:
    small, wide = (build_verifier(64, channels) for channels in ((8, 8, 8, 8), (8, 8, 8, 16)))
    assert small.output_shape == wide.output_shape == (None, N_VOTES)
    assert small.count_params() < wide.count_params()
    assert channels_of(wide) == (8, 8, 8, 16)


def test_scores_are_odds_spread_out() -> None:
    rule = ScoreRule(0.0, 1.0, 0.0)
    assert rule.score([0.0], [0.5])[0] == 0.5
    assert 0.95 < rule.score([13.8], [0.5])[0] < 0.98  # a million to one


@pytest.mark.training
@pytest.mark.slow
def test_a_bundle_gets_a_verifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import cv2

    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(120):
        cv2.imwrite(str(photos / f"{i}.jpg"), draw_garment(i)[:, :, ::-1])
    config = tmp_path / "tiny.yaml"
    config.write_text(
        "network: {input_px: 64, width: 0.125, dim: 16, attention_stages: [4], erasure: false}\n"
        "training: {views: 960, photos_per_batch: 8, learning_rate: 0.003, warmup_steps: 5}\n"
        "verifier: {pairs: 1000, batch: 16, uses: 2, learning_rate: 0.003}\n"
    )
    source = [
        "--photos",
        str(photos),
        "--cache-dir",
        str(tmp_path / "cache"),
        "--config",
        str(config),
    ]
    bundle = tmp_path / "bundle"
    assert main(["train", *source, "--out", str(bundle), "--max-int8-loss", "1"]) == 0
    plain = read_manifest(bundle)
    capsys.readouterr()
    command = ["verifier", *source, "--bundle", str(bundle), "--run-dir", str(tmp_path / "run")]
    assert main([*command, "--max-int8-loss", "1"]) == 0
    said = json.loads(capsys.readouterr().out)
    manifest = read_manifest(bundle)
    assert said["model_id"] == manifest.model_id != plain.model_id
    assert said["score"]["uap"] > said["cosine"]["uap"]
    for read in (read_calibration, read_score_calibration):
        assert read(bundle, manifest.model_id).n_true > 0
    verifier = load_verifier(bundle)
    assert verifier is not None
    alike, apart = describe(draw_garment(900, (64, 64))), describe(draw_garment(901, (64, 64)))
    assert verifier.answer(alike, alike) > verifier.answer(alike, apart)
    # Evaluated on the views that its quality was measured on, it is as good as it said.
    assert main(["evaluate", *source, "--bundle", str(bundle)]) == 0
    figures = json.loads(capsys.readouterr().out)
    for by, found in (("cosine", figures), ("score", figures["verified"])):
        assert found["trained_kinds"]["all"]["uap"] == pytest.approx(said[by]["uap"])
    # The same run directory holds a finished training now.
    assert main(command) == 2
    assert "--resume" in capsys.readouterr().err
