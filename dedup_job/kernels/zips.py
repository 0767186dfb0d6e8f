"""Zip archives looked at before anything is unpacked: `.keras` and `.npz` files are zips.

A zip of 2 MB can hold 2 GiB of zeros, its directory can list millions of members, and one name can
stand there twice. The checks read the directory alone.
"""

import struct
import zipfile
from pathlib import Path

from dedup_job.errors import ModelContractError

# Keras' own measure: deflate shrinks zeros a thousandfold, weights hardly at all.
_MAX_EXPANSION = 100
_EXPANSION_FLOOR_BYTES = 16 << 20
_MAX_DIRECTORY_BYTES = 64 << 10
# APPNOTE.TXT 4.3.16: end of central directory, without a comment.
_END = struct.Struct("<4s4H2LH")
_END_SIGNATURE, _ZIP64_LOCATOR_SIGNATURE = b"PK\x05\x06", b"PK\x06\x07"
_ZIP64_LOCATOR_BYTES = 20
_ENCRYPTED = 0x1


def check_zip(
    path: Path, max_bytes: dict[str, int], optional: frozenset[str] = frozenset()
) -> None:
    """Check that an archive is whole and holds exactly the expected members, none too large.

    Args:
        path: the archive.
        max_bytes: member -> bytes it may have unpacked; nothing else may be there.
        optional: members that may be absent.

    Raises:
        ModelContractError: it is not so; says what was found.
    """
    _check_directory_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ModelContractError(f"{path}: {path.name} is a damaged zip ({error})") from None
    names = sorted(member.filename for member in members)
    required = max_bytes.keys() - optional
    if len(set(names)) < len(names) or not required <= set(names) <= max_bytes.keys():
        raise ModelContractError(
            f"{path}: {path.name} must hold {', '.join(sorted(required))} and nothing else; "
            f"it holds {_listed(names)}"
        )
    for member in members:
        _check_member(path, member, max_bytes[member.filename])


def _check_directory_size(path: Path) -> None:
    """Refuse a directory that is large by itself: `zipfile` reads it whole when it opens a file.

    Only the plain form is taken, which Keras and NumPy write for files of this size: no comment, no
    Zip64. Then no two readers can find two different directories in one file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            stream.seek(max(0, size - _END.size - _ZIP64_LOCATOR_BYTES))
            tail = stream.read(_END.size + _ZIP64_LOCATOR_BYTES)
    except OSError as error:
        raise ModelContractError(f"{path} cannot be read: {error.strerror}") from None
    end, before = tail[-_END.size :], tail[: -_END.size]
    if len(end) < _END.size or not end.startswith(_END_SIGNATURE):
        raise ModelContractError(
            f"{path}: {path.name} is no whole zip archive ({size} bytes); was it cut short?"
        )
    directory_bytes = _END.unpack(end)[5]
    if before.startswith(_ZIP64_LOCATOR_SIGNATURE) or directory_bytes > _MAX_DIRECTORY_BYTES:
        raise ModelContractError(
            f"{path}: {path.name} has a zip directory of over {_MAX_DIRECTORY_BYTES} bytes, or "
            "Zip64; no model needs that"
        )


def _check_member(path: Path, member: zipfile.ZipInfo, max_bytes: int) -> None:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # bz2 and lzma are unpacked chunk by chunk however large a chunk becomes.
        raise ModelContractError(
            f"{path}: {member.filename} is packed by method {member.compress_type}; "
            "expected stored or deflated"
        )
    if member.flag_bits & _ENCRYPTED:
        raise ModelContractError(f"{path}: {member.filename} is encrypted")
    is_bomb = (
        member.file_size > _EXPANSION_FLOOR_BYTES
        and member.file_size > _MAX_EXPANSION * member.compress_size
    )
    if member.file_size > max_bytes or is_bomb:
        raise ModelContractError(
            f"{path}: {member.filename} would unpack from {member.compress_size} to "
            f"{member.file_size} bytes, more than allowed ({max_bytes} bytes, and "
            f"{_MAX_EXPANSION} times what it takes packed)"
        )


def _listed(names: list[str]) -> str:
    shown = ", ".join(ascii(name[:40]) for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown or "nothing"
