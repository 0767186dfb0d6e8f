"""Where a bundle is written: checked before hours of training, replaced in one step after them."""

import os
import shutil
from pathlib import Path

from dedup_job.errors import ConfigError
from dedup_job.kernels.bundle import MANIFEST

COMMAND_FILE = "command.txt"
_PHOTOS_FILE = "photos.sha256"


def check_out(out: Path, option: str = "--out") -> Path:
    """Whether a bundle can be put at `out` without harm; changes nothing.

    Args:
        out: where.
        option: that named it, for messages.

    Returns:
        `out` as an absolute path without links.

    Raises:
        ConfigError: a file, a directory that is neither empty nor a bundle, a directory that holds
            the current one, or a place that cannot be written.
    """
    target = out.resolve()
    if target == Path.cwd() or target in Path.cwd().parents:
        raise ConfigError(f"{option} {out} would replace the current directory; name another one")
    if target.is_dir() and not (target / MANIFEST).is_file() and any(target.iterdir()):
        raise ConfigError(
            f"{option} {out} holds files but no {MANIFEST}: it is no bundle and would be replaced; "
            "name a new or empty directory"
        )
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{option} {out} is a file; name a directory")
    _require_writable(target.parent, f"{option} {out}")
    return target


def check_bundle(option: str, bundle: Path) -> None:
    """Raise ConfigError, naming the option, where there is no bundle."""
    if not (bundle / MANIFEST).is_file():
        raise ConfigError(f"{option} {bundle} is no bundle: it has no {MANIFEST}")


def check_apart(run_dir: Path, bundle: Path, option: str) -> None:
    """Raise ConfigError where the run lies in the bundle, which is replaced as a whole at the end."""
    if bundle.resolve() in (run_dir.resolve(), *run_dir.resolve().parents):
        raise ConfigError(
            f"--run-dir {run_dir} lies in {option} {bundle}, which the finished bundle replaces; "
            "name a directory beside it"
        )


def check_same_photos(run_dir: Path, photos_sha256: str, *, begins: bool) -> None:
    """Note which photos a run learns from, or compare: the card would tell of others than it saw.

    Args:
        run_dir: of the run; one of an earlier version has no note and is trusted.
        photos_sha256: of the training photos, see `data.fingerprint`.
        begins: whether the run begins now.

    Raises:
        ConfigError: the run began with other photos.
    """
    path = run_dir / _PHOTOS_FILE
    if begins:
        path.write_text(photos_sha256 + "\n", encoding="utf-8")
    elif path.is_file() and path.read_text(encoding="utf-8").strip() != photos_sha256:
        raise ConfigError(
            f"--run-dir {run_dir} learned from other photos than these: give the --photos, --products and --pairs "
            "that it began with, or begin a new run from it with --init-from"
        )


def read_command(run_dir: Path) -> str:
    """The command that began a run."""
    path = run_dir / COMMAND_FILE
    return path.read_text(encoding="utf-8").strip() if path.is_file() else "unknown"


def prepare_run_dir(run_dir: Path, checkpoint: str, *, resume: bool) -> None:
    """Make a run directory, unless that would overwrite another run.

    Raises:
        ConfigError: a checkpoint is there and `resume` is false, or it cannot be written.
    """
    if (run_dir / checkpoint).exists() and not resume:
        raise ConfigError(f"{run_dir / checkpoint} exists: continue it with --resume, or remove it")
    _require_writable(run_dir.resolve(), f"--run-dir {run_dir}")
    run_dir.mkdir(parents=True, exist_ok=True)


def check_file(path: Path, option: str) -> None:
    """Whether a file can be written, or replaced; changes nothing.

    Raises:
        ConfigError: a directory is there, or the place cannot be written to.
    """
    if path.is_dir():
        raise ConfigError(f"{option} is a directory; name a file")
    _require_writable(path.resolve().parent, option)


def staging_of(out: Path) -> Path:
    """An empty directory beside `out` to build the bundle in; what a killed export left is removed."""
    staging = out.with_name(f".{out.name}.staging")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    return staging


def put_in_place(staging: Path, out: Path) -> None:
    """Make a complete bundle the one at `out`."""
    old = out.with_name(f".{out.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    staging.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _require_writable(directory: Path, option: str) -> None:
    existing = next(p for p in (directory, *directory.parents) if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"{option}: {existing} is not a directory that can be written to")
