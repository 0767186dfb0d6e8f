"""Every catalog row ends in exactly one place, and no retry counts twice (R12, R18)."""

import os
import signal
from collections import Counter
from dataclasses import asdict
from datetime import date, timedelta
from itertools import count

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pyspark import TaskContext

from dedup_job.nightly import photo_stage
from tests.e2e.jobs import read_report, run_job, write_csv
from tests.e2e.shop import Shop
from tests.faults.published import reports
from tests.photos import draw_photo, encode, jpeg

pytestmark = [pytest.mark.spark, pytest.mark.fault]

ANYTHING_GOES = {
    "gates__max_reject_rate": 1.0,
    "gates__max_row_drop": 1.0,
    "gates__max_grouped_share_change": 1.0,
    "match__min_cosine": 0.9,
    "candidates__search": "exact",
}
# file -> why a row that names it is rejected; None: it is a photo
FILES = {
    **{f"good-{design}.jpg": None for design in range(4)},
    "copy-of-0.jpg": None,
    "missing.jpg": "not_found",
    "empty.jpg": "empty_file",
    "page.jpg": "not_image",
    "cut.jpg": "truncated",
    "tiny.png": "too_small",
    "ftp://shop/a.jpg": "uri_refused",
    "": "null_uri",
}
MAX_SKUS_PER_PHOTO = 3


class Warehouse:
    """Nights over small catalogs, and what is embedded by now."""

    def __init__(self, folder):
        self.folder, self.days, self.embedded = folder, count(), set()
        for design in range(4):
            (folder / f"good-{design}.jpg").write_bytes(jpeg(design))
        (folder / "copy-of-0.jpg").write_bytes(jpeg(0))
        (folder / "empty.jpg").write_bytes(b"")
        (folder / "page.jpg").write_bytes(b"<!DOCTYPE html><title>404</title>")
        (folder / "cut.jpg").write_bytes(jpeg(9, 300, 400)[:4000])
        (folder / "tiny.png").write_bytes(encode(draw_photo(1, 1, 1), ".png"))

    def night(self, rows):
        """Run a catalog of (SKU, file) rows as the next night."""
        named = [{"sku_id": sku, "image_uri": file} for sku, file in rows]
        catalog = write_csv(self.folder / "catalog.csv", named)
        return run_job(
            catalog,
            self.folder / "out",
            run_date=(date(2026, 1, 1) + timedelta(days=next(self.days))).isoformat(),
            match__max_skus_per_photo=MAX_SKUS_PER_PHOTO,
            **ANYTHING_GOES,
        )


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    return Warehouse(tmp_path_factory.mktemp("counts"))


def where_rows_end(rows, known):
    """Counter of places by the rules as written, one row after the other, and the contents shown."""
    ends, shown = Counter(), []
    seen = set()
    for sku, file in rows:
        if not sku:
            ends["null_sku"] += 1
        elif FILES[file] in ("null_uri", "uri_refused"):
            ends[FILES[file]] += 1
        elif (sku, file) in seen:
            ends["duplicate_row"] += 1
        elif FILES[file] is not None:
            ends[FILES[file]] += 1
            seen.add((sku, file))
        else:
            seen.add((sku, file))
            shown.append((sku, "good-0.jpg" if file == "copy-of-0.jpg" else file))
    skus = {content: {s for s, c in shown if c == content} for _, content in shown}
    told = set()
    for _, content in shown:
        if len(skus[content]) > MAX_SKUS_PER_PHOTO:
            ends["placeholder"] += 1
        elif content in told:
            ends["shared_content"] += 1
        else:
            ends["reused" if content in known else "embedded"] += 1
            told.add(content)
    return ends, set(skus), {file for _, file in seen}


catalogs = st.lists(
    st.tuples(st.sampled_from(["", *(f"sku-{n}" for n in range(8))]), st.sampled_from(list(FILES))),
    min_size=4,
    max_size=24,
)


# No shrinking: the nights build on one another.
@settings(max_examples=6, derandomize=True, phases=[Phase.generate])
@given(rows=catalogs)
def test_every_row_ends_in_one_place(spark, warehouse, rows):
    rows = [("sku-0", "good-1.jpg"), *rows]  # a night without any photo is held back
    ends, contents, files = where_rows_end(rows, warehouse.embedded)
    result = warehouse.night(rows)
    warehouse.embedded |= contents
    places = {k: v for k, v in asdict(result.rows).items() if k != "catalog"}
    assert sum(places.values()) == result.rows.catalog == len(rows)
    assert result.rejects_by_reason == {k: n for k, n in ends.items() if k not in places}
    assert places == {k: ends[k] for k in places if k != "rejected"} | {
        "rejected": sum(result.rejects_by_reason.values())
    }
    rejects = read_report(warehouse.folder / "out", "rejected_images")
    assert Counter(row["reason"] for row in rejects) == result.rejects_by_reason
    assert len({row["catalog_row"] for row in rejects}) == len(rejects)
    photos = result.photos
    assert photos.fetched + photos.not_modified + photos.remembered == len(files)


def test_figures_stay_exact_when_every_photo_task_is_repeated(spark, tmp_path, monkeypatch):
    shop = Shop(tmp_path / "shop", seed=8, n_designs=10)
    for _ in range(40):
        shop.add()
    catalog, told = shop.write(), {"embed__photos_per_task": 10, **ANYTHING_GOES}
    expected = run_job(catalog, tmp_path / "undisturbed", **told)
    attempts = tmp_path / "attempts"
    attempts.mkdir()
    open_fetch = photo_stage.open_fetch

    def open_dying(policy):
        """The first attempt at a task dies at its third photo, without a word."""
        fetch, task, numbers = open_fetch(policy), TaskContext.get(), count()
        number, attempt = task.partitionId(), task.attemptNumber()
        (attempts / f"{number}-{attempt}").touch()

        def dying(*asked):
            if attempt == 0 and next(numbers) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return fetch(*asked)

        return dying

    monkeypatch.setattr(photo_stage, "open_fetch", open_dying)
    result = run_job(catalog, tmp_path / "disturbed", **told)
    repeated = {path.name for path in attempts.iterdir() if path.name.endswith("-1")}
    assert len(repeated) >= 3
    for figures in ("rows", "photos", "changes", "n_pairs", "n_groups", "n_grouped_skus"):
        assert getattr(result, figures) == getattr(expected, figures), figures
    assert result.photos.fetched == result.rows.catalog == 40
    assert reports(tmp_path / "disturbed") == reports(tmp_path / "undisturbed")
    metrics = {
        (row["stage"], row["metric"]): row["value"]
        for row in read_report(tmp_path / "disturbed", "run_metrics")
    }
    assert metrics["embeddings", "photos_fetched"] == 40
