"""What people decided about pairs of products (`--decisions PATH`), checked row by row.

The file comes from a browser's export, a spreadsheet or a warehouse: one bad row costs that row. Every
row ends in exactly one of `decisions`, `rejected` and `repeated`.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime

from dedup_job.errors import CatalogError, ConfigError, ImageRejected
from dedup_job.io import catalog_formats as formats
from dedup_job.io.catalog_files import open_file
from dedup_job.io.object_store import rejection
from dedup_job.io.uris import local_folder, redact, split_scheme
from dedup_job.tables import PHOTO_DIGITS

IDS = ("sku_id_a", "sku_id_b")
REQUIRED = (*IDS, "decision")
PHOTOS = ("photos_a", "photos_b")
COLUMNS = (*REQUIRED, "decided_by", "decided_at", "note", *PHOTOS, "escaped")
WORDS = ("same", "different")
MAX_ID_CHARS = 1000
MAX_NAME_CHARS = 200
MAX_NOTE_CHARS = 2000
MAX_PHOTOS = 500
_SHOWN_CHARS = 40
_DELIMITER = ","
_PHOTO = re.compile(f"[0-9a-f]{{{PHOTO_DIGITS}}}")
_OLDEST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Decision:
    """What somebody said about one pair.

    `row`: in the file, from 0, as `catalog_row` counts; `sku_id_a` < `sku_id_b`, as text; `decision`:
    `same` or `different`; `decided_at`: UTC, None when the file does not say (older than any date);
    `photos_a`, `photos_b`: the photos that were looked at, as PHOTO_DIGITS of each content's SHA-256,
    None when the file does not say.
    """

    row: int
    sku_id_a: str
    sku_id_b: str
    decision: str
    decided_by: str | None = None
    decided_at: datetime | None = None
    note: str | None = None
    photos_a: frozenset[str] | None = None
    photos_b: frozenset[str] | None = None

    @property
    def pair(self) -> tuple[str, str]:
        """Both ids, the smaller one first."""
        return self.sku_id_a, self.sku_id_b


@dataclass(frozen=True)
class RejectedDecision:
    """A row that says nothing usable, and in one line why."""

    row: int
    reason: str


@dataclass(frozen=True)
class RepeatedDecision:
    """A decision that does not count, as `winner` is about the same pair."""

    decision: Decision
    winner: Decision

    @property
    def is_contradiction(self) -> bool:
        """Whether the winner says the opposite."""
        return self.decision.decision != self.winner.decision


@dataclass(frozen=True)
class DecisionFile:
    """A whole file of decisions, each list in the order of the file.

    `decisions`: one a pair; `rejected` and `repeated`: the other rows.
    """

    decisions: list[Decision]
    rejected: list[RejectedDecision]
    repeated: list[RepeatedDecision]

    @property
    def contradictions(self) -> list[RepeatedDecision]:
        """The repeated decisions that say the opposite of the one that counts."""
        return [repeated for repeated in self.repeated if repeated.is_contradiction]

    def digest(self) -> str:
        """SHA-256 (64 hex digits) over what is decided, as read: equal files say the same."""
        said = [
            (
                *astuple(decision)[:-2],
                *(sorted(p or ()) for p in (decision.photos_a, decision.photos_b)),
            )
            for decision in (*self.decisions, *(one.decision for one in self.repeated))
        ]
        text = json.dumps([said, [one.row for one in self.rejected]], default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def read_decisions(path: str) -> DecisionFile:
    """Read a file of decisions.

    CSV (RFC 4180, UTF-8) or Parquet, told apart by content. Columns `sku_id_a`, `sku_id_b` and
    `decision` must be there, `decided_by`, `decided_at` (ISO 8601, UTC unless it says otherwise),
    `note`, and what the gallery exports, `photos_a`, `photos_b` and `escaped` (`yes`: ids and name begin
    with an apostrophe that is not theirs), may be; others are left alone. Of several decisions about one pair, in either order of
    its ids, the latest counts; of equally late ones *different*, else the last in the file.

    Args:
        path: local path, or s3 or gs URI.

    Raises:
        ConfigError: in one line, for a file that is missing, empty, unreadable as a whole, or lacks
            a column.
    """
    location = _located(path)
    decisions: list[Decision] = []
    rejected: list[RejectedDecision] = []
    with _explained(location):
        for record in _records(location):
            try:
                decisions.append(_parse(record))
            except _BadRow as bad:
                rejected.append(RejectedDecision(record.position, str(bad)))
    counted, repeated = _settle(decisions)
    return DecisionFile(counted, rejected, repeated)


class _BadRow(Exception):
    """Why a row is rejected."""


def _located(path: str) -> str:
    """Absolute local path, or s3 or gs URI."""
    scheme, _ = split_scheme(path)
    if scheme in ("s3", "gs"):
        return path.strip()
    try:
        location = local_folder(path) if path.strip() and "\x00" not in path else None
    except ImageRejected as refusal:
        raise ConfigError(f"--decisions: {refusal.detail}") from None
    if location is None or (scheme != "file" and "://" in path):
        raise ConfigError(
            f"--decisions: expected a CSV or Parquet file on disk, s3:// or gs://, got {redact(path)!r}"
        )
    return location


@contextmanager
def _explained(location: str) -> Iterator[None]:
    """Turn what is wrong with the whole file into a one-line ConfigError."""
    shown = f"decisions file {redact(location)}"
    try:
        yield
    except ConfigError:
        raise
    except CatalogError as error:
        raise ConfigError(f"{shown}: {error}") from None
    except FileNotFoundError:
        raise ConfigError(f"{shown} not found (--decisions PATH)") from None
    except Exception as error:
        is_local = location.startswith("/")
        if is_local and not isinstance(error, OSError):
            raise
        if is_local:
            problem = getattr(error, "strerror", None) or type(error).__name__
        else:
            problem = rejection(error, split_scheme(location)[0]).detail
        raise ConfigError(f"{shown} cannot be read: {problem} (--decisions PATH)") from None


def _records(location: str) -> Iterator[formats.Record]:
    with open_file(location) as stream:
        if stream.read(4) == b"PAR1":
            file = formats.open_parquet(stream)
            _check_columns(file.schema_arrow.names)
            formats.check_parquet_types(file.schema_arrow, IDS, COLUMNS)
            groups = range(file.num_row_groups)
            yield from formats.read_parquet(file, groups, 0, COLUMNS)
            return
    with open_file(location) as stream:  # once more for each reader: it closes what it has read
        _check_columns(formats.read_csv_header(stream, _DELIMITER))
    with open_file(location) as stream:
        yield from formats.read_csv(stream, _DELIMITER, COLUMNS)


def _check_columns(names: list[str]) -> None:
    for name in COLUMNS:
        if names.count(name) > 1:
            raise CatalogError(f"column {name!r} stands {names.count(name)} times")
    for name in REQUIRED:
        if name not in names:
            shown = ", ".join(repr(other[:_SHOWN_CHARS]) for other in names[:10])
            raise CatalogError(
                f"column {name!r} not found; there are: {shown}. Expected, comma-separated: "
                + ",".join(COLUMNS)
            )


def _parse(record: formats.Record) -> Decision:
    """The decision of a row; raises _BadRow."""
    if record.malformed is not None:
        raise _BadRow(record.malformed)
    values = _unescaped(record.values)
    first, second = (_checked_id(name, values[name]) for name in IDS)
    if first == second:
        raise _BadRow(f"sku_id_a and sku_id_b are both {first[:_SHOWN_CHARS]!r}; expected two SKUs")
    (smaller, photos_a), (larger, photos_b) = sorted(
        zip((first, second), (_checked_photos(n, values.get(n)) for n in PHOTOS), strict=True)
    )
    return Decision(
        record.position,
        smaller,
        larger,
        _checked_word(values["decision"]),
        _checked_text("decided_by", values.get("decided_by"), MAX_NAME_CHARS),
        _checked_time(values.get("decided_at")),
        _checked_text("note", values.get("note"), MAX_NOTE_CHARS, may_hold="\n\r\t"),
        photos_a,
        photos_b,
    )


def _unescaped(values: Mapping[str, str | None]) -> Mapping[str, str | None]:
    """Values as they were before the gallery kept a spreadsheet from computing them."""
    if (values.get("escaped") or "").strip().lower() != "yes":
        return values
    texts = {name: (values.get(name) or "").removeprefix("'") for name in (*IDS, "decided_by")}
    return {**values, **texts}


def _checked_id(name: str, value: str | None) -> str:
    text = _checked_text(name, value, MAX_ID_CHARS)
    if text is None:
        raise _BadRow(f"{name} is null or blank")
    return text


def _checked_text(name: str, value: str | None, limit: int, may_hold: str = "") -> str | None:
    """The text as it is, None when blank; raises _BadRow for control characters and length."""
    if value is None or not value.strip():
        return None
    if len(value) > limit:
        raise _BadRow(f"{name} has {len(value)} characters, limit {limit}")
    for character in value:
        if unicodedata.category(character) == "Cc" and character not in may_hold:
            raise _BadRow(f"{name} holds control character U+{ord(character):04X}")
    return value


def _checked_photos(name: str, value: str | None) -> frozenset[str] | None:
    """The photos that a space-separated list names, None when blank."""
    photos = frozenset((value or "").lower().split())
    if len(photos) > MAX_PHOTOS:
        raise _BadRow(f"{name} names {len(photos)} photos, limit {MAX_PHOTOS}")
    for photo in photos:
        if not _PHOTO.fullmatch(photo):
            raise _BadRow(
                f"{name} holds {photo[:_SHOWN_CHARS]!r}; expected {PHOTO_DIGITS} hexadecimal digits "
                "a photo, separated by spaces"
            )
    return photos or None


def _checked_word(value: str | None) -> str:
    word = (value or "").strip().lower()
    if word not in WORDS:
        raise _BadRow(f"decision is {(value or '')[:_SHOWN_CHARS]!r}; expected same or different")
    return word


def _checked_time(value: str | None) -> datetime | None:
    text = (value or "").strip()
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (
        ValueError,
        OverflowError,
    ):  # OverflowError: an offset that leads out of years 1 to 9999
        raise _BadRow(
            f"decided_at is {text[:_SHOWN_CHARS]!r}; expected ISO 8601, as 2026-01-31T18:00:00Z"
        ) from None


def _settle(decisions: list[Decision]) -> tuple[list[Decision], list[RepeatedDecision]]:
    """One decision a pair, and the others with the one that counts in their place."""
    winners: dict[tuple[str, str], Decision] = {}
    for decision in decisions:
        rival = winners.get(decision.pair)
        if rival is None or _weight(decision) >= _weight(rival):
            winners[decision.pair] = decision
    counted, repeated = [], []
    for decision in decisions:
        winner = winners[decision.pair]
        if winner is decision:
            counted.append(decision)
        else:
            repeated.append(RepeatedDecision(decision, winner))
    return counted, repeated


def _weight(decision: Decision) -> tuple[datetime, bool]:
    return decision.decided_at or _OLDEST, decision.decision == "different"
