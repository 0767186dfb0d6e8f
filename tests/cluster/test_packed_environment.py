"""What `make dist` packs is all that executors need: they have no library and no line of this project."""

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pyspark
import pytest

from dedup_job.pipeline import run
from dedup_job.sample.catalog import write_sample_catalog
from dedup_job.settings import Setting, load_settings
from tests.cluster.standalone import ROOT, start_cluster, submit
from tests.cluster.test_standalone import DATE, assert_same_reports

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SPARK_HOME = Path(pyspark.__file__).parent
# Where an executor's modules come from, told by the executor; pyspark is the cluster's own.
WHERE = """
import json
import sys
from pyspark.sql import SparkSession

def look(_):
    import cv2, dedup_job, numpy
    yield {"prefix": sys.prefix, "files": [m.__file__ for m in (cv2, dedup_job, numpy)], "path": sys.path}

spark = SparkSession.builder.getOrCreate()
found = spark.sparkContext.parallelize(range(8), 8).mapPartitions(look).collect()
with open(sys.argv[1], "w") as out:
    json.dump(found, out)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """environment.tar.gz as `make dist` builds it, from a copy of what git knows."""
    source = tmp_path_factory.mktemp("source")
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    (source / ".venv").symlink_to(ROOT / ".venv")
    (source / "scripts" / "check_machine.sh").chmod(0o755)
    made = subprocess.run(
        ["make", "dist", "-o", ".venv/.stamps/dev"], cwd=source, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
    return source / "dist" / "environment.tar.gz"


def test_executors_need_nothing_but_the_packed_environment(environment, spark, tmp_path):
    shop = tmp_path / "shop"
    catalog = write_sample_catalog(shop, n_products=24).catalog
    flags = {"catalog.path": str(catalog), "warehouse": str(tmp_path / "here"), "run_date": DATE}
    run(load_settings({key: Setting(v, "test") for key, v in flags.items()}, None, {}))

    driver = tmp_path / "driver"
    with tarfile.open(environment) as packed:
        packed.extractall(driver, filter="fully_trusted")
    conf = {
        "spark.archives": f"{environment}#environment",
        "spark.pyspark.python": "./environment/bin/python",
    }
    where = tmp_path / "where.py"
    where.write_text(WHERE)
    there = tmp_path / "there"
    with start_cluster(tmp_path) as cluster:
        python = driver / "bin" / "python"
        looked = submit(
            cluster.url, python, None, tmp_path, [str(tmp_path / "found.json")], {}, conf, where
        )
        assert looked.returncode == 0, looked.stderr[-3000:]
        done = submit(
            cluster.url,
            python,
            None,
            tmp_path,
            ["--catalog", str(catalog), "--warehouse", str(there), "--run-date", DATE],
            {},
            conf,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    workers = {str(tmp_path / f"worker-{host}") for host in cluster.workers}
    for one in found:
        here = next(folder for folder in workers if one["prefix"].startswith(folder))
        assert all(name.startswith(f"{here}/") for name in one["files"]), one["files"]
        ours = [path for path in one["path"] if path.startswith((str(ROOT), sys.prefix))]
        # The cluster's own Spark happens to lie there: its archives, not the folder of libraries.
        assert all(path.startswith(f"{SPARK_HOME}/") for path in ours), ours
    assert_same_reports(str(tmp_path / "here"), str(there))
