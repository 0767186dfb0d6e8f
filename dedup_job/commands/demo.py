"""`dedup-job demo`: the nightly job on a drawn catalog, and what it got right."""

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from dedup_job.commands.show import show
from dedup_job.commands.verdict import Rows, Verdict, judge_groups, read_rows_of
from dedup_job.io.manifests import find_table, read_manifest
from dedup_job.io.storage import open_warehouse
from dedup_job.io.tables import read_rows
from dedup_job.kernels.images import decode
from dedup_job.sample.catalog import SampleCatalog, write_sample_catalog
from dedup_job.sample.sheet import SheetPhoto, contact_sheet
from dedup_job.settings import Setting, current_environment, load_settings
from dedup_job.tables import DUPLICATE_GROUPS

logger = logging.getLogger("dedup_job")
N_PRODUCTS = 220
_SHEET_PHOTOS = 4
_SHEET_COLOURS = 160  # a palette keeps the picture small enough for a repository


def demo(directory: str = "demo", n_products: int = N_PRODUCTS) -> Verdict:
    """Draw a catalog, run the job on it, print the report and the verdict of the known truth.

    Args:
        directory: gets `catalog/`, `warehouse/` and `group.png`; made if absent.
        n_products: garments to draw; look-alikes and duplicates come on top.

    Raises:
        DedupError: as the run and `write_sample_catalog`.
    """
    place = Path(directory)
    logger.info("drawing the sample catalog ...")
    sample = write_sample_catalog(place / "catalog", n_products)
    warehouse = str(place / "warehouse")
    _run_job(sample, warehouse)
    show(warehouse)
    groups = _published_groups(warehouse)
    catalog, truth = read_rows_of(sample.catalog), read_rows_of(sample.truth)
    verdict = judge_groups(catalog, truth, groups)
    print("\n" + "\n".join(verdict.lines()))
    picture = draw_group(groups, catalog, truth, sample.catalog.parent, place / "group.png")
    print(f"\nphotos     {sample.catalog.parent / 'images'}")
    print(f"reports    {warehouse}  (Parquet: open with DuckDB, pandas, Spark)")
    if picture:
        print(f"one group  {picture}")
    return verdict


def _run_job(sample: SampleCatalog, warehouse: str) -> None:
    from dedup_job.pipeline import run  # starts Spark: not needed to read this module

    given = {
        "catalog.path": str(sample.catalog),
        "catalog.canonical_order": "in_stock desc, created_at asc",
        "warehouse": warehouse,
    }
    flags = {key: Setting(value, "demo") for key, value in given.items()}
    run(load_settings(flags, None, current_environment()))


def _published_groups(warehouse: str) -> pa.Table:
    folder = open_warehouse(warehouse)
    return read_rows(find_table(folder, read_manifest(folder), DUPLICATE_GROUPS.name))


def draw_group(
    groups: pa.Table, catalog: Rows, truth: Rows, root: Path, target: Path
) -> Path | None:
    """Draw the most telling group as a PNG: four photos, edited in as many ways as possible.

    It shows what a right group looks like; how many are wrong is the verdict's to say.

    Args:
        groups: `duplicate_groups`.
        catalog: rows of the catalog.
        truth: rows of the truth.
        root: folder that image URIs are relative to.
        target: the file to write.

    Returns:
        The file written; None when there is no group.
    """
    kind_of = {row["sku_id"]: row["kind"] for row in truth}
    product_of = {row["sku_id"]: row["product_id"] for row in truth}
    uri_of = {row["sku_id"]: row["image_uri"] for row in catalog}
    group_ids = sorted(pc.unique(groups["group_id"]).to_pylist())
    if not group_ids:
        return None
    members = {group_id: _members(groups, group_id) for group_id in group_ids}

    def telling(group_id: str) -> tuple[bool, int, str]:
        skus = [row["sku_id"] for row in members[group_id]]
        is_right = len({product_of[sku] for sku in skus}) == 1
        return is_right, len({kind_of[sku] for sku in skus}), group_id

    rows = members[max(group_ids, key=telling)]
    photos = [
        SheetPhoto(
            decode((root / uri_of[row["sku_id"]]).read_bytes()),
            _captions(row, kind_of[row["sku_id"]]),
            row["is_canonical"],
        )
        for row in rows[:_SHEET_PHOTOS]
    ]
    sheet = Image.fromarray(contact_sheet(photos))
    sheet.quantize(_SHEET_COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    return target


def _members(groups: pa.Table, group_id: str) -> list[dict[str, Any]]:
    """Rows of one group: the survivor, then by falling cosine to it."""
    rows = groups.filter(pc.equal(groups["group_id"], group_id))
    order = [
        ("is_canonical", "descending"),
        ("cosine_to_canonical", "descending"),
        ("sku_id", "ascending"),
    ]
    return rows.sort_by(order).to_pylist()


def _captions(row: dict[str, Any], kind: str) -> tuple[str, str]:
    if row["is_canonical"]:
        return f"{row['sku_id']}  keep", kind
    return f"{row['sku_id']}  {row['cosine_to_canonical']:.3f}", kind
