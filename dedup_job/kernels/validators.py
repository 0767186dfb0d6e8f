"""What a store says about a photo, by which a later night asks whether it changed."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

MAX_VALIDATOR_CHARS = 1024
# RFC 9110, 8.8.3, and bare words as some servers and Google Cloud Storage write them; never `*`,
# which would match whatever the store has, nor a list.
_ETAG = re.compile(r'(?:W/)?"[!#-~]*"|[0-9A-Za-z_+/=.:-]+')
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Validator:
    """What a store said about one version of a photo.

    `etag`: as the store wrote it, quotes included; `n_bytes`: size of the file; `modified_at`: UTC,
    microseconds. Each is None where the store said nothing that a later night could trust.
    """

    etag: str | None = None
    n_bytes: int | None = None
    modified_at: datetime | None = None

    @property
    def can_tell(self) -> bool:
        """Whether a store can be asked with it; a size alone tells nothing."""
        return self.etag is not None or self.modified_at is not None


@dataclass(frozen=True, slots=True)
class Fetched:
    """The answer of a store. `data` is None when the photo is unchanged and was not sent."""

    data: bytes | None
    validator: Validator


def sane_etag(said: object) -> str | None:
    """An ETag as a store sent it, if it can be kept and sent back; else None."""
    if not isinstance(said, str) or len(said) > MAX_VALIDATOR_CHARS:
        return None
    etag = said.strip()
    return etag if _ETAG.fullmatch(etag) else None


def utc_from_ns(time_ns: int) -> datetime | None:
    """A file system's time (nanoseconds since 1970) in whole microseconds; None beyond year 9999."""
    try:
        return _EPOCH + timedelta(microseconds=time_ns // 1_000)
    except OverflowError:
        return None
