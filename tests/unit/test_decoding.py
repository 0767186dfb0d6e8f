"""The decoder process: the same pixels as without it, and one row lost where it dies."""

import os
import resource
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dedup_job.errors import DedupError, ImageRejected, RejectReason
from dedup_job.io import decoding
from dedup_job.io.decoder_slots import EMPTY, PREPARED, Answer, Slots, create_slots_file
from dedup_job.io.decoding import DecoderSettings, IsolatedDecoder
from dedup_job.kernels.images import ImageLimits, Prepared, measure, prepare
from tests.decoders import POISON_PATH, poison
from tests.photos import draw_photo, encode, jpeg

SETTINGS = DecoderSettings(32, 0.5, ImageLimits(max_aspect=3.0), timeout_s=20, memory_mb=512)


@pytest.fixture(scope="module")
def poisonable():
    """A decoder whose process dies as its photos ask for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(POISON_PATH)
        decoder = IsolatedDecoder(DecoderSettings(32, 0.5, timeout_s=1, memory_mb=512))
        yield decoder
        decoder.close()


@pytest.fixture(scope="module")
def decoder():
    opened = IsolatedDecoder(SETTINGS)
    yield opened
    opened.close()


def rejection(decode, data):
    with pytest.raises(ImageRejected) as caught:
        decode(data)
    return caught.value


def test_pixels_and_sizes_are_those_of_the_kernel(decoder):
    for data in (jpeg(1), encode(draw_photo(2), ".png"), encode(draw_photo(3, 300, 200), ".webp")):
        expected = prepare(data, 32, 0.5)
        got = decoder.prepare(data)
        assert np.array_equal(got.pixels, expected.pixels)
        assert (got.width, got.height) == (expected.width, expected.height)
        assert decoder.measure(data) == measure(data)


@pytest.mark.parametrize("data", [b"", b"<html>", jpeg(1)[:900], jpeg(1, 50, 400)], ids=len)
def test_rejections_are_those_of_the_kernel(decoder, data):
    expected = rejection(lambda data: prepare(data, 32, 0.5, SETTINGS.limits), data)
    got = rejection(decoder.prepare, data)
    assert (got.reason, got.detail) == (expected.reason, expected.detail)


def test_a_photo_of_megabytes_passes(decoder):
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    data = encode(noise, ".png")
    assert len(data) > 5_000_000
    assert np.array_equal(decoder.prepare(data).pixels, prepare(data, 32, 0.5).pixels)


@pytest.mark.parametrize(("word", "cause"), [("crash", "SIGSEGV"), ("abort", "SIGABRT")])
def test_a_crash_costs_its_photo_alone(poisonable, word, cause):
    assert poisonable.measure(poison(word)) == (120, 160)  # headers are harmless
    died = rejection(poisonable.prepare, poison(word))
    assert died.reason is RejectReason.DECODER_CRASH
    assert cause in died.detail
    assert poisonable.prepare(jpeg(1)).width == 120


def test_a_fault_of_ours_costs_its_photo_and_is_named(poisonable):
    poisonable.prepare(jpeg(1))
    before = poisonable.pid
    failed = rejection(poisonable.prepare, poison("fault"))
    assert failed.reason is RejectReason.DECODER_CRASH
    assert failed.detail == "ZeroDivisionError: a fault of ours"
    assert poisonable.pid == before


def test_a_hang_ends_at_the_timeout_and_is_not_tried_twice(poisonable):
    started = time.monotonic()
    hung = rejection(poisonable.prepare, poison("hang"))
    assert hung.reason is RejectReason.DECODER_TIMEOUT
    assert "images.decode_timeout_s" in hung.detail
    assert time.monotonic() - started < 10
    assert poisonable.prepare(jpeg(1)).width == 120


def test_a_child_that_is_stopped_ends_too(monkeypatch):
    monkeypatch.setattr(decoding, "_GRACE_S", 0.2)
    decoder = IsolatedDecoder(DecoderSettings(32, 0.5, timeout_s=0.5))
    decoder.prepare(jpeg(1))
    os.kill(decoder.pid, signal.SIGSTOP)
    assert rejection(decoder.prepare, jpeg(1)).reason is RejectReason.DECODER_TIMEOUT
    assert decoder.prepare(jpeg(1)).width == 120
    decoder.close()


def test_memory_is_bounded(decoder):
    # 200 megapixels would take more than the 512 MB that this decoder may have.
    wide = IsolatedDecoder(
        DecoderSettings(32, 0.5, ImageLimits(max_pixels=10**9, max_side_px=10**5), memory_mb=512)
    )
    data = encode(np.zeros((14_000, 14_000), np.uint8)[..., None].repeat(3, 2), ".png")
    too_much = rejection(wide.prepare, data)
    assert too_much.reason is RejectReason.TOO_MUCH_MEMORY
    assert "images.decode_memory_mb" in too_much.detail
    assert wide.prepare(jpeg(1)).width == 120, "the same process serves on"
    wide.close()


def test_who_is_killed_from_outside_gets_a_second_chance(decoder):
    decoder.prepare(jpeg(1))
    first = decoder.pid
    os.kill(first, signal.SIGKILL)
    assert decoder.prepare(jpeg(2)).width == 120
    assert decoder.pid != first


def test_threads_share_it(decoder):
    photos = [jpeg(seed) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(decoder.prepare, photos * 4))
    for photo, data in zip(got, photos * 4, strict=True):
        assert np.array_equal(photo.pixels, prepare(data, 32, 0.5).pixels)


def test_the_child_leaves_with_its_parent():
    decoder = IsolatedDecoder(SETTINGS)
    decoder.prepare(jpeg(1))
    process = decoder._child._process
    threading.Thread(target=decoder.close).start()
    assert process.wait(10) == 0
    assert decoder.pid is None


def test_an_answer_that_was_not_read_to_its_end_is_not_taken_for_the_next(monkeypatch):
    decoder = IsolatedDecoder(SETTINGS)
    expected = decoder.prepare(jpeg(2)).pixels

    def short_of_memory(self, n):
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(decoding._Child, "_finished", short_of_memory)
        decoder.prepare(jpeg(1))
    assert np.array_equal(decoder.prepare(jpeg(2)).pixels, expected)
    decoder.close()


def test_a_batch_is_answered_in_order(decoder):
    photos = [jpeg(seed) for seed in range(2 * decoding.BATCH_PHOTOS + 3)]
    photos[5], photos[-1] = b"", b"<html>"
    answers = decoder.prepare_all(photos)
    assert len(answers) == len(photos)
    for number, (data, answer) in enumerate(zip(photos, answers, strict=True)):
        if number in (5, len(photos) - 1):
            assert isinstance(answer, ImageRejected)
        else:
            assert np.array_equal(answer.pixels, prepare(data, 32, 0.5).pixels)
    assert decoder.prepare_all([]) == []


@pytest.mark.parametrize(
    ("words", "reasons"),
    [
        ({0: "crash"}, {0: RejectReason.DECODER_CRASH}),
        ({3: "crash", 4: "abort"}, {3: RejectReason.DECODER_CRASH, 4: RejectReason.DECODER_CRASH}),
        ({2: "hang", 6: "crash"}, {2: RejectReason.DECODER_TIMEOUT, 6: RejectReason.DECODER_CRASH}),
        ({1: "fault", 6: "hang"}, {1: RejectReason.DECODER_CRASH, 6: RejectReason.DECODER_TIMEOUT}),
    ],
    ids=str,
)
def test_who_dies_in_a_batch_costs_none_of_the_others(poisonable, words, reasons):
    photos = [jpeg(seed) for seed in range(7)]
    for number, word in words.items():
        photos[number] = poison(word)
    answers = poisonable.prepare_all(photos)
    died = {n: a.reason for n, a in enumerate(answers) if isinstance(a, ImageRejected)}
    assert died == reasons
    for number in set(range(7)) - set(died):
        assert np.array_equal(answers[number].pixels, prepare(photos[number], 32, 0.5).pixels)


def test_many_megabytes_in_one_batch_do_not_look_like_a_hang(monkeypatch):
    """All of the batch takes longer than one photo may."""
    monkeypatch.setattr(decoding, "_GRACE_S", 0.0)
    noise = np.random.default_rng(0).integers(0, 256, (2400, 2400, 3), dtype=np.uint8)
    data = encode(noise, ".png")
    patient = IsolatedDecoder(SETTINGS)
    started = time.monotonic()
    patient.prepare(data)
    one_s = time.monotonic() - started
    patient.close()
    decoder = IsolatedDecoder(DecoderSettings(32, 0.5, timeout_s=4 * one_s))
    assert [type(one) for one in decoder.prepare_all([data] * 12)] == [Prepared] * 12
    decoder.close()


def test_slots_do_not_believe_the_other_side_about_lengths():
    memory = create_slots_file(2, 100)
    slots = Slots(memory, 2, 100)
    slots.write(0, PREPARED, 3, 4, b"pixels")
    assert slots.read(0) == Answer(PREPARED, 3, 4, b"pixels")
    assert (slots.count_filled(2), slots.read(1).kind) == (1, EMPTY)
    slots._memory[9:13] = b"\xff" * 4
    assert len(slots.read(0).body) < 2000
    slots.clear()
    assert slots.count_filled(2) == 0
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(memory, 10)
    os.close(memory)


def test_large_photos_with_alpha_are_held_once():
    data = encode(np.zeros((5000, 5000, 4), np.uint8), ".png")  # 100 MB as they are, 75 MB as RGB
    decoder = IsolatedDecoder(DecoderSettings(32, 0.5, memory_mb=300))
    assert decoder.prepare(data).width == 5000
    decoder.close()


def test_a_machine_without_room_for_a_process_is_explained(monkeypatch):
    def fork_failed(*_args, **_kwargs):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(decoding.subprocess, "Popen", fork_failed)
    with pytest.raises(DedupError, match=r"did not start: Resource temporarily.*ulimit -u"):
        IsolatedDecoder(SETTINGS).prepare(jpeg(1))


def test_a_worker_without_room_for_the_shared_memory_is_explained(monkeypatch):
    def no_room(*_args):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(decoding, "create_slots_file", no_room)
    with pytest.raises(DedupError, match=r"did not start: Cannot allocate memory"):
        IsolatedDecoder(SETTINGS).prepare(jpeg(1))


def test_a_tighter_limit_that_stands_is_kept():
    # Above what this process has mapped, below what the child asks for.
    soft = 64 << 30
    before = resource.getrlimit(resource.RLIMIT_AS)
    roomy = IsolatedDecoder(DecoderSettings(32, 0.5, memory_mb=1 << 20))
    try:
        resource.setrlimit(resource.RLIMIT_AS, (soft, before[1]))
        roomy.prepare(jpeg(1))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert resource.prlimit(roomy.pid, resource.RLIMIT_AS)[0] == soft
    roomy.close()


def test_a_child_that_cannot_start_is_explained(monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('no memory for this')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DedupError, match=r"did not start: .*no memory for this"):
        IsolatedDecoder(SETTINGS).prepare(jpeg(1))
