"""What the pair verifier sees of a pair, and how answers become scores."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup_job.kernels.verifier import (
    PAIR_CHANNELS,
    ScoreRule,
    describe,
    golden_pairs,
    lay_pair,
    mean_answer,
)
from dedup_job.sample.photo import photograph
from dedup_job.sample.plan import plan_listings

SIZE = 128
WHITE = (255, 255, 255)
BASE, OVER, APART = (slice(start, start + 3) for start in (0, 3, 6))
INSIDE, SURE = 9, 10


@pytest.fixture(scope="module")
def photos():
    listings = [one for one in plan_listings(40, seed=5) if not one.edits][:6]
    drawn = (photograph(one.design, one.shot) for one in listings)
    return [cv2.resize(photo, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for photo in drawn]


def mirrored(photo):
    return np.ascontiguousarray(photo[:, ::-1])


def cropped(photo):
    """Its middle, as large as the photo."""
    inner = photo[12:-12, 12:-12]
    return cv2.resize(inner, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def shifted(photo):
    place = np.array([[1.0, 0, 17], [0, 1, -9]])
    return cv2.warpAffine(photo, place, (SIZE, SIZE), borderValue=WHITE)


def lay(a, b):
    return lay_pair(describe(a), describe(b))


def apart_inside(frame):
    """Mean difference where both photos are."""
    return frame[..., APART][frame[..., INSIDE] > 0].mean()


def test_a_pair_is_two_frames_of_all_channels(photos):
    frames = lay(*photos[:2])
    assert frames.shape == (2, SIZE, SIZE, PAIR_CHANNELS) and frames.dtype == np.uint8
    assert (frames[0, ..., BASE] == photos[0]).all()


def test_a_photo_lies_on_itself(photos):
    for photo in photos:
        for frame in lay(photo, photo.copy()):
            assert (frame[..., BASE] == photo).all()
            assert frame[..., APART].mean() < 1.5
            assert (frame[..., INSIDE] == 255).mean() > 0.95
            assert frame[..., SURE].min() >= 50


@pytest.mark.parametrize("edit", [mirrored, cropped, shifted], ids=lambda edit: edit.__name__)
def test_an_edited_copy_is_laid_over_the_photo_in_both_frames(photos, edit):
    good = 0
    for photo in photos:
        copy = edit(photo)
        before = np.abs(copy.astype(int) - photo).mean()
        frames = lay(photo, copy)
        good += all(
            apart_inside(frame) < max(5, before / 3)
            and (frame[..., INSIDE] > 0).mean() > 0.5
            and frame[..., SURE].min() >= 40
            for frame in frames
        )
    assert good >= 5  # one of six may have little to hold on to


def test_the_difference_counts_only_where_the_other_photo_is(photos):
    outside = 0
    for photo in photos:
        for frame in lay(photo, cropped(photo)):
            beside = frame[..., INSIDE] == 0
            outside += beside.sum()
            assert (frame[..., APART][beside] == 0).all()
            assert (frame[..., OVER][beside] == 255).all()
            here = ~beside
            apart = cv2.absdiff(frame[..., BASE].copy(), frame[..., OVER].copy())
            assert (frame[..., APART][here] == apart[here]).all()
    assert outside > 1_000


def test_the_second_frame_is_b_with_a_over_it(photos):
    a, b = photos[0], cropped(photos[0])
    frames = lay(a, b)
    assert (frames[0, ..., BASE] == a).all() and (frames[1, ..., BASE] == b).all()
    # The crop covers the middle of the photo; the photo covers all of the crop.
    share = [(frame[..., INSIDE] > 0).mean() for frame in frames]
    assert 0.5 < share[0] < 0.85 and share[1] > 0.95
    turned_round = lay(b, a)
    assert (turned_round[0, ..., BASE] == b).all() and (turned_round[1, ..., BASE] == a).all()


def test_a_mirrored_copy_is_turned_before_it_is_a_frame(photos):
    frames = lay(photos[0], mirrored(photos[0]))
    assert (frames[1, ..., BASE] == photos[0]).all()


def test_what_was_printed_on_a_moved_copy_is_where_they_differ(photos):
    photo = photos[0]
    printed = photo.copy()
    printed[56:72, 56:72] = (255, 220, 0)
    frame = lay(photo, shifted(printed))[0]
    elsewhere = frame[..., APART].copy()
    elsewhere[48:80, 48:80] = 0
    assert np.median(frame[58:70, 58:70, APART]) > 25
    assert np.quantile(elsewhere, 0.95) < 10


def test_unrelated_photos_are_not_surely_laid(photos):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for _ in range(4)]
    smooth = [cv2.GaussianBlur(one, (0, 0), 2) for one in noise]
    sure = [lay(a, b)[..., SURE].max() for a in photos[:3] for b in smooth]
    copies = [lay(photo, cropped(photo))[..., SURE].max() for photo in photos]
    assert np.median(sure) <= 25 and max(sure) < np.median(copies)


def test_a_photo_of_nothing_lies_as_it_was(photos):
    blank = np.full((SIZE, SIZE, 3), 255, np.uint8)
    frames = lay(photos[0], blank)
    assert (frames[..., SURE] == 0).all() and (frames[..., INSIDE] == 255).all()
    assert (frames[0, ..., OVER] == blank).all() and (frames[1, ..., OVER] == photos[0]).all()


numbers = st.floats(-60, 60)
cosines = st.floats(-1, 1)
rules = st.builds(ScoreRule, numbers, st.floats(0, 5), st.floats(0, 60))


@given(rules, st.lists(st.tuples(numbers, cosines), min_size=1, max_size=8), st.floats(0, 20))
def test_scores_are_within_0_and_1_and_rise_with_both(rule, pairs, more):
    answers, cosines = np.array(pairs).T
    scores = rule.score(answers, cosines)
    assert scores.dtype == np.float32 and scores.shape == (len(pairs),)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (rule.score(answers + more, cosines) >= scores).all()
    assert (rule.score(answers, cosines + more / 20) >= scores).all()


def test_the_score_is_a_logistic_of_a_quarter_of_the_log_odds():
    rule = ScoreRule(bias=-5.0, answer_weight=0.5, cosine_weight=10.0)
    log_odds = -5.0 + 0.5 * 4.0 + 10.0 * 0.75
    expected = 1 / (1 + np.exp(-log_odds / 4))
    assert rule.score([4.0], [0.75])[0] == pytest.approx(expected, abs=1e-6)
    assert rule.score([4.0], [0.75])[0] < rule.score([4.1], [0.75])[0]
    assert rule.score([4.0], [0.75])[0] < rule.score([4.0], [0.76])[0]
    # Odds of a million to one are told from odds of a thousand to one.
    thousand, million = ScoreRule(0, 1, 0).score(np.log([1e3, 1e6]), [0, 0])
    assert thousand == pytest.approx(0.849, abs=1e-3) and million == pytest.approx(0.969, abs=1e-3)


def test_no_pair_gives_no_score():
    assert ScoreRule(0, 1, 1).score([], []).shape == (0,)


def test_an_answer_is_the_sum_of_votes_averaged_over_the_frames():
    votes = [np.array([1.0, 2.0, -0.5], np.float32), np.array([0.0, 0.5, 1.0], np.float32)]
    assert mean_answer(votes) == pytest.approx((2.5 + 1.5) / 2)
    assert mean_answer(votes) == mean_answer(votes[::-1])
    assert mean_answer(votes[:1]) == 2.5


def test_golden_pairs_are_neighbours(photos):
    pairs = golden_pairs(np.stack(photos[:4]))
    assert len(pairs) == 3
    for number, pair in enumerate(pairs):
        assert (pair == lay(photos[number], photos[number + 1])).all()
