"""A report of the default embedder on drawn garments: one file, everything in it, nothing outside."""

import base64
import contextlib
import io
import itertools
import json
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from model_training import report, report_photos
from model_training.cli import main
from model_training.data import is_held_out
from model_training.report_numbers import even_odds
from tests.bundles_with_verifier import write_plain_bundle
from tests.photos_for_training import draw_garment

HOSTILE = "<img src=x onerror=alert(1)>"
SECTIONS = {
    "summary": 0, "sets": 0, "similarity": 1, "curves": 1, "confusion": 1, "reliability": 1,
    "kinds": 2, "look-alikes": 0, "map": 1, "what-counts": 4, "gates": 3, "erasure": 3,
    "recognised": None, "told-apart": None, "false": 2 * 20, "unrelated": 2 * 20,
    "missed": 2 * 12,
}  # fmt: skip  # None: some pairs, how many depends on the model


def held_out_names(n: int) -> list[str]:
    """File names that the split keeps out of training; the first is hostile."""
    some = (f"{HOSTILE}{i}.png" for i in itertools.count())
    others = (f"{i}.png" for i in itertools.count())
    names = [next(name for name in some if is_held_out(name, 0.12))]
    return names + list(itertools.islice((x for x in others if is_held_out(x, 0.12)), n - 1))


def write_photos(folder, n):
    folder.mkdir()
    for i, name in enumerate(held_out_names(n)):
        _, data = cv2.imencode(".png", draw_garment(i)[:, :, ::-1])
        (folder / name).write_bytes(data.tobytes())
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A bundle without a verifier."""
    return write_plain_bundle(tmp_path_factory.mktemp("plain") / "bundle")


def evaluate(bundle, photos, cache, *more):
    return main(["evaluate", "--bundle", str(bundle), "--photos", str(photos),
                 "--cache-dir", str(cache), *map(str, more)])  # fmt: skip


class Page(HTMLParser):
    """Sections with the images in them, and everything an attribute or a tag could do."""

    def __init__(self, text):
        super().__init__()
        self.images, self.tags, self.links, self.ids, self.text = {}, set(), [], [], []
        self.section = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.add(tag)
        assert not [name for name in attributes if name.startswith("on")]
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "section":
            self.section = attributes["id"]
            self.images[self.section] = []
        elif tag == "img":
            self.images[self.section].append(attributes)
        elif tag == "a":
            self.links.append(attributes["href"])

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory, plain):
    """The file of a first run, that of a second, and the JSON."""
    folder = tmp_path_factory.mktemp("report")
    photos = write_photos(folder / "photos", 12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_photos, "_N_PHOTOS", 1)
        answers = []
        for name in ("first.html", "new/second.html"):
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                assert evaluate(plain, photos, folder / "cache", "--html", folder / name) == 0
            answers.append(out.getvalue())
    assert answers[0] == answers[1]
    files = [(folder / name).read_text("utf-8") for name in ("first.html", "new/second.html")]
    assert sorted(p.name for p in folder.iterdir()) == ["cache", "first.html", "new", "photos"]
    return (*files, json.loads(answers[0]))


def test_the_same_photos_make_the_same_file(made):
    assert made[0] == made[1] and len(made[0]) < 6_000_000


def test_every_section_has_its_pictures(made):
    page = Page(made[0])
    for name, n in SECTIONS.items():
        n_images = len(page.images[name])
        assert n_images == n or (n is None and n_images >= 2 and n_images % 2 == 0), name
    assert page.links == [f"#{name}" for name in SECTIONS] and page.ids == list(SECTIONS)
    for image in itertools.chain(*page.images.values()):
        kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,(.*)", image["src"]).groups()
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape[:2] == (int(image["height"]), int(image["width"]))
        assert image["loading"] == "lazy" and image["alt"]
        assert kind == "jpeg" or np.ptp(pixels) > 100


def test_it_asks_nobody_for_anything_and_runs_nothing(made):
    page = Page(made[0])
    assert not page.tags & {"script", "link", "iframe", "object", "base", "form"}
    assert not re.search(r"https?:|//\w|url\(", re.sub(r"base64,[\w+/=]*", "", made[0]))
    assert "default-src 'none'" in made[0]


def test_names_of_photos_are_text(made):
    assert HOSTILE not in made[0]
    said = [text for text in Page(made[0]).text if HOSTILE in text]
    assert said  # the parser gives back what a reader sees


def test_it_names_the_model_and_counts_the_data(made):
    text = " ".join(Page(made[0]).text)
    figures = made[2]["trained_kinds"]["all"]
    assert "verified" not in made[2]
    assert made[2]["model_id"] in text
    assert figures["n_views"] == 60 and figures["n_duplicate_pairs"] == 12 * (3 + 1)
    for name in ("uap", "roc_auc", "hard_auc", "recall_at_1"):
        low, high = figures["intervals"][name]
        assert low <= figures[name] <= high
        assert f"{figures[name]:.4f}" in text and f"{low:.4f} to {high:.4f}" in text


def test_figures_without_a_report_are_the_same(made, plain, tmp_path, capsys):
    photos = write_photos(tmp_path / "photos", 12)
    assert evaluate(plain, photos, tmp_path / "cache") == 0
    assert json.loads(capsys.readouterr().out) == made[2]


def refused(capsys):
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("model-training: ") and err.count("\n") == 1
    return err


@pytest.mark.parametrize(("place", "said"), [("", "is a directory"), ("file/r.html", "written")])
def test_a_place_that_cannot_be_written_is_told_first(plain, tmp_path, capsys, place, said):
    (tmp_path / "file").write_text("")
    assert evaluate(plain, tmp_path / "none", tmp_path, "--html", tmp_path / place) == 2
    assert said in refused(capsys)


def test_too_few_products_for_a_report(plain, tmp_path, capsys):
    photos = write_photos(tmp_path / "photos", 9)
    assert evaluate(plain, photos, tmp_path / "cache", "--html", tmp_path / "r.html") == 2
    assert "9 held-out products" in refused(capsys) and not (tmp_path / "r.html").exists()


def test_a_disk_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "render_report", lambda evidence: "text")
    (tmp_path / "r.html").mkdir()  # made while the report was computed
    with pytest.raises(report.ConfigError, match=r"--html .*r\.html cannot be written: Is a dir"):
        report.write_report(tmp_path / "r.html", None)
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_even_odds_is_where_the_probability_passes_a_half():
    calibration = type("C", (), {"match_probability": staticmethod(lambda c: (c + 1) / 2)})
    assert even_odds(calibration) == pytest.approx(0.0, abs=1e-9)
    never = type("C", (), {"match_probability": staticmethod(lambda c: c * 0)})
    assert even_odds(never) is None
