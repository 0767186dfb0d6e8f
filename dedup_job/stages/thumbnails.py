"""Thumbnails of grouped photos, made on executors: fetch, decode as for the model, save small."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from dedup_job.errors import ImageRejected, one_line
from dedup_job.kernels.images import Pixels
from dedup_job.stages.photo_worker import Fetch, OpenDecoder
from dedup_job.tables import PHOTO_DIGITS

SIDE_PX = 256
_QUALITY = 82
RESULT_DDL = "photo string NOT NULL, problem string"
_RESULT = pa.schema([pa.field("photo", pa.string(), False), pa.field("problem", pa.string())])


def thumbnail_requests(wanted: DataFrame, photos: DataFrame, rows: DataFrame) -> DataFrame:
    """photo, content_sha256, source_uri: one of each photo that is wanted and that tonight's catalog shows.

    Args:
        wanted: photo (PHOTO_DIGITS of a content), distinct; sent to every executor.
        photos: PHOTOS without embeddings.
        rows: CATALOG_ROWS.
    """
    named = photos.where("content_sha256 IS NOT NULL").select(
        "fetch_key",
        "content_sha256",
        F.substring("content_sha256", 1, PHOTO_DIGITS).alias("photo"),
    )
    kept = named.join(F.broadcast(wanted), "photo").dropDuplicates(["photo"])
    addresses = rows.select("fetch_key", "source_uri")
    return (
        addresses.join(F.broadcast(kept), "fetch_key")
        .dropDuplicates(["photo"])
        .select("photo", "content_sha256", "source_uri")
    )


@dataclass(frozen=True)
class MakeThumbnails:
    """Turns `thumbnail_requests` into stored files. Pickled to every task.

    Args:
        open_fetch: called once per task; as for `EmbedPhotos`.
        open_decoder: called once per task; as for `EmbedPhotos`.
        store: puts a JPEG where the gallery finds it, given the photo.
        n_threads: threads that fetch.
    """

    open_fetch: Callable[[], Fetch]
    open_decoder: OpenDecoder
    store: Callable[[str, bytes], None]
    n_threads: int

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Run one task: photo, and why it has no thumbnail (null: it has)."""
        fetch, decoder = self.open_fetch(), self.open_decoder(SIDE_PX, 0.0)

        def make(row: dict[str, str]) -> str | None:
            try:
                data = fetch(row["source_uri"], None).data or b""
                if hashlib.sha256(data).hexdigest() != row["content_sha256"]:
                    return "the photo has changed since it was embedded"
                [prepared] = decoder.prepare_all([data])
                if isinstance(prepared, ImageRejected):
                    return prepared.detail
                self.store(row["photo"], encode(prepared.pixels))
            except ImageRejected as rejected:
                return rejected.detail
            except OSError as error:
                return one_line(error)
            return None

        with ThreadPoolExecutor(self.n_threads) as pool:
            for batch in batches:
                problems = list(pool.map(make, batch.to_pylist()))
                yield pa.RecordBatch.from_arrays(
                    [batch.column("photo"), pa.array(problems, pa.string())], schema=_RESULT
                )


def encode(pixels: Pixels) -> bytes:
    """JPEG bytes of uint8 (SIDE_PX, SIDE_PX, 3) RGB."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), flags)
    assert done, "cv2 encodes any uint8 picture"
    return data.tobytes()
