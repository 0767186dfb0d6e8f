"""A published grouping against the sample catalog's truth."""

import csv
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from dedup_job.kernels.metrics import GroupingMetrics, grouping_metrics

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Verdict:
    """How good the groups are. `n_products`: products judged, sizes counted once."""

    n_products: int
    metrics: GroupingMetrics

    def lines(self) -> list[str]:
        """The figures for a terminal, at most 80 columns wide."""
        m = self.metrics
        return [
            f"against the truth ({self.n_products} listings that could be compared)",
            f"  pair precision      {m.pair_precision:.4f}  of grouped pairs, those that are one product",
            f"  pair recall         {m.pair_recall:.4f}  of pairs of one product, those grouped",
            f"  B-cubed precision   {m.bcubed_precision:.4f}  averaged over listings",
            f"  B-cubed recall      {m.bcubed_recall:.4f}",
            f"  B-cubed F1          {m.bcubed_f1:.4f}",
            f"  look-alikes merged  {m.hard_merged} of {m.hard_negative_pairs} pairs"
            "  (colourway, print, pattern)",
        ]


def read_rows_of(path: Path) -> Rows:
    """Rows of a CSV file with a header, all values text."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def judge_groups(catalog: Rows, truth: Rows, groups: pa.Table) -> Verdict:
    """Compare groups with the truth, listing by listing.

    The job compares products: SKUs of one `variant_group` are one listing, and the SKU that stands
    for them appears in `duplicate_groups` with that variant group. Rows that are broken on purpose
    could not be compared and are left out; those with the placeholder photo are not.

    Args:
        catalog: rows with `sku_id` and `variant_group`.
        truth: rows with `sku_id`, `product_id`, `look_alike_of` and `kind`.
        groups: `duplicate_groups` with `sku_id`, `variant_group` and `group_id`.
    """
    fact_of = {row["sku_id"]: row for row in truth}
    listings = {
        row["variant_group"] or row["sku_id"]: fact_of[row["sku_id"]]
        for row in catalog
        if not fact_of[row["sku_id"]]["kind"].startswith("broken")
    }
    group_of = {
        row["variant_group"] or row["sku_id"]: row["group_id"]
        for row in groups.select(["sku_id", "variant_group", "group_id"]).to_pylist()
    }
    metrics = grouping_metrics(
        # An ungrouped listing is a group of its own; the pair cannot collide with a group id.
        [group_of.get(listing, ("alone", listing)) for listing in listings],
        [fact["product_id"] for fact in listings.values()],
        [fact["look_alike_of"] for fact in listings.values()],
    )
    return Verdict(len(listings), metrics)
