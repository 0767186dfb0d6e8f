"""Model versions, the pointer to one of them, and the job that follows it."""

import json
import shutil

import pytest

from dedup_job.errors import ConfigError
from dedup_job.io.bundles import locate_bundle
from dedup_job.kernels.bundle import CALIBRATION, read_manifest
from model_training.cli import main
from model_training.registry import Registry
from tests.broken_bundles import DEFAULT, copy_bundle, rehash


@pytest.fixture
def other(tmp_path):
    """A bundle of the same network with another calibration file."""
    bundle = copy_bundle(tmp_path)
    text = (bundle / CALIBRATION).read_text()
    (bundle / CALIBRATION).write_text(text + "\n")
    rehash(bundle)
    return bundle


def test_the_job_follows_the_champion_forth_and_back(tmp_path, other, capsys):
    root = tmp_path / "registry"
    registry = Registry(root)
    assert registry.champion is None and registry.versions() == []
    digits = read_manifest(DEFAULT).model_id[:12]
    first = registry.open()
    assert first.name == f"0001-{digits}" and registry.open(other) == first
    assert read_manifest(first).files == read_manifest(DEFAULT).files
    second = registry.add(other)
    assert registry.versions() == [first.name, second] == [f"0001-{digits}", f"0002-{digits}"]
    assert locate_bundle(str(root)) == registry.champion == first
    registry.point_at(second, {"why": "test"})
    assert locate_bundle(str(root)) == registry.champion == root / "versions" / second
    assert read_manifest(registry.champion).files == read_manifest(other).files
    assert main(["promote", "--registry", str(root), "--rollback"]) == 0
    assert json.loads(capsys.readouterr().out) == {"promoted": first.name}
    assert locate_bundle(str(root)) == first
    history = [json.loads(line) for line in (root / "history.jsonl").read_text().splitlines()]
    assert [(h["version"], h["previous"]) for h in history] == [
        (first.name, None), (second, first.name), (first.name, second),
    ]  # fmt: skip


def test_every_rollback_goes_one_step_further_back(tmp_path, other):
    registry = Registry(tmp_path / "r")
    versions = [registry.add(DEFAULT), registry.add(other)]
    (other / CALIBRATION).write_text((other / CALIBRATION).read_text() + "\n")
    rehash(other)
    versions.append(registry.add(other))
    for version in versions:
        registry.point_at(version, {})
    assert [registry.roll_back(), registry.roll_back()] == versions[1::-1]
    with pytest.raises(ConfigError, match="no earlier champion"):
        registry.roll_back()
    registry.point_at(versions[2], {})
    assert registry.roll_back() == versions[0]


def test_a_broken_pointer_is_mended_by_naming_a_version(tmp_path, other, capsys):
    root = tmp_path / "r"
    registry = Registry(root)
    first, second = registry.open().name, registry.add(other)
    registry.point_at(second, {})
    shutil.rmtree(root / "versions" / second)
    with pytest.raises(ConfigError, match=f"name one of {first} with model-training promote"):
        locate_bundle(str(root))
    assert main(["promote", "--registry", str(root), "--version", first]) == 0
    (root / "champion.json").write_text("{")
    assert main(["promote", "--registry", str(root), "--rollback"]) == 2
    assert f"has no version '{second}'" in capsys.readouterr().err
    assert main(["promote", "--registry", str(root), "--version", first]) == 0
    assert locate_bundle(str(root)).name == first


def test_other_folders_are_no_versions(tmp_path):
    (tmp_path / "versions/backup").mkdir(parents=True)
    registry = Registry(tmp_path)
    assert registry.add(DEFAULT).startswith("0001-") and len(registry.versions()) == 1


def test_photos_that_were_trained_on_are_remembered(tmp_path):
    registry = Registry(tmp_path)
    registry.remember_trained({"a", "b"})
    registry.remember_trained({"b", "c"})
    assert registry.trained() == {"a", "b", "c"}
    assert (tmp_path / "trained.txt").read_text() == "a\nb\nc\n"


def test_a_version_is_copied_once(tmp_path):
    registry = Registry(tmp_path)
    assert registry.add(DEFAULT) == registry.add(DEFAULT)
    assert len(registry.versions()) == 1


def test_a_copy_that_was_killed_is_no_version(tmp_path):
    registry = Registry(tmp_path)
    name = registry.add(DEFAULT)
    (tmp_path / "versions" / name).rename(tmp_path / "versions" / f".{name}")
    (tmp_path / "versions" / f".{name}" / "half").write_text("x")
    assert registry.versions() == []
    assert registry.add(DEFAULT) == name
    assert not (tmp_path / "versions" / name / "half").exists()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"version": "../x"}', '{"version": "0009-aaaaaaaaaaaa"}']
)
def test_a_bad_pointer_is_explained(tmp_path, content):
    Registry(tmp_path).add(DEFAULT)
    (tmp_path / "champion.json").write_text(content)
    with pytest.raises(ConfigError, match=r"champion\.json"):
        locate_bundle(str(tmp_path))


def test_a_bundle_is_no_registry(tmp_path):
    bundle = copy_bundle(tmp_path)
    (bundle / "champion.json").write_text("{}")
    assert locate_bundle(str(bundle)) == bundle


def test_what_is_not_there_cannot_be_promoted(tmp_path, capsys):
    root = tmp_path / "r"
    registry = Registry(root)
    with pytest.raises(ConfigError, match="no version 'x'; it has: none"):
        registry.point_at("x", {})
    with pytest.raises(ConfigError, match="no earlier champion"):
        registry.roll_back()
    for option, bundle in (("--candidate", tmp_path / "none"), ("--champion", tmp_path)):
        code = main(["promote", "--registry", str(root), "--candidate", str(DEFAULT), option, str(bundle),
                     "--photos", str(tmp_path)])  # fmt: skip
        error = capsys.readouterr().err
        assert code == 2 and error.count("\n") == 1
        assert f"{option} {bundle} is no bundle" in error
