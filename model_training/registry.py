"""The registry: a directory of model versions and the file that says which of them is champion.

`versions/0001-1a2b3c4d5e6f/` is a bundle, never changed after it was put there; `champion.json` names one.
The nightly job takes the directory as `--model`, and so follows the champion from night to night.
"""

import importlib.resources
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dedup_job.errors import ConfigError
from dedup_job.kernels.bundle import read_manifest
from dedup_job.kernels.champion import CHAMPION, VERSIONS, read_champion

_HISTORY = "history.jsonl"
_TRAINED = "trained.txt"
_MODEL_DIGITS = 12
_VERSION = re.compile(r"\d{4,}-[0-9a-f]{12}")
_ROLLBACK = "rollback"


class Registry:
    """Model versions of one shop.

    Args:
        root: made when the first version is added.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def champion(self) -> Path | None:
        """The bundle in use; None before the first promotion.

        Raises:
            ConfigError: the pointer is damaged or names no version.
        """
        return read_champion(self._root)

    def versions(self) -> list[str]:
        """Names of all versions, oldest first."""
        folder = self._root / VERSIONS
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        return sorted(name for name in names if _VERSION.fullmatch(name))

    def open(self, first: Path | None = None) -> Path:
        """The champion; of an empty registry `first` (or the bundle that ships with the package) becomes it.

        So there is a way back from the first promotion, and `--model REGISTRY` works before it.
        """
        if self.champion is None:
            shipped = Path(str(importlib.resources.files("dedup_job"))) / "models/default"
            self.point_at(self.add(first or shipped), {"why": "first champion"})
        champion = self.champion
        assert champion is not None, "it was just put there"
        return champion

    def add(self, bundle: Path) -> str:
        """Copy a bundle in as the newest version; what is there already is not copied again.

        Returns:
            The version's name.

        Raises:
            ConfigError, ModelContractError: no bundle, a damaged one, or the registry cannot be written.
        """
        model_id = read_manifest(bundle).model_id[:_MODEL_DIGITS]
        names = self.versions()
        known = [name for name in names if name.endswith(f"-{model_id}")]
        if known and _is_equal(bundle, self._root / VERSIONS / known[-1]):
            return known[-1]
        number = max((int(name.split("-")[0]) for name in names), default=0) + 1
        name = f"{number:04d}-{model_id}"
        target = self._root / VERSIONS / name
        staging = target.with_name(f".{name}")
        with self._written():
            shutil.rmtree(staging, ignore_errors=True)
            shutil.copytree(bundle, staging)
            staging.rename(target)
        return name

    def point_at(self, version: str, reason: dict[str, Any]) -> None:
        """Make a version the champion, in one step, and note it in the history.

        Args:
            version: one of `versions`.
            reason: why, for `champion.json` and the history.

        Raises:
            ConfigError: no such version, or the registry cannot be written.
        """
        if version not in self.versions():
            known = ", ".join(self.versions()) or "none"
            raise ConfigError(
                f"--registry {self._root} has no version {version!r}; it has: {known}"
            )
        fact = {
            "version": version,
            "previous": self._last_named(),
            "promoted_at": datetime.now(UTC).isoformat(timespec="seconds"),
            **reason,
        }
        with self._written():
            with (self._root / _HISTORY).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(fact) + "\n")
            temporary = self._root / f".{CHAMPION}.{os.getpid()}"
            temporary.write_text(json.dumps(fact, indent=1) + "\n", encoding="utf-8")
            temporary.replace(self._root / CHAMPION)

    def roll_back(self) -> str:
        """Make the version that the champion replaced the champion again; each call goes one step back.

        Returns:
            Its name.

        Raises:
            ConfigError: there was none.
        """
        replaced = {
            fact["version"]: fact["previous"]
            for fact in self._history()
            if fact.get("why") != _ROLLBACK
        }
        version = replaced.get(self._last_named())
        if version is None:
            raise ConfigError(
                f"--registry {self._root}: there is no earlier champion to go back to"
            )
        self.point_at(version, {"why": _ROLLBACK})
        return str(version)

    def trained(self) -> set[str]:
        """SHA-256 of the photos that promoted versions were trained on here."""
        path = self._root / _TRAINED
        return set(path.read_text(encoding="utf-8").split()) if path.is_file() else set()

    def remember_trained(self, photos: set[str]) -> None:
        """Note photos that a promoted version was trained on: they never judge another one."""
        new = sorted(photos - self.trained())
        with self._written(), (self._root / _TRAINED).open("a", encoding="utf-8") as stream:
            stream.writelines(f"{photo}\n" for photo in new)

    def _history(self) -> list[dict[str, Any]]:
        path = self._root / _HISTORY
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def _last_named(self) -> str | None:
        """The version last made champion, whatever became of it or of the pointer since."""
        history = self._history()
        return str(history[-1]["version"]) if history else None

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except (OSError, shutil.Error) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise ConfigError(f"--registry {self._root} cannot be written: {reason}") from None


def _is_equal(bundle: Path, version: Path) -> bool:
    return read_manifest(bundle).files == read_manifest(version).files
