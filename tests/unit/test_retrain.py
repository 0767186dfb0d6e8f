"""The champion trained on, killed on the way, and promoted only if it is no worse."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dedup_job.errors import ConfigError
from dedup_job.io.bundles import locate_bundle
from dedup_job.kernels.bundle import read_manifest
from model_training.cli import main
from model_training.config import load_config
from model_training.retrain import FINE_TUNE, fine_tune_config
from model_training.work_dir import claimed, clear
from tests.broken_bundles import DEFAULT, copy_bundle, rehash
from tests.photos_for_training import write_pairs

TINY = {"input_px": 32, "width": 0.125, "dim": 16, "attention_stages": [3]}
BATCHES = {"photos_per_batch": 4, "warmup_steps": 5, "checkpoint_every_s": 0.2, "labelled_share": 1}


def test_the_network_is_the_champions_and_the_training_the_experiments():
    config = fine_tune_config(read_manifest(DEFAULT), load_config(FINE_TUNE))
    known = read_manifest(DEFAULT).raw["training"]["config"]["network"]
    assert (config.network.width, config.network.dim) == (known["width"], known["dim"])
    assert config.network.attention_stages == tuple(known["attention_stages"])
    assert config.network.freeze_until == "conv3_block4_out" and not config.network.erasure
    assert config.training == load_config(FINE_TUNE).training


def test_a_champion_of_unknown_shape_is_explained(tmp_path):
    bundle = copy_bundle(tmp_path)
    rehash(bundle)  # leaves out how it was trained
    with pytest.raises(ConfigError, match="does not describe its network"):
        fine_tune_config(read_manifest(bundle), load_config(None))


def test_decisions_need_a_warehouse(tmp_path, capsys):
    pytest.importorskip("keras")
    options = ["--decisions", "d.csv", "--registry", str(tmp_path / "r")]
    assert main(["retrain", *options]) == 2
    assert "--decisions and --warehouse go together" in capsys.readouterr().err


def test_a_directory_of_other_things_is_not_worked_in(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"holds thesis\.txt"), claimed(tmp_path):
        pass
    clear(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_two_retrainings_do_not_share_a_directory(tmp_path):
    work = tmp_path / "work"
    with claimed(work):
        with pytest.raises(ConfigError, match="another retraining"), claimed(work):
            pass
        (work / "candidate").mkdir()
    with claimed(work):
        clear(work)
    assert not work.exists()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Options that name pairs of photos, and a champion that has hardly learned."""
    folder = tmp_path_factory.mktemp("retrain")
    options = [*write_pairs(folder), "--cache-dir", str(folder / "cache"), "--max-int8-loss", "1"]
    first = {"network": TINY, "training": {**BATCHES, "views": 32}}
    (folder / "first.yaml").write_text(json.dumps(first))
    champion = folder / "champion"
    config = ["--config", str(folder / "first.yaml")]
    assert main(["train", *options, *config, "--out", str(champion)]) == 0
    return options, champion


def experiment(folder: Path, **training: float) -> list[str]:
    path = folder / "fine.yaml"
    path.write_text(json.dumps({"training": {**BATCHES, **training}}))
    return ["--config", str(path)]


@pytest.mark.training
@pytest.mark.slow
def test_a_killed_retraining_goes_on_and_what_harms_is_refused(shop, tmp_path):
    options, champion = shop
    registry = tmp_path / "registry"
    command = [
        sys.executable, "-m", "model_training", "retrain", *options, "--champion", str(champion),
        *experiment(tmp_path, views=1600), "--registry", str(registry), "--margin", "1",
    ]  # fmt: skip
    checkpoint = registry / "work/run/checkpoint.npz"
    first = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while not checkpoint.is_file() and time.monotonic() < deadline:
        assert first.poll() is None
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    with np.load(checkpoint) as state:
        before = json.loads(str(state["meta"]))["progress"]
    assert 0 < before["views"] < 1600
    old = locate_bundle(str(registry))
    assert read_manifest(old).files == read_manifest(champion).files
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    verdict = json.loads(done.stdout)
    assert verdict["difference"] > 0
    new = locate_bundle(str(registry))
    assert new.name == verdict["promoted"] != old.name and not (registry / "work").exists()
    assert len((registry / "trained.txt").read_text().split()) > 100
    progress = read_manifest(new).raw["training"]
    assert progress["views"] == 1600
    assert 0 < progress["step"] == 1600 // 16
    # It went on: steps of the log after the kill begin where the checkpoint was.
    steps = [
        int(line.split("step=")[1].split()[0])
        for line in done.stderr.splitlines()
        if " loss=" in line
    ]
    assert steps and min(steps) > before["step"]
    # What harms is refused: the champion stays.
    harmful = [*command, *experiment(tmp_path, views=160, learning_rate=0.3), "--margin", "0.02"]
    refused = subprocess.run(harmful, capture_output=True, text=True)
    last = refused.stderr.splitlines()[-1]
    assert refused.returncode == 3 and ("not promoted" in last or "tells nothing apart" in last)
    assert locate_bundle(str(registry)) == new
    assert sorted(p.name[:5] for p in (registry / "versions").iterdir()) == ["0001-", "0002-"]
