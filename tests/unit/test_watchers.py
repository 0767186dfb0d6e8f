"""What is seen of a training from outside: the bar, TensorBoard's events, runs of MLflow."""
# ruff: noqa: E402 - skipped as a whole where TensorFlow is not installed

import io
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from dedup_job.errors import ConfigError, GateError
from model_training import cli, train
from model_training.batches import Batch
from model_training.cli import main
from model_training.config import ExperimentConfig
from model_training.tracking import MlflowRun, without_credentials
from model_training.train import Progress
from model_training.watchers import ProgressBar, TensorBoardLog, tell_of_bundle, watching
from tests.photos_for_training import write_pairs
from tests.unit.test_model_training import FakeBatches, photos_in_memory

TINY = {"input_px": 32, "width": 0.125, "dim": 16, "attention_stages": [3]}
CONFIG = ExperimentConfig.model_validate(
    {
        "network": TINY,
        "training": {"views": 352, "photos_per_batch": 4},  # 22 steps: one report
        "data_note": "Drawn shirts.",
    }
)


class CountingTrainer:
    """Counts steps where the real one trains."""

    config = CONFIG

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.progress = run_dir, Progress()

    def step(self, batch: Batch, progress: float) -> float:
        done = self.progress
        self.progress = replace(done, step=done.step + 1, views=done.views + len(batch.views))
        return 3.0 + self.progress.step / 10

    def add_time(self, seconds: float) -> None:
        pass

    def save(self) -> None:
        pass


def train_watched(run_dir: Path, *watchers: Any) -> None:
    trainer: Any = CountingTrainer(run_dir)
    with watching(watchers) as watcher:
        train.run_training(
            trainer,
            photos_in_memory(8),
            validate=lambda t: {"uap": 0.5 + t.progress.step / 100, "hard_auc": math.nan},
            report=lambda line: None,
            watcher=watcher,
        )
        tell_of_bundle(watcher, "abc123", trainer.progress.step, {"int8": {"uap": 0.625}})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("show", "stream", "expected"),
    [
        ("auto", Terminal, True),
        ("auto", io.StringIO, False),
        ("on", io.StringIO, True),
        ("off", Terminal, False),
    ],
)
def test_the_bar_is_for_terminals_unless_asked_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    show: str,
    stream: type[io.StringIO],
    expected: bool,
) -> None:
    seen = stream()
    monkeypatch.setattr(sys, "stderr", seen)
    bar = ProgressBar(show)
    bar.on_start(CONFIG, tmp_path, 16, 48)
    bar.on_step(32, 1.25)
    bar.on_step(48, 1.0)
    bar.close(None)
    text = seen.getvalue()
    assert ("48/48" in text and "views" in text and "loss=1.000" in text) is expected
    assert bool(text) is expected


