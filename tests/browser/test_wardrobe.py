"""The gallery of real, labelled photos that lie beside the checkout, where they do."""

from pathlib import Path

import pytest

from dedup_job.io.decisions import read_decisions
from tests.e2e.jobs import read_report, run_job

WARDROBE = Path(__file__).parents[3] / "shared" / "bench" / "wardrobe"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.spark,
    pytest.mark.skipif(not WARDROBE.is_dir(), reason=f"needs the labelled photos in {WARDROBE}"),
]


def homes(warehouse):
    return {row["sku_id"]: row["group_id"] for row in read_report(warehouse, "duplicate_groups")}


def test_a_member_that_was_rejected_stays_out(spark, open_page, tmp_path):
    warehouse = tmp_path / "warehouse"
    first = run_job(WARDROBE / "catalog.csv", warehouse)
    before = homes(warehouse)
    page = open_page(warehouse / "gallery" / "index.html", accept_downloads=True)
    page.get_by_label("Match").select_option("near")
    assert 0 < page.locator("article").count() <= first.n_groups
    card = page.locator("article").first
    skus = card.locator(".sku").all_inner_texts()
    gone = skus[-1]
    card.get_by_role("button", name=f"Mark {gone} as another product").click()
    card.get_by_role("button", name="Reject marked").click()
    page.wait_for_function("[...document.images].filter((i) => i.naturalWidth).length > 4")
    page.screenshot(path=tmp_path / "desktop.png")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    exported = tmp_path / "decisions.csv"
    download.value.save_as(exported)
    said = read_decisions(str(exported)).decisions
    assert {sku for d in said for sku in d.pair} == set(skus)

    second = run_job(
        WARDROBE / "catalog.csv", warehouse, run_date="2026-01-03", decisions=str(exported)
    )
    after = homes(warehouse)
    assert second.decisions == {"applied": len(said)}
    assert all(after.get(gone, "alone") != after.get(sku) for sku in skus[:-1])
    others = {sku: group for sku, group in before.items() if sku not in skus}
    assert {sku: after.get(sku) for sku in others} == others
