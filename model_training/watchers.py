"""Who looks on while a network is trained: a progress bar, TensorBoard; MLflow is in `tracking.py`."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dedup_job.errors import ConfigError
from model_training.config import ExperimentConfig


class Watcher:
    """Is told what a training does. Every method here does nothing: override what is of interest."""

    def on_start(
        self, config: ExperimentConfig, run_dir: Path, views: int, total: int | None
    ) -> None:
        """A training begins, or goes on after `views` views.

        Args:
            config: the experiment.
            run_dir: where its checkpoint lies.
            views: done before, 0 for a new training.
            total: views it will have seen at its end; None if the clock ends it.
        """

    def on_step(self, views: int, loss: float) -> None:
        """A step was done: `views` seen so far, and this batch's loss."""

    def on_figures(self, group: str, step: int, figures: dict[str, float]) -> None:
        """Figures were measured.

        Args:
            group: `train` (means over the last steps, names as in `log.csv`), `validation` (as in
                `validation.csv`), `quality/int8` and the like (as in a bundle's manifest), or
                `comparison` (as in `promote.Comparison`).
            step: of the training.
            figures: by name; some may be NaN.
        """

    def on_fact(self, name: str, value: str) -> None:
        """Something is known now, such as the `model_id` of a bundle."""

    def close(self, error: BaseException | None) -> None:
        """The command ends, with this error or with none."""


class Watchers(Watcher):
    """Several watchers told as one."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = watchers

    def on_start(
        self, config: ExperimentConfig, run_dir: Path, views: int, total: int | None
    ) -> None:
        """See `Watcher`."""
        self._tell(lambda w: w.on_start(config, run_dir, views, total))

    def on_step(self, views: int, loss: float) -> None:
        """See `Watcher`."""
        self._tell(lambda w: w.on_step(views, loss))

    def on_figures(self, group: str, step: int, figures: dict[str, float]) -> None:
        """See `Watcher`."""
        self._tell(lambda w: w.on_figures(group, step, figures))

    def on_fact(self, name: str, value: str) -> None:
        """See `Watcher`."""
        self._tell(lambda w: w.on_fact(name, value))

    def close(self, error: BaseException | None) -> None:
        """See `Watcher`."""
        self._tell(lambda w: w.close(error))

    def _tell(self, what: Callable[[Watcher], None]) -> None:
        for watcher in self._watchers:
            what(watcher)


class ProgressBar(Watcher):
    """A bar on stderr.

    Args:
        show: "on", "off", or "auto": only where stderr is a terminal.
    """

    def __init__(self, show: str = "auto") -> None:
        self._disable = {"on": False, "off": True}.get(show)
        self._bar: Any = None

    def on_start(
        self, config: ExperimentConfig, run_dir: Path, views: int, total: int | None
    ) -> None:
        """Open the bar; without a total it shows count and speed only."""
        self._bar = tqdm(
            total=total,
            initial=views,
            unit=" views",
            file=sys.stderr,
            disable=self._disable,
            dynamic_ncols=True,
        )

    def on_step(self, views: int, loss: float) -> None:
        """Move it."""
        self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self._bar.update(views - self._bar.n)

    def on_fact(self, name: str, value: str) -> None:
        """Leave it as it stands: the training is over."""
        self.close(None)

    def close(self, error: BaseException | None) -> None:
        """Leave it as it stands."""
        if self._bar is not None:
            self._bar.close()


class TensorBoardLog(Watcher):
    """Scalars for TensorBoard's dashboard: `train/loss`, `validation/uap`, ... over steps.

    Written by TensorFlow itself; the package `tensorboard` is needed to look at them only.

    Args:
        directory: gets an events file; made if it is missing.

    Raises:
        ConfigError: it cannot be written to.
    """

    def __init__(self, directory: Path) -> None:
        import tensorflow as tf

        metadata = tf.compat.v1.SummaryMetadata()
        metadata.plugin_data.plugin_name = "scalars"
        metadata.data_class = 1  # DATA_CLASS_SCALAR of TensorBoard's summary.proto
        self._tf, self._metadata = tf, metadata
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._writer = tf.summary.create_file_writer(str(directory))
        except (OSError, tf.errors.OpError) as error:
            why = error.strerror if isinstance(error, OSError) else error.message
            raise ConfigError(f"--tensorboard {directory} cannot be written: {why}") from None

    def on_figures(self, group: str, step: int, figures: dict[str, float]) -> None:
        """Write them as `group/name`."""
        with self._writer.as_default():
            for name, value in figures.items():
                scalar = self._tf.constant(value, self._tf.float32)
                self._tf.summary.write(f"{group}/{name}", scalar, step, self._metadata)
        self._writer.flush()

    def close(self, error: BaseException | None) -> None:
        """Close the file."""
        self._writer.close()


@contextlib.contextmanager
def watching(watchers: Sequence[Watcher]) -> Iterator[Watcher]:
    """All of them as one, closed at the end with the error that ended the block, if any."""
    together = Watchers(watchers)
    try:
        yield together
    except BaseException as error:
        together.close(error)
        raise
    together.close(None)


def tell_of_bundle(watcher: Watcher, model_id: str, step: int, quality: dict[str, Any]) -> None:
    """A bundle was written; `quality` as in its manifest."""
    for name, figures in quality.items():
        watcher.on_figures(f"quality/{name}", step, figures)
    watcher.on_fact("model_id", model_id)
