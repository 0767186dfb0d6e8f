"""The gallery in a real browser: look, decide, export; and the next run does as it was told."""

import csv

import pytest

from benchmarks.gallery import draw_page
from dedup_job.commands.export_csv import export_csv
from dedup_job.io.decisions import read_decisions
from tests.e2e.jobs import read_report, run_job, write_csv
from tests.photos import draw_photo, encode

pytestmark = [pytest.mark.browser, pytest.mark.spark]

MARKUP, FORMULA = "<img src=x onerror=alert(1)>", "=cmd()"
# photo -> SKUs that show it, each group an exact copy
SHOP = {
    1: ["coat 1", "coat 2", "coat 3"],
    2: [MARKUP, FORMULA],
    3: ["hat 1", "hat 2"],
    4: ["alone"],
}


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory):
    """(catalog, warehouse) after one night."""
    folder = tmp_path_factory.mktemp("gallery")
    for photo in SHOP:
        (folder / f"{photo}.png").write_bytes(encode(draw_photo(photo, 90, 120), ".png"))
    catalog = write_csv(
        folder / "catalog.csv",
        [{"sku_id": sku, "image_uri": f"{n}.png"} for n, skus in SHOP.items() for sku in skus],
    )
    run_job(catalog, folder / "out", match__min_cosine=1.0)
    return catalog, folder / "out"


def groups(warehouse):
    found = {}
    for row in read_report(warehouse, "duplicate_groups"):
        found.setdefault(row["group_id"], set()).add(row["sku_id"])
    return sorted(sorted(skus) for skus in found.values())


def export(page, path):
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    download.value.save_as(path)
    return path


def card(page, sku):
    return page.locator("article", has=page.locator(".sku", has_text=sku))


def test_what_is_decided_in_the_page_is_what_the_next_run_does(shop, open_page, tmp_path):
    catalog, warehouse = shop
    page = open_page(warehouse / "gallery" / "index.html", accept_downloads=True)
    assert page.locator("article").count() == 3
    page.wait_for_function(
        "[...document.images].every((i) => i.complete && i.naturalWidth === 256)"
    )

    page.get_by_label("SKU or group").fill("COAT")
    assert page.locator("article").count() == 1
    assert page.get_by_role("status").inner_text() == "1 group"
    coat = card(page, "coat 2")
    coat.get_by_role("button", name="Mark coat 2 as another product").click()
    coat.get_by_role("button", name="Reject marked").click()
    assert "rejected: coat 2" in coat.inner_text()
    page.get_by_role("button", name="Clear filters").click()
    card(page, FORMULA).get_by_role("button", name="Accept all").click()
    page.get_by_label("Your name").fill("=ann")
    exported = export(page, tmp_path / "decisions.csv")

    assert "'=cmd()" in exported.read_text()  # no spreadsheet computes it
    said = {d.pair: d.decision for d in read_decisions(str(exported)).decisions}
    assert said == {
        ("coat 1", "coat 2"): "different",
        ("coat 2", "coat 3"): "different",
        ("coat 1", "coat 3"): "same",
        (MARKUP, FORMULA): "same",
    }
    assert {d.decided_by for d in read_decisions(str(exported)).decisions} == {"=ann"}
    run_job(
        catalog, warehouse, run_date="2026-01-03", match__min_cosine=1.0, decisions=str(exported)
    )
    assert groups(warehouse) == sorted(
        [["coat 1", "coat 3"], sorted([MARKUP, FORMULA]), ["hat 1", "hat 2"]]
    )
    outcomes = {row["outcome"] for row in read_report(warehouse, "pair_decisions")}
    assert outcomes == {"applied"}
    again = open_page(warehouse / "gallery" / "index.html")
    again.get_by_label("Show").select_option("open")
    assert [one.inner_text() for one in again.locator(".sku").all()] == ["hat 1", "hat 2"]


def test_keys_do_all_that_the_mouse_does(shop, open_page, tmp_path):
    page = open_page(shop[1] / "gallery" / "index.html", accept_downloads=True)
    page.get_by_label("SKU or group").fill("hat")
    page.locator("h1").click()
    for key in ("j", "2", "r"):
        page.keyboard.press(key)
    assert "rejected: hat 2" in card(page, "hat 1").inner_text()
    assert page.evaluate("document.activeElement.tagName") == "ARTICLE"
    page.keyboard.press("u")
    assert page.get_by_role("button", name="Export 0 decisions").count() == 1
    page.keyboard.press("s")
    page.reload()  # the browser keeps what was decided
    said = read_decisions(str(export(page, tmp_path / "d.csv"))).decisions
    assert [(d.pair, d.decision) for d in said] == [(("hat 1", "hat 2"), "different")]
    assert all(len(photo) == 16 for d in said for photo in d.photos_a | d.photos_b)


def test_hostile_ids_are_text_and_no_spreadsheet_computes_them(shop, open_page, tmp_path):
    page = open_page(shop[1] / "gallery" / "index.html")
    assert card(page, MARKUP).locator(".sku", has_text=MARKUP).inner_text() == MARKUP
    assert page.locator("img[src='x']").count() == 0
    export_csv(str(shop[1]), "duplicate_groups", str(tmp_path / "groups.csv"))
    with (tmp_path / "groups.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = {cell for row in csv.reader(file) for cell in row}
    assert "'=cmd()" in cells and "=cmd()" not in cells


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_on_a_phone_and_to_those_who_do_not_see_it(shop, open_page, scheme):
    page = open_page(
        shop[1] / "gallery" / "index.html",
        viewport={"width": 360, "height": 740},
        color_scheme=scheme,
    )
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("input, select, button, img, article")]
            .filter((e) => !(e.labels?.length || e.textContent.trim() || e.alt || e.ariaLabel))
            .map((e) => e.outerHTML)"""
    )
    assert unnamed == []
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select")]
            .filter((e) => e.offsetHeight < 44).length"""
    )
    assert small == 0
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 10 and min(contrasts) >= 4.5


# WCAG 2.2, relative luminance and contrast ratio, of every element that holds text itself.
CONTRASTS = """() => {
  const parts = (c) => c.match(/[0-9.]+/g).map(Number);
  const light = (c) => {
    const [r, g, b] = parts(c).slice(0, 3).map((v) => {
      v /= 255;
      return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if ((parts(c)[3] ?? 1) > 0) return c;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.body.querySelectorAll("*")]
    .filter((e) => !e.disabled && e.offsetParent && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((e) => {
      const [x, y] = [light(getComputedStyle(e).color), light(behind(e))].sort((m, n) => n - m);
      return (x + 0.05) / (y + 0.05);
    });
}"""


def test_ten_thousand_groups_are_one_page_that_can_be_used(open_page, tmp_path):
    path = tmp_path / "index.html"
    path.write_text(draw_page(10_000))
    page = open_page(path)
    assert page.locator("article").count() == 24
    page.get_by_label("SKU or group").fill("sku-29999")
    assert page.locator("article").count() == 1
    assert path.stat().st_size < 6_000_000
