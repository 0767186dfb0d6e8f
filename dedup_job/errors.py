"""The errors this package raises on purpose, and the closed list of reject reasons.

Everything a user can cause is a `DedupError`: the command line prints its message in one line and
leaves with `exit_code`. Anything else is a bug and keeps its stack trace in the log.
"""

from enum import StrEnum


class DedupError(Exception):
    """Base of all errors that are explained to the user in one line."""

    exit_code = 1


class ConfigError(DedupError):
    """A setting or argument is missing, unknown or out of range (exit code 2)."""

    exit_code = 2


class CatalogError(DedupError):
    """The catalog as a whole cannot be read (exit code 2); a bad row is a reject, not an error."""

    exit_code = 2


class ModelContractError(DedupError):
    """A model bundle is incomplete, altered, or does not compute what it promises."""


class GateError(DedupError):
    """A quality gate held the run back: nothing was published (exit code 3)."""

    exit_code = 3


class WarehouseBusy(DedupError):
    """Another run holds the lease on the warehouse (exit code 1)."""


class LeaseLost(DedupError):
    """Another run took the warehouse over while this one was silent (exit code 1)."""


class RejectReason(StrEnum):
    """Why a catalog row ended in `rejected_images`.

    A closed list: add here and explain in `REASON_MEANING`, never invent one elsewhere.
    """

    NULL_SKU = "null_sku"
    NULL_URI = "null_uri"
    MALFORMED_ROW = "malformed_row"
    DUPLICATE_ROW = "duplicate_row"
    CONFLICTING_ROW = "conflicting_row"
    URI_REFUSED = "uri_refused"
    NOT_FOUND = "not_found"
    ACCESS_DENIED = "access_denied"
    HTTP_ERROR = "http_error"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    TOO_MANY_BYTES = "too_many_bytes"
    EMPTY_FILE = "empty_file"
    NOT_IMAGE = "not_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    UNSUPPORTED_MODE = "unsupported_mode"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_SMALL = "too_small"
    BAD_ASPECT = "bad_aspect"
    DECODER_CRASH = "decoder_crash"
    DECODER_TIMEOUT = "decoder_timeout"
    TOO_MUCH_MEMORY = "too_much_memory"
    BAD_EMBEDDING = "bad_embedding"


REASON_MEANING: dict[RejectReason, str] = {
    RejectReason.NULL_SKU: "the row's sku_id is null, blank or holds a control character",
    RejectReason.NULL_URI: "the row's image_uri is null or blank",
    RejectReason.MALFORMED_ROW: "the row does not have the columns of the catalog (count, encoding), or its sku_id is over 1000 characters",
    RejectReason.DUPLICATE_ROW: "an equal (sku_id, image_uri) stands earlier in the catalog",
    RejectReason.CONFLICTING_ROW: "an earlier row of this SKU has another variant group, block or conflict value",
    RejectReason.URI_REFUSED: "scheme, host or folder is not allowed; the detail names the setting",
    RejectReason.NOT_FOUND: "no such file or object (HTTP 404, 410)",
    RejectReason.ACCESS_DENIED: "reading is forbidden (file mode, HTTP 401, 403)",
    RejectReason.HTTP_ERROR: "the server answered with another error status",
    RejectReason.UNREACHABLE: "no connection, after retries",
    RejectReason.TIMEOUT: "the photo did not arrive within the deadlines of `fetch`",
    RejectReason.TOO_MANY_BYTES: "the file is larger than fetch.max_bytes",
    RejectReason.EMPTY_FILE: "the file has no bytes",
    RejectReason.NOT_IMAGE: "the content is not a picture, whatever its name says",
    RejectReason.UNSUPPORTED_FORMAT: "a picture in a format outside JPEG, PNG, WebP, GIF, BMP",
    RejectReason.UNSUPPORTED_MODE: "a pixel type without a defined 8-bit colour (float, Lab), or one the decoder does not know",
    RejectReason.TRUNCATED: "the file ends before the picture does",
    RejectReason.CORRUPT: "the picture's data is damaged",
    RejectReason.TOO_MANY_PIXELS: "more pixels, or a longer side, than the limits allow",
    RejectReason.TOO_SMALL: "a side is shorter than images.min_side_px",
    RejectReason.BAD_ASPECT: "one side is more than images.max_aspect times the other",
    RejectReason.DECODER_CRASH: "the decoder died or failed on this photo; it is tried again every night",
    RejectReason.DECODER_TIMEOUT: "decoding took longer than images.decode_timeout_s",
    RejectReason.TOO_MUCH_MEMORY: "decoding needs more than images.decode_memory_mb",
    RejectReason.BAD_EMBEDDING: "the model's answer for this photo is not a finite unit vector",
}


class ImageRejected(DedupError):
    """One photo cannot be used. Becomes a row of `rejected_images`, never the end of a run.

    Args:
        reason: from the closed list.
        detail: one line for a person; must never carry credentials or query strings.
    """

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["ImageRejected"], tuple[RejectReason, str]]:
        # The default reduce replays `args` (one string) and would break across processes.
        return type(self), (self.reason, self.detail)


def one_line(error: BaseException) -> str:
    """What an error says, as at most 200 characters on one line; its type when it says nothing."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
