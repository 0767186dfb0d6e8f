"""The photos that a run compared: which of a SKU, and their bytes."""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from dedup_job.config import JobConfig
from dedup_job.errors import ImageRejected, RejectReason
from dedup_job.io.catalog_files import catalog_base
from dedup_job.io.fetch import FetchPolicy, open_fetch
from dedup_job.io.manifests import RunManifest, find_table
from dedup_job.io.storage import Folder
from dedup_job.io.tables import read_where
from dedup_job.io.thumbnails import thumbnail_folder, thumbnail_name
from dedup_job.io.uris import resolve
from dedup_job.settings import Setting, all_keys, load_settings
from dedup_job.tables import CATALOG_IMAGES, PHOTO_DIGITS

Row = dict[str, Any]
T = TypeVar("T")


class RunPhotos:
    """Usable photos of a run's catalog.

    Args:
        warehouse: where the run is.
        manifest: of the run; photos are fetched under its rules.

    Raises:
        ConfigError, CatalogError: the run's catalog is of no supported place.
    """

    def __init__(self, warehouse: Folder, manifest: RunManifest) -> None:
        self.run_id = manifest.run_id
        self._warehouse = warehouse
        self._manifest = manifest
        config = _config_of(manifest)
        self._base = catalog_base(config.catalog)
        self._fetch = open_fetch(FetchPolicy.from_config(config.fetch, [self._base]))

    def rows_of(self, skus: Iterable[str]) -> dict[str, list[Row]]:
        """Rows of `catalog_images` that could be used, by SKU; a SKU without any is absent."""
        images = find_table(self._warehouse, self._manifest, CATALOG_IMAGES.name)
        rows: dict[str, list[Row]] = {}
        for row in read_where(images, "sku_id", skus):
            if row["in_catalog"] and row["reason"] is None:
                rows.setdefault(row["sku_id"], []).append(row)
        return rows

    def use(self, row: Row, make: Callable[[bytes], T], *, of_the_run: bool = False) -> T:
        """What `make` makes of the photo as it is now or, where that fails, of its thumbnail.

        Args:
            row: of `catalog_images`.
            make: may raise ImageRejected.
            of_the_run: take nothing but what the run saw: a photo that changed since counts as gone.

        Raises:
            ImageRejected: why the photo cannot be used; and there is no thumbnail.
        """
        try:
            data = self._fetch(resolve(row["image_uri"], self._base), None).data or b""
            if of_the_run and hashlib.sha256(data).hexdigest() != row["content_sha256"]:
                raise ImageRejected(RejectReason.NOT_FOUND, "another photo is there now")
            return make(data)
        except ImageRejected:
            photo = row["content_sha256"][:PHOTO_DIGITS]
            folder = thumbnail_folder(self._warehouse, photo)
            thumbnail = folder.read_bytes(thumbnail_name(photo))
            if thumbnail is None:
                raise
            return make(thumbnail)


def _config_of(manifest: RunManifest) -> JobConfig:
    """Where a run's photos are, and what may be fetched, as the run had it."""
    given = {
        key: Setting(setting["value"], f"run {manifest.run_id}")
        for key, setting in manifest.config.items()
        if key in all_keys() and key.split(".")[0] in ("catalog", "fetch")
    }
    return load_settings(given, None, {}).config
