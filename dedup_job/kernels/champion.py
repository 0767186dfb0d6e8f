"""Which version of a model registry is in use. `model_training.registry` writes what is read here."""

import json
from pathlib import Path

from dedup_job.errors import ConfigError
from dedup_job.kernels.bundle import MANIFEST

CHAMPION = "champion.json"
VERSIONS = "versions"


def read_champion(registry: Path) -> Path | None:
    """The bundle that a registry names as champion; None where there is no registry.

    Args:
        registry: a directory; one that holds a manifest is a bundle and no registry.

    Raises:
        ConfigError: the pointer is damaged, or names a version that is not there.
    """
    pointer = registry / CHAMPION
    if (registry / MANIFEST).is_file() or not pointer.is_file():
        return None
    try:
        version = str(json.loads(pointer.read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"model registry {registry}: {CHAMPION} is damaged; {_remedy(registry)}"
        ) from None
    bundle = registry / VERSIONS / version
    if version != Path(version).name or not (bundle / MANIFEST).is_file():
        raise ConfigError(
            f"model registry {registry}: {CHAMPION} names {version!r}, which is not there; "
            f"{_remedy(registry)}"
        )
    return bundle


def _remedy(registry: Path) -> str:
    folder = registry / VERSIONS
    names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    return (
        f"name one of {', '.join(names[-5:]) or 'its versions (there are none)'} with "
        f"model-training promote --registry {registry} --version NAME"
    )
