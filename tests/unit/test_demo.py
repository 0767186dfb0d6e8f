"""The demo's wiring, with the nightly job replaced by one that publishes the truth."""

from pathlib import Path

from dedup_job import pipeline
from dedup_job.commands import demo as demo_module
from dedup_job.commands.verdict import read_rows_of
from dedup_job.sample.catalog import SampleCatalog
from tests.unit.test_show import _group, _publish


def _publish_truth(sample: SampleCatalog, warehouse: str) -> None:
    """One group per product listed twice; sizes are represented by their first SKU."""
    variant_of = {row["sku_id"]: row["variant_group"] for row in read_rows_of(sample.catalog)}
    listings: dict[str, dict[str, str]] = {}
    for row in read_rows_of(sample.truth):
        key = variant_of[row["sku_id"]] or row["sku_id"]
        listings.setdefault(row["product_id"], {}).setdefault(key, row["sku_id"])
    rows = [
        {**row, "variant_group": variant_of[row["sku_id"]] or None}
        for product, skus in listings.items()
        if len(skus) > 1
        for row in _group(product, list(skus.values()), 0.9)
    ]
    _publish(warehouse, groups=rows)


def test_a_job_that_finds_the_truth_gets_full_marks(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo_module, "_run_job", _publish_truth)
    verdict = demo_module.demo(str(tmp_path), n_products=40)
    assert verdict.metrics.pair_precision == verdict.metrics.pair_recall == 1.0
    assert verdict.metrics.hard_merged == 0 < verdict.metrics.hard_negative_pairs
    text = capsys.readouterr().out
    for words in ("Run run-1", "against the truth", "pair recall         1.0000", "group.png"):
        assert words in text
    assert (tmp_path / "group.png").stat().st_size < 150_000


def test_the_job_gets_the_sample_and_says_who_survives(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(pipeline, "run", seen.append)
    sample = SampleCatalog(tmp_path / "catalog.csv", tmp_path / "truth.csv", 0, 0, 0, 0, 0)
    demo_module._run_job(sample, str(tmp_path / "warehouse"))
    (settings,) = seen
    assert Path(settings.config.catalog.path) == sample.catalog
    assert settings.config.warehouse == str(tmp_path / "warehouse")
    assert settings.config.catalog.canonical_order == "in_stock desc, created_at asc"
    assert settings.sources["warehouse"] == "demo"
