"""The training loop: backend-independent Keras, safe against pauses, kills and bad numbers.

The loss sees one batch as a whole, so `y_true` carries (identity, product) of every view. Progress
follows computing time, not the clock: a step counts for at most `_MAX_STEP_S`, so that a paused
process does not jump its schedule. With `finish_at` the remaining clock time stretches the schedule.
"""

import csv
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from dedup_job.errors import ConfigError, DedupError
from dedup_job.kernels.images import Pixels, fit
from model_training.backbone import load_backbone
from model_training.batches import Batch, BatchProcess
from model_training.config import (
    ExperimentConfig,
    LossConfig,
    TrainingConfig,
    VerifierConfig,
    changed_setting,
)
from model_training.data import PhotoSet
from model_training.fused import fuse_batch_norm
from model_training.losses import contrastive_loss, differential_entropy, triplet_loss
from model_training.network import build_network, copy_weights
from model_training.watchers import Watcher

CHECKPOINT = "checkpoint.npz"
_MAX_STEP_S = 15.0
_EMA_EVERY = 4
_SNAPSHOT_EVERY = 100
_MAX_FAILURES = 5
_N_NEIGHBOURS = 12
_LOG_COLUMNS = ("step", "views", "spent_s", "progress", "learning_rate", "loss", "views_per_s")


@dataclass(frozen=True)
class Progress:
    """How far a training is. `spent_s` is computing time in seconds."""

    step: int = 0
    views: int = 0
    spent_s: float = 0.0


def learning_rate(config: TrainingConfig | VerifierConfig, step: int, progress: float) -> float:
    """Linear warm-up by steps, then cosine to 1 % by progress (0 to 1)."""
    warm = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    cosine = 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
    return config.learning_rate * warm * (0.01 + 0.99 * cosine)


def measure_progress(done: Progress, views: int, finish_at: float | None, now: float) -> float:
    """Share of the training that is done, 0 to 1.

    Args:
        done: what was done.
        views: the views budget, used without `finish_at`.
        finish_at: end as seconds since the epoch: the share is spent / (spent + time left).
        now: seconds since the epoch.
    """
    if finish_at is None:
        return min(1.0, done.views / views)
    left = max(finish_at - now, 0.0)
    return done.spent_s / max(done.spent_s + left, 1e-9) if left > 0 else 1.0


def make_loss(config: LossConfig) -> Callable[[Any, Any], Any]:
    """The configured loss as Keras calls it: y_true (n, 2) of identity and product."""

    def loss(y_true: Any, vectors: Any) -> Any:
        identity, product = y_true[:, 0], y_true[:, 1]
        if config.kind == "triplet":
            total = triplet_loss(vectors, identity, product, config.margin)
        else:
            total = contrastive_loss(vectors, identity, product, config.temperature)
        if config.entropy_weight:
            spread = differential_entropy(vectors, identity, product)
            total = total + config.entropy_weight * spread
        return total

    return loss


