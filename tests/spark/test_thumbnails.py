"""Thumbnails on executors: one of each photo that is wanted, whatever becomes of the others."""

import hashlib
from functools import partial

import cv2
import numpy as np
import pyarrow as pa
import pytest

from dedup_job.config import FetchConfig
from dedup_job.io.decoding import open_decoder
from dedup_job.io.fetch import FetchPolicy, open_fetch
from dedup_job.io.storage import Folder
from dedup_job.io.thumbnails import delete_thumbnails, store_thumbnail, thumbnails_there
from dedup_job.kernels.images import ImageLimits
from dedup_job.stages.thumbnails import RESULT_DDL, SIDE_PX, MakeThumbnails, thumbnail_requests
from tests.photos import jpeg

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def made(spark, tmp_path_factory):
    """(warehouse, photo by file name, what the stage said) of one good photo and three that are not."""
    folder = tmp_path_factory.mktemp("thumbnails")
    contents = {"good.jpg": jpeg(1), "changed.jpg": jpeg(2), "broken.jpg": jpeg(3)[:500]}
    shas = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    shas["gone.jpg"] = hashlib.sha256(b"gone").hexdigest()
    for name, data in contents.items():
        (folder / name).write_bytes(jpeg(9) if name == "changed.jpg" else data)
    photos = spark.createDataFrame(
        [(name, sha) for name, sha in shas.items()] + [("again", shas["good.jpg"]), ("bad", None)],
        "fetch_key string, content_sha256 string",
    )
    rows = spark.createDataFrame(
        [(key, f"file://{folder}/{name}") for name in shas for key in (name, name, "again")],
        "fetch_key string, source_uri string",
    )
    wanted = spark.createDataFrame(pa.table({"photo": [sha[:16] for sha in shas.values()]}))
    warehouse = Folder(str(folder / "warehouse"))
    make = MakeThumbnails(
        open_fetch=partial(open_fetch, FetchPolicy.from_config(FetchConfig(), [str(folder)])),
        open_decoder=partial(open_decoder, ImageLimits(), 30.0, 2048),
        store=partial(store_thumbnail, warehouse),
        n_threads=2,
    )
    requests = thumbnail_requests(wanted, photos, rows.where("fetch_key <> 'again'"))
    said = requests.mapInArrow(make, RESULT_DDL).toArrow().to_pylist()
    return warehouse, {name: sha[:16] for name, sha in shas.items()}, said


def test_each_wanted_photo_is_tried_once_and_told(made):
    _, photos, said = made
    problems = {row["photo"]: row["problem"] for row in said}
    assert len(said) == len(problems) == len(photos)
    assert problems[photos["good.jpg"]] is None
    assert problems[photos["changed.jpg"]] == "the photo has changed since it was embedded"
    assert problems[photos["broken.jpg"]] and problems[photos["gone.jpg"]]


def test_a_thumbnail_shows_the_photo(made):
    warehouse, photos, _ = made
    assert thumbnails_there(warehouse) == {photos["good.jpg"]}
    photo = photos["good.jpg"]
    data = warehouse.child("gallery", "thumbnails", photo[:2]).read_bytes(f"{photo}.jpg")
    small = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert small.shape == (SIDE_PX, SIDE_PX, 3)
    full = cv2.imdecode(np.frombuffer(jpeg(1), np.uint8), cv2.IMREAD_COLOR)
    inner = small[:, SIDE_PX // 8 : -SIDE_PX // 8]  # 3:4, the rest is white
    expected = cv2.resize(full, inner.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(inner.astype(int) - expected).mean() < 6
    delete_thumbnails(warehouse, {photo, "0" * 16})
    assert not thumbnails_there(warehouse)
