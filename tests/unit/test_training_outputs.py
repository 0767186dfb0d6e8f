"""What a training may write over, and what it says before it starts."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dedup_job.errors import ConfigError
from model_training.cli import main
from model_training.outputs import (
    check_apart,
    check_out,
    check_same_photos,
    prepare_run_dir,
    put_in_place,
    staging_of,
)


def contents(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*")}


def test_a_directory_that_is_no_bundle_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"no manifest\.json: it is no bundle"):
        check_out(tmp_path / "photos")
    with pytest.raises(ConfigError, match="is a file"):
        check_out(tmp_path / "photos" / "a.jpg")
    assert contents(tmp_path) == {"photos", "photos/a.jpg"}


def test_new_empty_and_bundle_directories_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    for name in ("new/below", "empty", "bundle"):
        assert check_out(tmp_path / name) == tmp_path.resolve() / name
    assert contents(tmp_path) == {"empty", "bundle", "bundle/manifest.json"}


@pytest.mark.parametrize("out", [".", ".."])
def test_the_current_directory_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ConfigError, match="would replace the current directory"):
        check_out(Path(out))


def test_a_place_that_cannot_be_written_is_found_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="file is not a directory that can be written"):
        check_out(tmp_path / "file" / "bundle")
    # Root may write anywhere, so the answer of the system is replaced.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ConfigError, match=r"--out .* is not a directory that can be written"):
        check_out(tmp_path / "bundle")
    with pytest.raises(ConfigError, match=r"--run-dir .* is not a directory that can be written"):
        prepare_run_dir(tmp_path / "run", "checkpoint.npz", resume=False)


def test_a_bundle_replaces_a_bundle_and_nothing_beside_it(tmp_path: Path) -> None:
    for name in ("bundle", "bundle.old", "bundle.staging"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text(name)
    staging = staging_of(tmp_path / "bundle")
    (staging / "new").write_text("x")
    put_in_place(staging, tmp_path / "bundle")
    assert contents(tmp_path) == {
        "bundle", "bundle/new", "bundle.old", "bundle.old/mine", "bundle.staging",
        "bundle.staging/mine",
    }  # fmt: skip


def test_another_run_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.npz").write_bytes(b"hours of work")
    with pytest.raises(ConfigError, match="continue it with --resume, or remove it"):
        prepare_run_dir(tmp_path, "checkpoint.npz", resume=False)
    prepare_run_dir(tmp_path, "checkpoint.npz", resume=True)
    assert (tmp_path / "checkpoint.npz").read_bytes() == b"hours of work"


def test_the_command_line_checks_before_it_reads_photos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("keras")
    (tmp_path / "b.run").mkdir()
    (tmp_path / "b.run" / "checkpoint.npz").write_bytes(b"x")
    photos = ["--photos", str(tmp_path / "none")]
    assert main(["train", *photos, "--out", str(tmp_path / "b")]) == 2
    assert "--resume, or remove it" in capsys.readouterr().err
    assert main(["export", *photos, "--run-dir", "r", "--out", str(tmp_path)]) == 2
    assert "it is no bundle" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["keras", "tensorflow"])
def test_a_missing_extra_is_one_line(tmp_path: Path, missing: str) -> None:
    code = (
        "import sys; sys.modules[sys.argv[1]] = None\n"
        "from model_training.cli import main\n"
        "sys.exit(main(['train', '--photos', sys.argv[2], '--out', sys.argv[2] + '/b']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, missing, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "pip install 'catalog-dedup[train]'" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("inside", [".", "run", "a/run"])
def test_a_run_does_not_lie_in_the_bundle_that_replaces_it(tmp_path: Path, inside: str) -> None:
    bundle = tmp_path / "bundle"
    with pytest.raises(
        ConfigError, match=r"--run-dir .* lies in --out .*; name a directory beside"
    ):
        check_apart(bundle / inside, bundle, "--out")
    check_apart(tmp_path / "bundle.run", bundle, "--out")


def test_a_run_goes_on_with_the_photos_it_began_with(tmp_path: Path) -> None:
    check_same_photos(tmp_path, "0b", begins=False)  # of an earlier version
    check_same_photos(tmp_path, "0a", begins=True)
    check_same_photos(tmp_path, "0a", begins=False)
    with pytest.raises(ConfigError, match="learned from other photos than these"):
        check_same_photos(tmp_path, "0b", begins=False)


@pytest.mark.parametrize("option", ["--out", "--photos", "--registry"])
def test_a_place_elsewhere_is_no_folder_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    command = "promote" if option == "--registry" else "train"
    with pytest.raises(SystemExit) as stopped:
        main([command, option, "s3://bucket/place"])
    assert stopped.value.code == 2
    assert f"{option}: s3://bucket/place is no local path" in capsys.readouterr().err
    assert contents(tmp_path) == set()


def test_a_verifier_that_was_never_begun_is_not_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/manifest.json").write_text("{}")
    bundle, run_dir = str(tmp_path / "bundle"), str(tmp_path / "run")
    assert main(["verifier", "--bundle", bundle, "--run-dir", run_dir, "--resume"]) == 2
    assert "--resume" in (said := capsys.readouterr().err) and "does not exist" in said


def test_bundles_need_tensorflow_and_say_so_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("keras.config.backend", lambda: "jax")
    assert main(["train", "--out", str(tmp_path / "b")]) == 2
    assert "KERAS_BACKEND is jax" in capsys.readouterr().err
    assert contents(tmp_path) == set()


def test_a_backend_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "model_training", "train", "--run-dir", str(tmp_path / "r")]
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr == "model-training: KERAS_BACKEND needs torch, which is not installed\n"


def test_a_full_disk_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "run/checkpoint.npz")

    monkeypatch.setattr("model_training.cli._train", fill)
    assert main(["train", "--out", "bundle"]) == 1
    said = capsys.readouterr().err
    assert said == "model-training: run/checkpoint.npz: No space left on device\n"
