"""Train the pair verifier on pairs drawn as it goes.

Drawing a pair costs more than learning from it once, so each is learned from a few times: a reservoir holds the
last ones drawn, and batches are drawn from it. Nine in ten are soon easy: a part of every batch is drawn by the
loss that a frame had when it came in (online hard example mining, Shrivastava et al. 2016, section 4).
"""

import contextlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from dedup_job.errors import ConfigError, DedupError
from dedup_job.kernels.images import Pixels
from dedup_job.kernels.model import load_keras_model
from model_training.config import ExperimentConfig, VerifierConfig
from model_training.data import PhotoSet
from model_training.fused import fuse_batch_norm
from model_training.train import (
    Progress,
    learning_rate,
    measure_progress,
    predict_in_batches,
    to_tensor,
)
from model_training.verifier_network import build_verifier, channels_of
from model_training.verifier_pairs import PAIRS_PER_PART, PairSet, draw_pairs

CHECKPOINT = "verifier.npz"
_REPORT_EVERY = 50
# Parts of a training that ends by the clock.
_NO_END = 10_000_000
_LARGEST_LOSS = 2.0
# A step counts for at most so long: a paused process must not jump its schedule. Waiting for pairs counts.
_MAX_STEP_S = 60.0


class Reservoir:
    """The last pairs drawn, frame by frame.

    Args:
        n_parts: how many parts it holds.
        hard_share: of the frames drawn, those drawn by their loss instead of evenly.
    """

    def __init__(self, n_parts: int, hard_share: float = 0.0) -> None:
        self._n_parts = n_parts
        self._hard_share = hard_share
        self._parts: list[tuple[PairSet, np.ndarray]] = []

    def add(self, part: PairSet, losses: np.ndarray) -> None:
        """Take in a part; the oldest one leaves where the reservoir is full.

        Args:
            part: n pairs.
            losses: float (n, 2), of both frames.
        """
        # What no one can tell must not fill the batches.
        weight = np.clip(losses, 1e-6, _LARGEST_LOSS).ravel().astype(np.float64)
        chance = self._hard_share * weight / weight.sum() + (1 - self._hard_share) / len(weight)
        self._parts = [*self._parts, (part, chance)][-self._n_parts :]

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Pixels, np.ndarray]:
        """Frames uint8 (n, size, size, PAIR_CHANNELS), and float32 (n,), 1 where one product."""
        frames, labels = [], []
        n_parts = len(self._parts)
        counts = rng.multinomial(n, np.full(n_parts, 1 / n_parts))
        for (part, chance), count in zip(self._parts, counts, strict=True):
            for row in rng.choice(len(chance), count, p=chance):
                frames.append(part.frames[row // 2, row % 2])
                labels.append(part.same[row // 2])
        return np.stack(frames), np.array(labels, np.float32)


@dataclass(frozen=True)
class Schedule:
    """How a training goes: `steps` in all, a new part of pairs every `steps_per_part`."""

    n_parts: int
    steps_per_part: int

    @property
    def steps(self) -> int:
        """Batches in all."""
        return self.n_parts * self.steps_per_part


def plan_schedule(config: VerifierConfig) -> Schedule:
    """Each frame of a pair is learned from `uses` times on average."""
    n_parts = max(1, -(-config.pairs // PAIRS_PER_PART))
    per_part = max(1, round(2 * PAIRS_PER_PART * config.uses / config.batch))
    return Schedule(n_parts, per_part)


class VerifierTrainer:
    """Holds the network, its moving average and its optimizer.

    Args:
        config: of the experiment.
        run_dir: the checkpoint lies here.
        resume: continue from it, if there is one.
        start: a `verifier.keras` to take the weights of.
        earlier: the trainings behind it, see `starts.verifier_trainings_behind`.

    Raises:
        ConfigError: the checkpoint, or `start`, is of another network.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        run_dir: Path,
        *,
        resume: bool = False,
        start: Path | None = None,
        earlier: Sequence[dict[str, Any]] = (),
    ) -> None:
        keras.utils.set_random_seed(config.training.seed)
        self.config = config
        self.schedule = plan_schedule(config.verifier)
        self.step = 0
        self.spent_s = 0.0
        self._run_dir = run_dir
        self.earlier = list(earlier)
        self.channels: tuple[int, ...] = config.verifier.channels
        precision = config.training.precision
        self.model = self._build(precision) if start is None else self._start_from(start, precision)
        self._optimizer = keras.optimizers.AdamW(
            weight_decay=config.training.weight_decay,
            global_clipnorm=config.training.clip_norm,
            use_ema=True,
            ema_momentum=config.verifier.ema_decay,
        )
        self._optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        self._optimizer.build(self.model.trainable_variables)
        fuse_batch_norm(self.model)
        self.model.compile(optimizer=self._optimizer, loss=vote_loss)
        if resume and (run_dir / CHECKPOINT).is_file():
            self._restore()

    def train_on(self, frames: Pixels, same: np.ndarray, share: float) -> float:
        """Learn from one batch; returns the loss.

        Args:
            frames: uint8 (n, size, size, PAIR_CHANNELS).
            same: float32 (n,), 1 where one product.
            share: of the training that is done, 0 to 1.

        Raises:
            DedupError: the loss is not finite.
        """
        self._optimizer.learning_rate = learning_rate(self.config.verifier, self.step, share)
        loss = float(self.model.train_on_batch(to_tensor(frames), same[:, None]))
        if not math.isfinite(loss):
            raise DedupError(f"the loss is {loss}; lower verifier.learning_rate")
        self.step += 1
        return loss

    @property
    def pairs(self) -> int:
        """Drawn so far."""
        return -(-self.step // self.schedule.steps_per_part) * PAIRS_PER_PART

    def share_done(self, finish_at: float | None) -> float:
        """Of the training, 0 to 1: by the schedule, or by the clock as `measure_progress` says."""
        if finish_at is None:
            return min(1.0, self.step / self.schedule.steps)
        return measure_progress(Progress(spent_s=self.spent_s), 1, finish_at, time.time())

    def losses_of(self, part: PairSet) -> np.ndarray:
        """What the network loses on each frame now, without learning: float (n, 2)."""
        frames = part.frames.reshape(-1, *part.frames.shape[2:])
        odds = predict_in_batches(self.model, frames).sum(axis=1)
        wrong = np.where(np.repeat(part.same, 2), -odds, odds)
        return np.logaddexp(0.0, wrong).reshape(-1, 2)

    def save(self) -> None:
        """Write the checkpoint; a kill at any time leaves the old or the new one."""
        self._run_dir.mkdir(parents=True, exist_ok=True)
        temporary = self._run_dir / "verifier.tmp.npz"
        state = {name: ops.convert_to_numpy(v) for name, v in self._variables().items()}
        np.savez(
            temporary,
            step=np.array(self.step),
            spent_s=np.array(self.spent_s),
            earlier=np.array(json.dumps(self.earlier)),
            **state,
        )
        temporary.replace(self._run_dir / CHECKPOINT)

    def finished(self) -> Any:
        """The network in float32 with the averaged weights."""
        network = self._build("float32")
        self._optimizer.finalize_variable_values(self.model.trainable_variables)
        network.set_weights(self.model.get_weights())
        return network

    def _build(self, precision: str) -> Any:
        return build_verifier(self.config.network.input_px, self.channels, precision)

    def _start_from(self, path: Path, precision: str) -> Any:
        network = load_keras_model(path)
        channels = channels_of(network)
        if len(channels) == len(self.channels):
            self.channels = channels
            model = self._build(precision)
            with contextlib.suppress(ValueError):  # of shapes
                model.set_weights(network.get_weights())
                return model
        raise ConfigError(
            f"{path} is another verifier than this version trains; train one anew with "
            "`model-training verifier`"
        )

    def _variables(self) -> dict[str, Any]:
        groups = {"model": self.model.weights, "optimizer": self._optimizer.variables}
        return {f"{g}_{i}": v for g, variables in groups.items() for i, v in enumerate(variables)}

    def _restore(self) -> None:
        path = self._run_dir / CHECKPOINT
        with np.load(path, allow_pickle=False) as state:
            try:
                for name, variable in self._variables().items():
                    variable.assign(state[name])
            except (KeyError, ValueError):
                raise ConfigError(
                    f"--resume: {path} is of another network; give the --config and --init-from it began with"
                ) from None
            self.step = int(state["step"])
            # Older checkpoints lack these.
            self.spent_s = float(state["spent_s"]) if "spent_s" in state else 0.0
            if "earlier" in state:
                self.earlier = json.loads(str(state["earlier"]))


def vote_loss(y_true: Any, votes: Any) -> Any:
    """Binary cross-entropy of the votes' sum."""
    log_odds = ops.sum(votes, axis=-1, keepdims=True)
    return keras.losses.binary_crossentropy(y_true, log_odds, from_logits=True)


def train_verifier(
    trainer: VerifierTrainer,
    photos: PhotoSet,
    neighbours: np.ndarray,
    *,
    finish_at: float | None = None,
    report: Callable[[str], None] = print,
) -> Any:
    """Train to the end of the schedule, with checkpoints; returns the network.

    Args:
        trainer: fresh or resumed.
        photos: training photos only.
        neighbours: int (n_photos, k), photos of other products that look most alike, nearest first.
        finish_at: end by the clock (seconds since the epoch) instead of by `verifier.pairs`.
        report: receives one line a report.

    Raises:
        DedupError: the loss was not finite.
    """
    config, plan = trainer.config, trainer.schedule
    rng = np.random.default_rng([config.training.seed, trainer.step])
    reservoir = Reservoir(config.verifier.reservoir_parts, config.verifier.hard_share)
    left = plan.n_parts - trainer.step // plan.steps_per_part if finish_at is None else _NO_END
    # A resumed training has lost its reservoir: it draws other pairs than it would have drawn.
    seed = config.training.seed + 7 * trainer.step
    saved = since = ended = time.monotonic()
    losses: list[float] = []
    for part in draw_pairs(
        photos, config, neighbours, left * PAIRS_PER_PART, seed, config.verifier.processes
    ):
        reservoir.add(part, trainer.losses_of(part))
        for _ in range(plan.steps_per_part):
            frames, same = reservoir.draw(rng, config.verifier.batch)
            losses.append(trainer.train_on(frames, same, trainer.share_done(finish_at)))
            trainer.spent_s += min(time.monotonic() - ended, _MAX_STEP_S)
            ended = time.monotonic()
            if trainer.step % _REPORT_EVERY == 0:
                speed = len(losses) * config.verifier.batch / (time.monotonic() - since)
                report(
                    f"verifier step {trainer.step}, {100 * trainer.share_done(finish_at):.0f} % done: "
                    f"loss {np.mean(losses):.4f}, {speed:.0f} frames/s"
                )
                since, losses = time.monotonic(), []
        if time.monotonic() - saved > config.training.checkpoint_every_s:
            trainer.save()
            saved = time.monotonic()
        if trainer.share_done(finish_at) >= 1.0:
            break
    trainer.save()
    return trainer.finished()
