"""What becomes of every file in a collection of odd and broken photos, written to build/robust-files.md.

The collection (PngSuite, the test files of image-rs and mozjpeg, fuzzers' finds of zune-image, photos of
every EXIF orientation) lies outside this project.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dedup_job.errors import ImageRejected, RejectReason
from dedup_job.io.decoding import DecoderSettings, IsolatedDecoder
from dedup_job.kernels.images import ImageLimits

ROBUST = Path(__file__).parents[3] / "shared" / "data" / "robust"
REPORT = Path(__file__).parents[2] / "build" / "robust-files.md"
pytestmark = pytest.mark.skipif(not ROBUST.is_dir(), reason=f"needs the odd photos in {ROBUST}")
DIED = {RejectReason.DECODER_CRASH, RejectReason.DECODER_TIMEOUT, RejectReason.TOO_MUCH_MEMORY}
# Of PngSuite's broken files: a chunk's CRC is wrong, the checksum of the pixels within is right.
WHOLE_ALL_THE_SAME = {"xcsn0g01.png"}


def _open(limits):
    return IsolatedDecoder(DecoderSettings(64, 0.0, limits, timeout_s=10, memory_mb=1024))


@pytest.fixture(scope="module")
def decoder():
    """As the job's, but it takes small pictures too: most of these are."""
    opened = _open(ImageLimits(min_side_px=1))
    yield opened
    opened.close()


def outcome(decoder, path):
    """(reason or None, one line for the table)."""
    try:
        photo = decoder.prepare(path.read_bytes())
    except ImageRejected as rejected:
        return rejected.reason, f"reject: {rejected.reason} - {rejected.detail}"
    assert photo.pixels.shape == (64, 64, 3)
    return None, f"ok {photo.width}x{photo.height}"


def _outcomes_of_all(decoder):
    paths = sorted(path for path in ROBUST.rglob("*") if path.is_file())
    return {path.relative_to(ROBUST).as_posix(): outcome(decoder, path) for path in paths}


@pytest.fixture(scope="module")
def outcomes_of_files(decoder):
    """Path below the collection -> (reason, line), small pictures taken."""
    return _outcomes_of_all(decoder)


@pytest.fixture(scope="module")
def outcomes_by_default(outcomes_of_files):
    """The same under the default limits; writes the table."""
    opened = _open(ImageLimits())
    found = _outcomes_of_all(opened)
    opened.close()
    lines = ["# What becomes of every file of the collection", ""]
    for title, outcomes in (
        ("default limits", found),
        ("small pictures taken too (images.min_side_px=1)", outcomes_of_files),
    ):
        lines += [f"| folder | outcome: {title} | files |", "| --- | --- | --- |"]
        counts = Counter(
            (name.split("/")[0], str(reason or "ok")) for name, (reason, _) in outcomes.items()
        )
        lines += [f"| {folder} | {what} | {n} |" for (folder, what), n in sorted(counts.items())]
        lines.append("")
    lines += ["| file | default limits | small pictures taken too |", "| --- | --- | --- |"]
    for name, (_, line) in found.items():
        other = outcomes_of_files[name][1]
        cells = (name, line, "the same" if other == line else other)
        lines.append("| " + " | ".join(cell.replace("|", " ") for cell in cells) + " |")
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return found


def test_every_file_is_a_photo_or_a_reason(outcomes_of_files):
    assert len(outcomes_of_files) > 1_500
    reasons = Counter(reason for reason, _ in outcomes_of_files.values())
    assert not DIED & set(reasons), reasons
    assert reasons[None] > 250


def test_the_default_limits_only_refuse_what_is_too_small(outcomes_by_default, outcomes_of_files):
    assert outcomes_by_default.keys() == outcomes_of_files.keys()
    others = {
        name for name in outcomes_by_default if outcomes_by_default[name] != outcomes_of_files[name]
    }
    assert {outcomes_by_default[name][0] for name in others} == {RejectReason.TOO_SMALL}
    accepted = sum(reason is None for reason, _ in outcomes_by_default.values())
    assert accepted > 200


def test_arithmetic_coding_makes_no_difference(decoder):
    photos = {
        name: decoder.prepare((ROBUST / "mozjpeg" / name).read_bytes()).pixels.astype(int)
        for name in ("testimgint.jpg", "testimgari.jpg")
    }
    assert np.array_equal(photos["testimgint.jpg"], photos["testimgari.jpg"])


def test_broken_pngs_are_rejected_and_sound_ones_taken(outcomes_of_files):
    suite = {
        name.removeprefix("pngsuite/"): reason
        for name, (reason, _) in outcomes_of_files.items()
        if name.startswith("pngsuite/") and name.endswith(".png")
    }
    broken = {name for name in suite if name.startswith("x")}
    assert len(broken) > 10
    assert {name for name in suite if suite[name] is not None} == broken - WHOLE_ALL_THE_SAME


@pytest.mark.parametrize("shape", ["Landscape", "Portrait"])
def test_orientations_are_undone(decoder, shape):
    photos = [
        decoder.prepare((ROBUST / "exif-orientation" / f"{shape}_{n}.jpg").read_bytes())
        for n in range(1, 9)
    ]
    assert len({(photo.width, photo.height) for photo in photos}) == 1
    upright = photos[0].pixels.astype(int)
    for photo in photos[1:]:
        # Each file was compressed on its own; a turned picture differs by some 60 levels.
        assert np.abs(photo.pixels - upright).mean() < 6
