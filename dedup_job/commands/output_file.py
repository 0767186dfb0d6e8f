"""Files that commands write for their user: whole, or not at all."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dedup_job.errors import ConfigError


@contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """A path to write to, which becomes `out` when the block ends without an error.

    Raises:
        ConfigError: `out` cannot be written.
    """
    if not out.name:
        raise ConfigError(f"--out {out} is a folder; a file is expected")
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        yield partial
        partial.replace(out)
    except OSError as error:
        reason = error.strerror or (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"--out {out} cannot be written: {reason}") from None
    finally:
        with suppress(OSError):  # what went wrong was said already
            partial.unlink()