class Trainer:
    """Holds the trained network, its moving average, and the optimizer.

    Args:
        config: the experiment.
        run_dir: checkpoint and log go here.
        resume: continue from the checkpoint of `run_dir`.
        start: Keras model to take the weights of, in place of `backbone_weights`; see `starts`.
        earlier: the trainings behind `start`, see `starts.trainings_behind`.

    Raises:
        ConfigError: nothing to resume, a checkpoint or start of another network, or unusable
            `backbone_weights`.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        run_dir: Path,
        *,
        resume: bool = False,
        start: Any = None,
        earlier: Sequence[dict[str, Any]] = (),
    ) -> None:
        network = config.network
        is_random = network.backbone_weights == "none" and start is None and not resume
        if network.freeze_until and is_random:
            raise ConfigError(
                f"network.freeze_until is {network.freeze_until} and the layers below it are random: "
                "give --backbone-weights or --init-from, or leave freeze_until out"
            )
        keras.utils.set_random_seed(config.training.seed)
        self.config = config
        self.run_dir = run_dir
        self.earlier = list(earlier)
        precision = config.training.precision
        self.model = build_network(config.network, training=True, precision=precision)
        if start is not None:
            self._start_from(start)
        elif config.network.backbone_weights != "none" and not resume:
            load_backbone(self.model, config.network)
        self.average = build_network(config.network, training=False)
        copy_weights(self.model, self.average)
        self.progress = Progress()
        self._pairs = _pair_variables(self.model, self.average)
        self._optimizer = _make_optimizer(config.training)
        self._optimizer.build(self.model.trainable_variables)
        fuse_batch_norm(self.model)
        self.model.compile(
            optimizer=self._optimizer,
            loss=make_loss(config.loss),
            jit_compile=config.training.jit_compile,
        )
        self._failures = 0
        if resume:
            self._resume()
        self._snapshot = self._state()

    def step(self, batch: Batch, progress: float) -> float:
        """Train on one batch; a step with a non-finite loss is undone to the last snapshot.

        Raises:
            DedupError: the loss was not finite too often in a row.
        """
        done = self.progress
        self._optimizer.learning_rate = learning_rate(self.config.training, done.step, progress)
        labels = np.stack([_recode(batch.identity), _recode(batch.product)], axis=1)
        loss = float(self.model.train_on_batch(to_tensor(batch.views), labels))
        if not math.isfinite(loss):
            self._undo(loss)
            return loss
        self._failures = 0
        self.progress = replace(done, step=done.step + 1, views=done.views + len(batch.views))
        if self.progress.step % _EMA_EVERY == 0:
            self._update_average()
        if self.progress.step % _SNAPSHOT_EVERY == 0:
            self._snapshot = self._state()
        return loss

    def add_time(self, seconds: float) -> None:
        """Count computing time, at most `_MAX_STEP_S` a call: the process may have been paused."""
        spent = self.progress.spent_s + min(seconds, _MAX_STEP_S)
        self.progress = replace(self.progress, spent_s=spent)

    def embed(self, views: np.ndarray, batch_size: int = 128) -> np.ndarray:
        """Embed uint8 (n, size, size, 3) with the averaged weights; float32 (n, dim), unit rows."""
        return predict_in_batches(self.average, views, batch_size)

    def save(self) -> None:
        """Write the checkpoint; a kill at any time leaves the old or the new one."""
        temporary = self.run_dir / "checkpoint.tmp.npz"
        meta = {
            "progress": asdict(self.progress),
            "config": self.config.model_dump(mode="json"),
            "earlier": self.earlier,
        }
        arrays: dict[str, Any] = {"meta": np.array(json.dumps(meta)), **self._state()}
        np.savez(temporary, **arrays)
        temporary.replace(self.run_dir / CHECKPOINT)

    def _start_from(self, network: Any) -> None:
        try:
            copy_weights(network, self.model)
        except (ConfigError, ValueError):
            raise ConfigError(
                "the network to start from is another one: its width, dim, attention and "
                "pooling must be those of the experiment"
            ) from None

    def _resume(self) -> None:
        path = self.run_dir / CHECKPOINT
        if not path.is_file():
            raise ConfigError(f"--resume: {path} does not exist; start without --resume")
        with np.load(path, allow_pickle=False) as state:
            meta = json.loads(str(state["meta"]))
            # Read as settings: an older checkpoint lacks those that were added since.
            changed = changed_setting(ExperimentConfig.model_validate(meta["config"]), self.config)
            if changed:
                raise ConfigError(
                    f"--resume: {path} was trained with {changed}; give the --config and options it began with"
                )
            self._restore({k: state[k] for k in state.files if k != "meta"})
        self.progress = Progress(**meta["progress"])
        self.earlier = meta.get("earlier", [])

    def _variables(self) -> dict[str, Any]:
        groups = {"model": self.model.weights, "average": self.average.weights,
                  "optimizer": self._optimizer.variables}  # fmt: skip
        return {f"{g}_{i}": v for g, variables in groups.items() for i, v in enumerate(variables)}

    def _state(self) -> dict[str, np.ndarray]:
        return {k: ops.convert_to_numpy(v) for k, v in self._variables().items()}

    def _restore(self, state: dict[str, np.ndarray]) -> None:
        for name, variable in self._variables().items():
            variable.assign(state[name])

    def _undo(self, loss: float) -> None:
        self._failures += 1
        if self._failures > _MAX_FAILURES:
            raise DedupError(
                f"the loss was {loss} {self._failures} times in a row; lower training.learning_rate"
            )
        self._restore(self._snapshot)

    def _update_average(self) -> None:
        step = self.progress.step
        decay = min(self.config.training.ema_decay, (1 + step) / (10 + step)) ** _EMA_EVERY
        for source, target in self._pairs:
            target.assign(target * decay + source * (1 - decay))


def run_training(
    trainer: Trainer,
    photos: PhotoSet,
    *,
    finish_at: float | None = None,
    validate: Callable[[Trainer], dict[str, float]] | None = None,
    report: Callable[[str], None] = print,
    watcher: Watcher = Watcher(),
) -> None:
    """Train until the budget is spent, with checkpoints, mining, validation and a CSV log.

    Args:
        trainer: fresh or resumed.
        photos: training photos only.
        finish_at: end by the clock (seconds since the epoch) instead of by `training.views`.
        validate: called every `validate_every_s` of computing time and at the end.
        report: receives one line a report.
        watcher: is told of the start, every step, every report and validation.
    """
    config = trainer.config.training
    trainer.run_dir.mkdir(parents=True, exist_ok=True)
    total = config.views if finish_at is None else None
    watcher.on_start(trainer.config, trainer.run_dir, trainer.progress.views, total)
    seed = config.seed + trainer.progress.step
    originals = _fit_all(photos, trainer.config)
    timer = _Timer(saved=time.monotonic(), validated=trainer.progress.spent_s)
    with BatchProcess(photos, trainer.config, seed) as batches:
        # A resumed training has lost its neighbours: it mines before its first step.
        mining_is_due = trainer.progress.step >= config.mine_after_steps
        while True:
            share = measure_progress(trainer.progress, config.views, finish_at, time.time())
            if share >= 1.0:
                break
            if mining_is_due:
                batches.set_neighbours(find_neighbours(trainer.embed(originals), photos))
            _train_one(trainer, batches, share, timer, report, watcher)
            mining_is_due = _mining_is_due(trainer.progress.step, config)
            if time.monotonic() - timer.saved > config.checkpoint_every_s:
                trainer.save()
                timer.saved = time.monotonic()
            if validate and trainer.progress.spent_s - timer.validated > config.validate_every_s:
                _validate(trainer, validate, report, watcher)
                timer.validated = trainer.progress.spent_s
    trainer.save()
    if validate:
        _validate(trainer, validate, report, watcher)


def find_neighbours(vectors: np.ndarray, photos: PhotoSet, k: int = _N_NEIGHBOURS) -> np.ndarray:
    """The k most similar photos of other products, nearest first: int32 (n, k)."""
    products = np.unique([p.product for p in photos.photos], return_inverse=True)[1]
    k = min(k, len(vectors) - 1)
    rows = []
    for start in range(0, len(vectors), 512):
        cosine = vectors[start : start + 512] @ vectors.T
        cosine[products[start : start + 512, None] == products[None, :]] = -2
        rows.append(np.argsort(-cosine, axis=1)[:, :k])
    return np.concatenate(rows).astype(np.int32)


def predict_in_batches(model: Any, views: np.ndarray, batch_size: int = 128) -> np.ndarray:
    """What a Keras model says of uint8 (n, ...): float32 (n, d), in fixed batches (one traced shape)."""
    rows = []
    for start in range(0, len(views), batch_size):
        chunk = views[start : start + batch_size]
        padding = np.zeros((batch_size - len(chunk), *chunk.shape[1:]), np.uint8)
        out = model.predict_on_batch(to_tensor(np.concatenate([chunk, padding])))
        rows.append(np.asarray(out)[: len(chunk)])
    return np.concatenate(rows).astype(np.float32)


def to_tensor(pixels: Pixels) -> Any:
    """Pixels as the networks take them, float32 of the same shape; they travel to an accelerator as bytes."""
    return ops.cast(ops.convert_to_tensor(pixels), "float32")


@dataclass
class _Timer:
    saved: float
    validated: float
    losses: float = 0.0
    steps: int = 0
    since: float = 0.0


def _train_one(
    trainer: Trainer,
    batches: BatchProcess,
    share: float,
    timer: _Timer,
    report: Callable[[str], None],
    watcher: Watcher,
) -> None:
    start = time.monotonic()
    loss = trainer.step(batches.draw(), share)
    watcher.on_step(trainer.progress.views, loss)
    seconds = time.monotonic() - start
    trainer.add_time(seconds)
    timer.losses, timer.steps = timer.losses + loss, timer.steps + 1
    timer.since += min(seconds, _MAX_STEP_S)
    if timer.steps == 20:
        done = trainer.progress
        speed = 20 * done.views / max(done.step, 1) / max(timer.since, 1e-9)
        rate = learning_rate(trainer.config.training, done.step, share)
        row: tuple[Any, ...] = (done.step, done.views, round(done.spent_s, 1), round(share, 4), f"{rate:.3g}",
               round(timer.losses / 20, 4), round(speed, 1))  # fmt: skip
        _append_csv(trainer.run_dir / "log.csv", _LOG_COLUMNS, row)
        figures = dict(zip(_LOG_COLUMNS, row, strict=True))
        report(" ".join(f"{k}={v}" for k, v in figures.items()))
        watcher.on_figures("train", done.step, {k: float(v) for k, v in figures.items()})
        timer.losses, timer.steps, timer.since = 0.0, 0, 0.0


def _validate(
    trainer: Trainer,
    validate: Callable[[Trainer], dict[str, float]],
    report: Callable[[str], None],
    watcher: Watcher,
) -> None:
    measured = validate(trainer)
    figures = {"step": trainer.progress.step, "views": trainer.progress.views, **measured}
    _append_csv(trainer.run_dir / "validation.csv", tuple(figures), tuple(figures.values()))
    report("validation " + " ".join(f"{k}={v:.4g}" for k, v in figures.items()))
    watcher.on_figures("validation", trainer.progress.step, measured)


def _mining_is_due(step: int, config: TrainingConfig) -> bool:
    after = step - config.mine_after_steps
    return after >= 0 and after % config.mine_every_steps == 0


def _fit_all(photos: PhotoSet, config: ExperimentConfig) -> np.ndarray:
    network = config.network
    return np.stack([fit(p, network.input_px, network.blur_sigma_px) for p in photos.pixels])


def _make_optimizer(config: TrainingConfig) -> Any:
    optimizer = keras.optimizers.AdamW(
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        global_clipnorm=config.clip_norm,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _pair_variables(source: Any, target: Any) -> list[tuple[Any, Any]]:
    pairs = []
    for layer in target.layers:
        # A mean of equal numbers is not always that number: what is frozen is not averaged.
        if layer.weights and layer.trainable:
            pairs += list(zip(source.get_layer(layer.name).weights, layer.weights, strict=True))
    return pairs


def _recode(labels: np.ndarray) -> np.ndarray:
    # Keras casts y_true to float32, exact for small whole numbers only.
    return np.unique(labels, return_inverse=True)[1].astype(np.float32)


def _append_csv(path: Path, columns: tuple[str, ...], row: tuple[Any, ...]) -> None:
    new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        if new:
            writer.writerow(columns)
        writer.writerow(row)
