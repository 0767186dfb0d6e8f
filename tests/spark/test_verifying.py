"""A night's verification: what is seen, what is counted, what a rerun takes over."""

import logging
from datetime import UTC, date, datetime

import numpy as np
import pytest

from dedup_job.io.bundles import locate_bundle
from dedup_job.io.embedding_store import EmbeddingStore
from dedup_job.io.storage import Folder
from dedup_job.io.tables import write_rows
from dedup_job.kernels.bundle import read_manifest
from dedup_job.kernels.pictures import pack_picture
from dedup_job.nightly import verifying
from dedup_job.nightly.context import RunContext
from dedup_job.nightly.journal import open_journal
from dedup_job.nightly.photo_stage import Model
from dedup_job.nightly.verifying import verify_candidates
from dedup_job.stages.candidates import SearchOutcome
from dedup_job.tables import IMAGE_EMBEDDINGS, PHOTO_PAIRS
from tests.photos import draw_photo

pytestmark = pytest.mark.spark
FLOOR = 0.5
N_CONTENTS, N_PAIRS = 10, 45
PICTURES = {f"{n:064x}": pack_picture(draw_photo(n, 128, 128)) for n in range(N_CONTENTS)}
SHAS = list(PICTURES)


class Greys:
    """A verifier that knows the mean grey levels only."""

    def answer(self, a, b):
        return float(a.pixels.mean()) - 2 * float(b.pixels.mean())

    def score(self, answers, cosines):
        return (np.array(answers) / 1_000 + cosines).astype(np.float32)


def open_greys(bundle, n_threads):
    return Greys()


@pytest.fixture(scope="module")
def model():
    """Whose verifier is `Greys`. Without calibrations, for no threshold is solved here."""
    directory = locate_bundle("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verifying, "load_shipped_verifier", open_greys)
        yield Model(directory, read_manifest(directory), None, None)


@pytest.fixture(scope="module")
def outcome(spark):
    """All pairs of all contents, two of them in two blocks, and one below the floor."""
    pairs = [(a, b) for a in SHAS for b in SHAS if a < b]
    rows = [("x", a, b, 0.5 + i / 128, None) for i, (a, b) in enumerate(pairs)]
    rows += [("y", *row[1:]) for row in rows[:2]]
    rows.append(("x", SHAS[0], "f" * 64, 0.25, None))
    kept = spark.createDataFrame(rows, PHOTO_PAIRS.ddl).cache()
    return SearchOutcome(kept, None, None, None, True, (), kept, 0.25, 0, 0, False)


class Night:
    """A run over a warehouse, up to where candidates were searched."""

    def __init__(self, spark, model, folder, run_id="run-1"):
        self.model, self.warehouse = model, Folder(str(folder))
        self.journal = open_journal(self.warehouse, run_id, "inputs")
        started = datetime(2026, 1, 2, tzinfo=UTC)
        self._context = RunContext(
            spark, self.warehouse, date(2026, 1, 2), run_id, started, None, self.journal
        )

    def write(self, pictures):
        rows = [
            {"content_sha256": sha, "embedding": np.zeros(2, np.float32), "picture": picture}
            for sha, picture in pictures.items()
        ]
        return write_rows(rows, IMAGE_EMBEDDINGS, self._context.new_folder("image_embeddings"))

    def store(self, pictures):
        """Let an earlier night have stored them."""
        EmbeddingStore(self.warehouse, self.model.manifest.model_id).append(
            self.write(pictures), "earlier"
        )

    def verify(self, outcome, tonight):
        """The outcome, and (block, content, content) -> score of all pairs kept."""
        embedded = self.write(tonight)
        found = verify_candidates(self._context, self.model, "litert", outcome, FLOOR, embedded)
        return found, {(r.block, r.sha_a, r.sha_b): r.score for r in found.kept_pairs.collect()}


def halves():
    """What an earlier night stored, and what is new tonight."""
    return dict(list(PICTURES.items())[:6]), dict(list(PICTURES.items())[6:])


@pytest.fixture(scope="module")
def undisturbed(spark, model, outcome, tmp_path_factory):
    """Verified in one go."""
    night = Night(spark, model, tmp_path_factory.mktemp("undisturbed"))
    stored, tonight = halves()
    night.store(stored)
    return *night.verify(outcome, tonight), list(night.journal.steps)


def test_pairs_from_the_floor_on_are_verified_and_counted_once(undisturbed):
    found, scores, steps = undisturbed
    assert found.n_verified == N_PAIRS
    assert steps == ["verified_pairs-0-of-1", "photo_pairs-1"]
    assert len(scores) == N_PAIRS + 3
    assert [pair for pair, score in scores.items() if score is None] == [("x", SHAS[0], "f" * 64)]
    assert len(set(scores.values())) > N_PAIRS / 2
    in_both = [pair[1:] for pair in scores if pair[0] == "y"]
    assert len(in_both) == 2
    assert all(scores["x", *pair] == scores["y", *pair] for pair in in_both)


@pytest.mark.fault
def test_a_run_that_failed_between_chunks_is_continued_there(
    spark, model, outcome, undisturbed, tmp_path, monkeypatch
):
    monkeypatch.setattr(verifying, "_PAIRS_PER_CORE_AND_CHUNK", 6)  # on two cores: four chunks
    stored, tonight = halves()
    failing = Night(spark, model, tmp_path)
    failing.store(stored)
    write, written = verifying._write_verified, []

    def write_two(*arguments):
        if len(written) == 2:
            raise OSError("no space left")
        written.append(arguments)
        return write(*arguments)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr(verifying, "_write_verified", write_two)
        failing.verify(outcome, tonight)
    steps = [f"verified_pairs-{number}-of-4" for number in range(4)]
    assert list(failing.journal.steps) == steps[:2]

    rerun = Night(spark, model, tmp_path, "run-2")
    found, scores = rerun.verify(outcome, tonight)
    assert rerun.journal.adopted_from == "run-1"
    assert rerun.journal.reused == steps[:2]
    assert list(rerun.journal.steps) == [*steps, "photo_pairs-1"]
    expected, expected_scores, _ = undisturbed
    assert scores == expected_scores
    assert found.n_verified == expected.n_verified


def test_pairs_without_a_picture_are_told_and_wait(
    spark, model, outcome, undisturbed, tmp_path, monkeypatch, caplog
):
    """One picture is missing, one damaged; others lie there twice, which must not hide that."""
    monkeypatch.setattr(verifying, "_PAIRS_PER_CORE_AND_CHUNK", 12)  # on two cores: two chunks
    blind = {SHAS[1]: None, SHAS[2]: b"no picture"}
    stored, tonight = halves()
    night = Night(spark, model, tmp_path)
    night.store(stored | blind)
    doubled = {sha: picture for sha, picture in stored.items() if sha not in blind}
    with caplog.at_level(logging.WARNING, "dedup_job"):
        found, scores = night.verify(outcome, tonight | doubled)
    n_blind = 9 + 8
    assert found.n_verified == N_PAIRS - n_blind
    assert len(night.journal.steps) == 2 + 1
    _, expected, _ = undisturbed
    assert scores == {
        pair: None if blind.keys() & set(pair) else score for pair, score in expected.items()
    }
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert f"{n_blind} pairs have no picture that can be read and were not verified" in warning
    assert f"delete {tmp_path}/image_embeddings/model_id={model.manifest.model_id}" in warning