def test_tensorboard_events_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "BatchProcess", FakeBatches)
    train_watched(tmp_path / "run", TensorBoardLog(tmp_path / "new" / "tb"))
    (path,) = (tmp_path / "new" / "tb").iterdir()
    assert path.name.startswith("events.out.tfevents")
    scalars: dict[str, dict[int, float]] = {}
    for record in tf.data.TFRecordDataset(str(path)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "scalars"
            scalars.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    assert scalars["train/loss"] == {20: pytest.approx(4.05)}  # the mean of 3.1 to 5.0
    assert scalars["train/views"] == {20: 320.0}
    assert scalars["validation/uap"] == {22: pytest.approx(0.72)}
    assert scalars["quality/int8/uap"] == {22: 0.625}


def test_a_place_that_tensorboard_cannot_write_to_is_told_early(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    options = ["--out", str(tmp_path / "b"), "--tensorboard", str(tmp_path / "file" / "tb")]
    assert main(["train", *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--tensorboard" in error and "cannot be written" in error


@pytest.fixture
def mlflow_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What MLflow makes beside a database (./mlruns) lands in the test's folder."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "shirts")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def store(tmp_path: Path, mlflow_here: None) -> tuple[str, Any]:
    """A database of MLflow, and a client that reads it."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    return uri, MlflowClient(tracking_uri=uri)


def runs_of(client: Any) -> list[Any]:
    experiment = client.get_experiment_by_name("shirts")
    return client.search_runs([experiment.experiment_id], order_by=["start_time ASC"])


def tell_of_a_training(run_dir: Path, watcher: MlflowRun, views: int = 0) -> None:
    run_dir.mkdir(exist_ok=True)
    with watching([watcher]) as told:
        told.on_start(CONFIG, run_dir, views, 352)
        if views < 352:
            told.on_figures("train", 20, {"loss": 3.5})
        told.on_figures("validation", 22, {"uap": 0.72, "hard_auc": math.nan})
        tell_of_bundle(told, "abc123", 22, {"int8": {"uap": 0.625}})


def test_a_training_becomes_a_run_of_mlflow(tmp_path: Path, store: tuple[str, Any]) -> None:
    uri, client = store
    tell_of_a_training(tmp_path / "first", MlflowRun(uri, "model-training train --x"))
    (run,) = runs_of(client)
    assert run.info.status == "FINISHED" and run.info.run_name == "first"
    assert run.data.params["network.width"] == "0.125"
    assert run.data.params["loss.kind"] == "contrastive"
    assert run.data.tags["command"] == "model-training train --x"
    assert run.data.tags["mlflow.note.content"] == "Drawn shirts."
    assert run.data.tags["model_id"] == "abc123"
    assert run.data.metrics["quality/int8/uap"] == 0.625
    assert "validation/hard_auc" not in run.data.metrics  # not a number
    # Resumed at its end, it validates once more: in the same run.
    tell_of_a_training(tmp_path / "first", MlflowRun(uri, "again"), views=352)
    (again,) = runs_of(client)
    assert again.data.tags["command"] == "model-training train --x"
    history = client.get_metric_history(again.info.run_id, "validation/uap")
    assert [(m.step, m.value) for m in history] == [(22, pytest.approx(0.72))] * 2
    assert [m.step for m in client.get_metric_history(again.info.run_id, "train/loss")] == [20]
    # A new training in the same directory is another run.
    tell_of_a_training(tmp_path / "first", MlflowRun(uri, "new"))
    assert len(runs_of(client)) == 2


def test_a_training_that_fails_is_a_failed_run(tmp_path: Path, store: tuple[str, Any]) -> None:
    uri, client = store

    def fail(error: BaseException) -> None:
        with pytest.raises(type(error)), watching([MlflowRun(uri, "x")]) as watcher:
            watcher.on_start(CONFIG, tmp_path, 0, None)
            raise error

    fail(GateError("not promoted: the candidate is worse"))
    fail(KeyboardInterrupt())
    failed, killed = runs_of(client)
    assert failed.info.status == "FAILED" and killed.info.status == "KILLED"
    assert failed.data.tags["error"] == "not promoted: the candidate is worse"


def test_a_store_that_fails_later_does_not_stop_the_training(
    tmp_path: Path, store: tuple[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow.exceptions import MlflowException

    watcher = MlflowRun(store[0], "x")
    watcher.on_start(CONFIG, tmp_path, 0, None)

    asked = []

    def refuse(*_: object, **__: object) -> None:
        asked.append(1)
        raise MlflowException("the server is away")

    works, watcher._client.log_batch = watcher._client.log_batch, refuse
    watcher.on_figures("train", 20, {"loss": 1.0})
    assert "the server is away (the training goes on)" in capsys.readouterr().err
    watcher.on_figures("train", 40, {"loss": 1.0})
    assert len(asked) == 1  # not asked again at once
    watcher._away_until = 0.0
    watcher._client.log_batch = works
    watcher.on_figures("train", 60, {"loss": 0.5})
    watcher.close(None)
    (run,) = runs_of(store[1])
    assert run.info.status == "FINISHED" and run.data.metrics["train/loss"] == 0.5


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("nonsense://x", "nonsense"),
        ("http://someone:secret@127.0.0.1:1", "127.0.0.1"),
        ("sqlite:////proc/none/mlflow.db", "No such file or directory"),
    ],
)
def test_an_unusable_store_is_one_line_before_the_training(
    mlflow_here: None, monkeypatch: pytest.MonkeyPatch, uri: str, said: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConfigError) as caught:
        MlflowRun(uri, "x")
    message = str(caught.value)
    assert message.startswith("--mlflow-uri ") and said in message and "\n" not in message
    assert "secret" not in message


def test_a_password_in_a_uri_reaches_no_model_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []
    monkeypatch.setattr(cli, "_train", lambda options: commands.append(options.command_line))
    main(["train", "--mlflow-uri", "https://me:pass@host/x", "--mlflow-uri=http://a:b@c?token=d"])
    assert commands == ["model-training train --mlflow-uri https://host/x --mlflow-uri=http://c"]
    assert without_credentials("photos/a@b.jpg and 3//4@5") == "photos/a@b.jpg and 3//4@5"


@pytest.mark.parametrize("missing", ["mlflow", "alembic"])
def test_without_the_extra_its_name_is_told(tmp_path: Path, missing: str) -> None:
    pytest.importorskip("mlflow")
    code = (
        "import sys; sys.modules[sys.argv[1]] = None\n"
        "from model_training.cli import main\n"
        "out = sys.argv[2]\n"
        "sys.exit(main(['train', '--photos', out, '--out', out + '/b', "
        "'--mlflow-uri', 'sqlite:///' + out + '/m.db']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, missing, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert f"{missing} is not installed: pip install 'catalog-dedup[mlflow]'" in last


@pytest.mark.training
@pytest.mark.slow
def test_train_and_retrain_as_a_user_watches_them(
    tmp_path: Path, store: tuple[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    uri, client = store
    batches = {"photos_per_batch": 4, "warmup_steps": 5, "views": 352}
    (tmp_path / "tiny.yaml").write_text(json.dumps({"network": TINY, "training": batches}))
    common = [
        *write_pairs(tmp_path), "--cache-dir", str(tmp_path / "cache"), "--max-int8-loss", "1",
        "--config", str(tmp_path / "tiny.yaml"), "--mlflow-uri", uri, "--progress", "on",
    ]  # fmt: skip
    board = ["--tensorboard", str(tmp_path / "tb")]
    assert main(["train", *common, *board, "--out", str(tmp_path / "bundle")]) == 0
    text = capfd.readouterr()
    assert "352/352" in text.err and "validation step=22" in text.err
    assert len(list((tmp_path / "tb").iterdir())) == 1
    champion = ["--champion", str(tmp_path / "bundle"), "--registry", str(tmp_path / "registry")]
    code = main(["retrain", *common, *champion, "--margin", "1"])
    trained, retrained = runs_of(client)
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert trained.data.tags["model_id"] == manifest["model_id"]
    assert trained.data.metrics["quality/int8/uap"] == manifest["quality"]["int8"]["uap"]
    assert "--mlflow-uri" in trained.data.tags["command"]
    if code == 0:
        version = json.loads((tmp_path / "registry" / "champion.json").read_text())
        assert retrained.data.tags["promoted"] in json.dumps(version)
        assert "comparison/difference" in retrained.data.metrics
    else:
        assert code == 3 and "not promoted" in retrained.data.tags["error"]
    assert retrained.info.status == ("FINISHED" if code == 0 else "FAILED")
