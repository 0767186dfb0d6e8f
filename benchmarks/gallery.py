"""The gallery at many groups in a real browser: bytes, first paint, and the time of a filter.

    python -m benchmarks.gallery [--groups 10000] [--rounds 3] [--out FILE.json]

Needs Chromium (Debian: apt-get install chromium). Groups are of three members without thumbnails: those
are read when they come into view.
"""

import argparse
import json
import shutil
import statistics
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

from dedup_job.gallery.cards import build_cards
from dedup_job.gallery.page import render_page

# Filters and renders as typing does, and waits until the page is laid out.
_FILTER = """([id, value]) => {
  const started = performance.now();
  document.getElementById(id).value = value;
  document.getElementById("filters").dispatchEvent(new Event("input"));
  document.body.offsetHeight;
  return performance.now() - started;
}"""
_FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def draw_page(n_groups: int) -> str:
    """The page of so many groups."""
    groups: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    photos: dict[str, list[str]] = {}
    for i in range(n_groups):
        group_id, skus = f"g20260101-{i:016x}", [f"SKU-{3 * i + j:05}" for j in range(3)]
        photos.update({sku: [f"{3 * i + j:016x}"] for j, sku in enumerate(skus)})
        groups += [
            {
                "group_id": group_id,
                "sku_id": sku,
                "canonical_sku_id": skus[0],
                "is_canonical": sku == skus[0],
                "cosine_to_canonical": 0.95,
                "min_pair_cosine": 0.9,
                "match_type": "near",
            }
            for sku in skus
        ]
        pairs += [
            {
                "group_id": group_id,
                "sku_id_a": a,
                "sku_id_b": b,
                "score": 0.7,
                "match_probability": round(0.5 + i / (2 * n_groups), 4),
                "decision": None,
            }
            for a, b in combinations(skus, 2)
        ]
    cards = build_cards(groups, pairs, {}, [], photos, with_scores=True)
    data = {"run_date": "2026-01-01", "store": "x", "about": "", "thumbnails": {}}
    return render_page({**data, "groups": cards})


def measure(path: Path, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each round."""
    from playwright.sync_api import sync_playwright

    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        raise SystemExit("no Chromium here (Debian: apt-get install chromium)")
    found: dict[str, list[float]] = {"first paint": [], "search": [], "probability": []}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for _ in range(rounds):
            page = browser.new_page()
            page.goto(f"file://{path}")
            page.wait_for_function(f"{_FIRST_PAINT} > 0")
            found["first paint"].append(page.evaluate(_FIRST_PAINT))
            found["search"].append(page.evaluate(_FILTER, ["search", "sku-299"]))
            page.evaluate(_FILTER, ["search", ""])
            found["probability"].append(page.evaluate(_FILTER, ["min-probability", "0.9"]))
            page.close()
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.html"
        path.write_text(draw_page(arguments.groups))
        n_bytes, found = path.stat().st_size, measure(path, arguments.rounds)
    print(f"{arguments.groups} groups, {n_bytes / 1e6:.1f} MB")
    for name, times in found.items():
        print(
            f"{name:12s} {min(times):6.0f} to {max(times):.0f} ms, median {statistics.median(times):.0f}"
        )
    if arguments.out:
        result = {"groups": arguments.groups, "bytes": n_bytes, "ms": found}
        arguments.out.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
