"""The registry: a directory of model versions and the file that says which of them is champion.

`versions/0001-1a2b3c4d5e6f/` is a bundle, never changed after it was put there; `champion.json` names one.
The nightly job takes the directory as `--model`, and so follows the champion from night to night.
"""

import importlib.resources
import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dedup_job.errors import ConfigError
from dedup_job.kernels.bundle import read_manifest
from dedup_job.kernels.champion import CHAMPION, VERSIONS, read_champion

_HISTORY = "history.jsonl"
_MODEL_DIGITS = 12


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
        return sorted(name for name in names if not name.startswith("."))

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
        try:
            shutil.rmtree(staging, ignore_errors=True)
            shutil.copytree(bundle, staging)
            staging.rename(target)
        except OSError as error:
            raise ConfigError(f"--registry {self._root} cannot be written: {error}") from None
        return name

    def point_at(self, version: str, reason: dict[str, Any]) -> None:
        """Make a version the champion, in one step, and note it in the history.

        Args:
            version: one of `versions`.
            reason: why, for `champion.json` and the history.

        Raises:
            ConfigError: no such version.
        """
        if version not in self.versions():
            known = ", ".join(self.versions()) or "none"
            raise ConfigError(
                f"--registry {self._root} has no version {version!r}; it has: {known}"
            )
        before = self.champion
        fact = {
            "version": version,
            "previous": before.name if before else None,
            "promoted_at": datetime.now(UTC).isoformat(timespec="seconds"),
            **reason,
        }
        with (self._root / _HISTORY).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(fact) + "\n")
        temporary = self._root / f".{CHAMPION}.{os.getpid()}"
        temporary.write_text(json.dumps(fact, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self._root / CHAMPION)

    def previous(self) -> str:
        """The version that was champion before the present one.

        Raises:
            ConfigError: there was none.
        """
        name = None
        if self.champion is not None:
            name = json.loads((self._root / CHAMPION).read_text(encoding="utf-8")).get("previous")
        if name is None:
            raise ConfigError(
                f"--registry {self._root}: there is no earlier champion to go back to"
            )
        return str(name)


def champion_of(registry: Registry, first: Path | None = None) -> Path:
    """The bundle to beat.

    Returns:
        The registry's champion; before the first promotion `first`, or else the default bundle that ships
        with the package.
    """
    shipped = Path(str(importlib.resources.files("dedup_job"))) / "models/default"
    return registry.champion or first or shipped


def _is_equal(bundle: Path, version: Path) -> bool:
    return read_manifest(bundle).files == read_manifest(version).files
