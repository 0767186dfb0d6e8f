"""Model versions, the pointer to one of them, and the job that follows it."""

import json

import pytest

from dedup_job.errors import ConfigError
from dedup_job.io.bundles import locate_bundle
from dedup_job.kernels.bundle import CALIBRATION, read_manifest
from model_training.cli import main
from model_training.registry import Registry, champion_of
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
    assert champion_of(registry) == DEFAULT and champion_of(registry, other) == other
    first, second = registry.add(DEFAULT), registry.add(other)
    digits = read_manifest(DEFAULT).model_id[:12]
    assert registry.versions() == [first, second] == [f"0001-{digits}", f"0002-{digits}"]
    assert registry.champion is None
    for version in (first, second):
        registry.point_at(version, {"why": "test"})
        assert locate_bundle(str(root)) == registry.champion == root / "versions" / version
        assert champion_of(registry, other) == registry.champion
    assert read_manifest(registry.champion).files == read_manifest(other).files
    assert main(["promote", "--registry", str(root), "--rollback"]) == 0
    assert json.loads(capsys.readouterr().out) == {"promoted": first, "why": "rollback"}
    assert locate_bundle(str(root)).name == first
    history = [json.loads(line) for line in (root / "history.jsonl").read_text().splitlines()]
    assert [(h["version"], h["previous"]) for h in history] == [
        (first, None), (second, first), (first, second),
    ]  # fmt: skip


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
    registry = Registry(tmp_path / "r")
    with pytest.raises(ConfigError, match="no version 'x'; it has: none"):
        registry.point_at("x", {})
    with pytest.raises(ConfigError, match="no earlier champion"):
        registry.previous()
    registry.point_at(registry.add(DEFAULT), {})
    with pytest.raises(ConfigError, match="no earlier champion"):
        registry.previous()
    assert main(["promote", "--registry", str(tmp_path / "r")]) == 2
    assert "promote needs --candidate" in capsys.readouterr().err
