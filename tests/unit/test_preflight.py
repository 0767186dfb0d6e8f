"""The checks of `dedup-job doctor`: from facts to findings, without Spark."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from dedup_job.config import CandidatesConfig, FetchConfig
from dedup_job.io.decisions import Decision, DecisionFile, RejectedDecision
from dedup_job.io.fetch_policy import FetchPolicy
from dedup_job.io.lease_files import LeaseOwner
from dedup_job.io.library_trial import TRIALS
from dedup_job.io.machine import Java, Machine, find_java, read_machine, read_trial
from dedup_job.io.refusals import refusal
from dedup_job.io.storage import Folder
from dedup_job.io.warehouse_access import WarehouseAccess, look_at_warehouse
from dedup_job.nightly.estimate import estimate_run, search_memory_mb, show
from dedup_job.nightly.executors import Executor, gather
from dedup_job.nightly.findings import Level
from dedup_job.nightly.look_ahead import CatalogFigures, SampleFigures, add_up
from dedup_job.nightly.machine_checks import (
    check_address_space,
    check_core_memory,
    check_driver_limit,
    check_executors,
    check_java,
    check_machine,
    check_scratch,
    compare_machines,
    explain_failed_look,
    to_megabytes,
)
from dedup_job.nightly.run_checks import (
    check_catalog,
    check_decisions,
    check_disk,
    check_lease,
    check_sample,
    check_warehouse,
)
from dedup_job.version import VERSION, library_versions

MACHINE = Machine(
    host="a",
    python="3.11.7",
    executable="/env/bin/python",
    libraries={"catalog-dedup": "0.1.0", "numpy": "2.4.6", "pillow": "13.0.0"},
    broken={},
    address_space_mb=None,
    used_address_space_mb=1560,
    open_files=65_536,
    free_memory_mb=8_000,
    free_disk_mb={"/tmp": 10_000},
)
EXECUTOR = Executor(MACHINE, 2, "17.0.15", "", WarehouseAccess("/lake", "", 50_000))
CATALOG = CatalogFigures(1_000, {}, 900, 100, 300, 500, 900, {}, 0)
SAMPLE = SampleFigures(100, 80, 2.0, 4_000_000, 95, {}, {})


def one(findings):
    assert len(findings) == 1
    return findings[0]


# Java


def fake_java(folder, said):
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "java").write_text(f"#!/bin/sh\necho '{said}' >&2\n")
    (folder / "bin" / "java").chmod(0o755)
    return {"JAVA_HOME": str(folder), "PATH": os.environ["PATH"]}


@pytest.mark.parametrize(
    ("said", "version", "level"),
    [
        ('openjdk version "17.0.15" 2025-04-15', "17.0.15", Level.OK),
        ('openjdk version "21" 2023-09-19', "21", Level.OK),
        ('openjdk version "25-ea" 2025-09-16', "25-ea", Level.OK),
        ('openjdk version "11.0.2" 2019-01-15', "11.0.2", Level.FAIL),
        ('openjdk version "1.8.0_412"', "1.8.0_412", Level.FAIL),
        ("the operation could not be completed", "", Level.FAIL),
    ],
)
def test_java_is_asked_as_spark_would_start_it(tmp_path, said, version, level):
    java = find_java(fake_java(tmp_path, said))
    assert (java.path, java.version) == (f"{tmp_path}/bin/java", version)
    finding = check_java(java)
    assert finding.level == level
    if level is Level.FAIL:
        assert (version or said) in finding.detail and "JAVA_HOME" in finding.detail


def test_java_that_is_not_there_is_found_missing(tmp_path):
    java = find_java({"JAVA_HOME": str(tmp_path), "PATH": ""})
    assert java == Java(f"{tmp_path}/bin/java", "", "No such file or directory")
    finding = check_java(java)
    assert finding.level is Level.FAIL and "No such file" in finding.detail
    assert "openjdk-17-jre-headless" in finding.detail


def test_a_limit_that_keeps_java_from_starting_is_not_a_missing_java():
    said = "Error occurred during initialization of VM Could not allocate compressed class space"
    finding = check_java(Java("java", "", said))
    assert finding.level is Level.FAIL and "ulimit -v unlimited" in finding.detail
    assert "install" not in finding.detail
    assert check_driver_limit(MACHINE) == []
    limited = one(check_driver_limit(replace(MACHINE, address_space_mb=3_900)))
    assert limited.level is Level.WARN and "3900 MB" in limited.detail


# One machine


def test_this_machine_is_read_and_fit():
    machine = read_machine()
    assert machine.libraries == {"catalog-dedup": VERSION, **library_versions()}
    assert machine.broken == {}
    assert machine.free_memory_mb > 0 and all(free > 0 for free in machine.free_disk_mb.values())
    assert machine.used_address_space_mb > 10
    levels = {finding.what: finding.level for finding in check_machine(machine)}
    assert levels["Python"] == levels["libraries"] == "ok"


def test_an_old_python_is_named_with_its_remedy():
    finding = check_machine(replace(MACHINE, python="3.9.18"))[0]
    assert finding.level is Level.FAIL
    assert "3.9.18" in finding.detail and "spark.pyspark.python" in finding.detail


@pytest.mark.parametrize(
    ("limit", "level"), [(None, "ok"), (65_536, "ok"), (1_024, "ok"), (1_023, "warn"), (64, "FAIL")]
)
def test_few_open_files(limit, level):
    finding = check_machine(replace(MACHINE, open_files=limit))[-1]
    assert (finding.what, finding.level) == ("open files", level)
    if level != "ok":
        assert "RLIMIT_NOFILE" in finding.detail and "ulimit -n" in finding.detail


def trial(*lines):
    return "".join(f"{name}\t{problem}\n" for name, problem in lines)


def test_libraries_that_fail_are_named_also_when_they_take_the_process_along():
    names = list(TRIALS)
    fit = [(name, "") for name in names]
    assert read_trial(trial(*fit), 0) == {}
    missing = [
        (n, "ModuleNotFoundError: No module named 'cv2'" if n == names[2] else "") for n in names
    ]
    assert read_trial(trial(*missing), 0) == {
        names[2]: "ModuleNotFoundError: No module named 'cv2'"
    }
    for died, words in ((-signal.SIGILL, "another processor"), (-signal.SIGSEGV, "signal 11")):
        assert words in read_trial(trial(*fit[:4]), died)[names[4]]
    nothing = read_trial("", 1, "Traceback\nImportError: no dedup_job\n")
    assert nothing == {names[0]: "ImportError: no dedup_job"}
    finding = one(
        [f for f in check_machine(replace(MACHINE, broken={"annoy": "dies"})) if f.what == "annoy"]
    )
    assert finding.level is Level.FAIL and "pip install" in finding.detail


def test_a_limit_with_no_room_left_is_told_and_no_library_is_tried():
    script = (
        "import json, resource; from dataclasses import asdict\n"
        "from dedup_job.io import machine\n"
        "limit = (machine._used_address_space_mb() + 100) << 20\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "machine._broken_libraries = None\n"
        "print(json.dumps(asdict(machine.read_machine())))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    told = json.loads(done.stdout)
    assert told["broken"] == {}
    assert 0 < told["address_space_mb"] - told["used_address_space_mb"] <= 100


# Executors


def test_equal_machines_do_not_differ():
    assert compare_machines(MACHINE, replace(MACHINE, host="b", free_memory_mb=1)) == []


@pytest.mark.parametrize(
    ("change", "what", "level", "words"),
    [
        ({"python": "3.12.1"}, "Python", "FAIL", "spark.pyspark.python"),
        ({"numpy": "2.2.0"}, "numpy", "warn", "pip install numpy==2.4.6"),
        ({"pillow": None}, "pillow", "warn", "none, the driver has 13.0.0"),
        ({"catalog-dedup": "0.0.9"}, "catalog-dedup", "FAIL", "0.0.9, the driver has 0.1.0"),
    ],
)
def test_differences_from_the_driver(change, what, level, words):
    python = change.pop("python", MACHINE.python)
    libraries = {k: v for k, v in {**MACHINE.libraries, **change}.items() if v}
    other = replace(MACHINE, python=python, libraries=libraries)
    finding = one(compare_machines(MACHINE, other))
    assert (finding.what, finding.level) == (what, level) and words in finding.detail


def test_a_patch_release_of_python_or_a_version_unknown_is_no_difference():
    libraries = {**MACHINE.libraries, "numpy": "unknown"}
    assert compare_machines(MACHINE, replace(MACHINE, python="3.11.2", libraries=libraries)) == []


@pytest.mark.parametrize(
    ("limit", "used", "level"),
    [(None, 1560, "ok"), (4_096, 1560, "ok"), (1_024, 660, "warn"), (512, 506, "FAIL")],
)
def test_address_space_of_a_worker(limit, used, level):
    machine = replace(MACHINE, address_space_mb=limit, used_address_space_mb=used)
    finding = check_address_space(machine, 2048, "2g")
    assert finding.level == level
    if level != "ok":
        assert f"RLIMIT_AS is {limit} MB" in finding.detail
        assert "spark.executor.pyspark.memory (2g)" in finding.detail
        assert "give it 3648m for every core" in finding.detail
        assert "ulimit -v" in check_address_space(machine, 2048, None).detail
    # What is advised is enough.
    advised = replace(MACHINE, address_space_mb=3_648)
    assert check_address_space(advised, 2048, "2g").level is Level.OK


def test_a_limit_too_small_for_the_model_is_one_failure_and_not_four():
    machine = replace(
        MACHINE,
        address_space_mb=512,
        used_address_space_mb=506,
        broken={"annoy": "kills its process (signal 6)"},
    )
    executor = replace(EXECUTOR, machine=machine, model_problem="failed to map segment")
    failed = [
        f for f in check_executors(MACHINE, [executor], 2048, "1g", None) if f.level is not Level.OK
    ]
    detail = one(failed).detail
    assert "Not loaded there: annoy, the model" in detail and "(1g)" in detail


def test_findings_of_many_executors_are_told_once():
    old = {**MACHINE.libraries, "numpy": "2.2.0"}
    hosts = [replace(MACHINE, host=name, libraries=old) for name in "bcdef"]
    executors = [EXECUTOR, *(replace(EXECUTOR, machine=machine) for machine in hosts)]
    findings = check_executors(MACHINE, executors, 2048, None, None)
    assert findings[0].level is Level.OK
    assert "6 answered with 12 Python workers" in findings[0].detail
    assert "differ from the driver" in findings[0].detail
    warned = one([finding for finding in findings if finding.level is Level.WARN])
    assert warned.what == "numpy on b, c, d and 2 more"
    assert "as on the driver" in check_executors(MACHINE, [EXECUTOR], 2048, None, None)[0].detail


def test_executors_that_are_missing_and_models_that_fail_there():
    damaged = replace(EXECUTOR, model_problem="golden embeddings differ (cosine 0.1)")
    findings = check_executors(MACHINE, [damaged], 2048, None, n_wanted=4)
    assert findings[0].level is Level.WARN and "asks for 4" in findings[0].detail
    model = one([finding for finding in findings if finding.level is Level.FAIL])
    assert (model.what, model.detail) == ("model on a", "golden embeddings differ (cosine 0.1)")


def test_answers_of_one_executor_are_gathered():
    from dataclasses import asdict

    def answer(host, executor, pid, problem=""):
        return {
            "machine": asdict(replace(MACHINE, host=host)),
            "executor": executor,
            "pid": pid,
            "java": "17.0.15",
            "model_problem": problem,
            "warehouse": asdict(EXECUTOR.warehouse),
        }

    answers = [
        answer("b", "/1", 7),
        answer("a", "/1", 7),
        answer("a", "/1", 8, "damaged"),
        answer("a", "/1", 7),
        answer("a", "/2", 9),
    ]
    found = gather(answers, n_cores=4)
    assert [(e.machine.host, e.n_workers, e.model_problem) for e in found] == [
        ("a", 2, "damaged"),
        ("a", 1, ""),
        ("b", 1, ""),
    ]
    assert found[0].warehouse == EXECUTOR.warehouse and found[0].machine == MACHINE
    # Workers of earlier jobs answer too; no more than the cores compute at once.
    assert gather(answers, n_cores=1)[0].n_workers == 1


@pytest.mark.parametrize(
    ("error", "memory", "words"),
    [
        ("ImportError: failed to map segment", "500m", "spark.executor.pyspark.memory is 500m"),
        ("ImportError: failed to map segment", None, "ulimit -v"),
        ("[PYTHON_VERSION_MISMATCH] 3.9 and 3.11", None, "spark.pyspark.python"),
        ("ModuleNotFoundError: No module named 'dedup_job'", None, "--py-files"),
        ("Python worker exited unexpectedly", None, "spark.executor.memoryOverhead"),
    ],
)
def test_executors_that_cannot_answer(error, memory, words):
    finding = explain_failed_look(error, memory, 2048)
    assert finding.level is Level.FAIL and error in finding.detail and words in finding.detail


def test_memory_of_cores_of_hosts_and_of_containers():
    assert one(check_core_memory([EXECUTOR], 600, None)).level is Level.OK
    two = [EXECUTOR, replace(EXECUTOR, java="21")]  # two executors of one host
    machine = replace(MACHINE, free_memory_mb=2_000)
    crowded = one(check_core_memory([replace(e, machine=machine) for e in two], 600, None))
    assert crowded.level is Level.WARN
    assert "2000 MB free, 4 cores need 2400 MB" in crowded.detail
    small = one(check_core_memory([EXECUTOR], 600, "1g"))
    assert "spark.executor.memoryOverhead is 1024 MB" in small.detail and "1200m" in small.detail
    assert one(check_core_memory([EXECUTOR], 600, "1200m")).level is Level.OK
    limited = replace(EXECUTOR, machine=replace(MACHINE, address_space_mb=2_000))
    assert one(check_core_memory([limited], 600, None)).level is Level.OK
    assert "candidate search needs 900 MB" in one(check_core_memory([limited], 900, None)).detail


@pytest.mark.parametrize(
    ("text", "megabytes"),
    [("2g", 2048), ("512m", 512), ("1024", 1024), ("2048k", 2), ("1T", 1 << 20), ("much", None)],
)
def test_memory_in_sparks_notation(text, megabytes):
    assert to_megabytes(text) == megabytes


def test_scratch_disks():
    assert check_scratch([EXECUTOR], 1e9) == []
    finding = one(check_scratch([EXECUTOR], 20e9))
    assert finding.level is Level.WARN and "spark.local.dir" in finding.detail
    assert check_scratch([EXECUTOR] * 4, 20e9) == []  # each holds its share


# Warehouse


@pytest.fixture
def as_somebody():
    """File permissions asked as an ordinary user, also where the tests run as root."""
    if os.geteuid():
        yield
        return
    os.setreuid(65_534, 0)
    try:
        yield
    finally:
        os.setreuid(0, 0)


def test_a_local_warehouse_need_not_exist(tmp_path):
    folder = Folder(str(tmp_path / "a" / "b"))
    access = look_at_warehouse(folder)
    assert (access.nearest, access.problem) == (str(tmp_path), "")
    assert access.free_mb > 0 and list(tmp_path.iterdir()) == []
    finding = one(check_warehouse(folder.uri, access, []))
    assert finding.level is Level.OK and f"creates it below {tmp_path}" in finding.detail


def test_a_warehouse_without_permission(tmp_path, as_somebody):
    tmp_path.chmod(0o555)
    access = look_at_warehouse(Folder(str(tmp_path / "w")))
    assert access.problem == f"no permission to write to {tmp_path}"
    finding = one(check_warehouse("w", access, [EXECUTOR]))
    assert finding.level is Level.FAIL and "--warehouse" in finding.detail


def test_a_folder_of_somebody_else_inside_the_warehouse(tmp_path, request):
    (tmp_path / "_runs").mkdir(mode=0o700)
    (tmp_path / "_runs").chmod(0o555)
    tmp_path.chmod(0o777)
    request.getfixturevalue("as_somebody")
    problem = look_at_warehouse(Folder(str(tmp_path))).problem
    assert problem.startswith("no permission to write to")


def test_a_file_where_the_warehouse_should_be(tmp_path):
    (tmp_path / "w").write_text("")
    access = look_at_warehouse(Folder(str(tmp_path / "w" / "x")))
    assert access.problem == f"{tmp_path}/w is not a folder"


def test_executors_must_find_the_drivers_warehouse():
    driver = WarehouseAccess("/lake", "", 50_000)
    assert one(check_warehouse("/lake", driver, [EXECUTOR])).level is Level.OK
    elsewhere = replace(EXECUTOR, warehouse=WarehouseAccess("/", "", 10))
    finding = one(check_warehouse("/lake", driver, [EXECUTOR, elsewhere]))
    assert finding.level is Level.FAIL
    assert "finds /lake" in finding.detail and "all machines mount" in finding.detail
    denied = replace(EXECUTOR, warehouse=WarehouseAccess("s3://b", "s3 denies access"))
    finding = one(check_warehouse("s3://b/w", WarehouseAccess("s3://b", ""), [denied]))
    assert finding.level is Level.FAIL and "s3 denies access" in finding.detail


def test_a_store_says_that_writing_was_not_tried():
    finding = one(check_warehouse("s3://b/w", WarehouseAccess("s3://b", ""), []))
    assert finding.level is Level.OK and "writing was not tried" in finding.detail


def test_a_warehouse_in_use():
    from datetime import UTC, datetime

    now = datetime.now(UTC).isoformat()
    owner = LeaseOwner(1, "run-7", "h", 42, "", now, 120.0, last_beat=now)
    finding = one(check_lease(owner))
    assert finding.level is Level.WARN and "run-7" in finding.detail
    assert check_lease(replace(owner, released=True)) == check_lease(None) == []


@pytest.mark.parametrize(("free_mb", "level"), [(300, "ok"), (120, "warn"), (50, "FAIL")])
def test_free_disk(free_mb, level):
    finding = one(check_disk(WarehouseAccess("/lake", "", free_mb), 100 << 20))
    assert finding.level == level
    if level != "ok":
        assert f"{free_mb} MB free" in finding.detail and "--keep-runs" in finding.detail
    assert check_disk(WarehouseAccess("s3://b", ""), 1e15) == []


# Catalog and photos


def test_decisions_that_cannot_be_read_are_counted_before_the_run():
    said = Decision(0, "a", "b", "same")
    assert (
        check_decisions(DecisionFile([said], [], [])).line().endswith("1 decisions about 1 pairs")
    )
    found = check_decisions(DecisionFile([said], [RejectedDecision(7, "no ids")], []))
    assert (
        found.level is Level.WARN
        and "1 rows cannot be read, the first is row 7: no ids" in found.detail
    )


def test_a_clean_catalog():
    finding = one(check_catalog(CATALOG, 0.2))
    assert finding.level is Level.OK
    assert "900 distinct photos: 500 to fetch, 300 to ask for changes, 100 known" in finding.detail


@pytest.mark.parametrize(("n_bad", "level"), [(200, "ok"), (201, "warn")])
def test_rejected_rows_and_the_gate(n_bad, level):
    catalog = replace(CATALOG, rejects={"null_uri": n_bad - 1, "malformed_row": 1})
    finding = check_catalog(catalog, 0.2)[1]
    assert finding.level == level and f"{n_bad - 1} null_uri, 1 malformed_row" in finding.detail
    assert ("gates.max_reject_rate" in finding.detail) == (level == "warn")


def test_refused_photos_are_counted_by_setting():
    said = "host cdn.shop is not in fetch.allow_hosts"
    catalog = replace(CATALOG, refusals={said: 40}, n_refused=45)
    first, rest = check_catalog(catalog, 0.2)[1:]
    assert (first.level, first.detail) == ("warn", f"40 photos are refused: {said}")
    assert rest.detail.startswith("5 photos are refused for other reasons")


def test_a_sample_without_a_usable_photo_fails():
    assert check_sample(SAMPLE, 0.2).level is Level.OK
    some = replace(SAMPLE, rejects={"not_found": 10}, details={"not_found": "No such file"})
    assert check_sample(some, 0.2).level is Level.OK
    assert "10 not_found (No such file)" in check_sample(some, 0.2).detail
    assert check_sample(some, 0.05).level is Level.WARN
    none = check_sample(replace(some, rejects={"not_found": 100}), 0.2)
    assert none.level is Level.FAIL and "--image-root" in none.detail


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("file:///shop/images/a.jpg", None),
        ("file:///shop/imagesx/a.jpg", "fetch.allow_roots"),
        ("file:///etc/passwd", "fetch.allow_roots"),
        ("https://cdn.shop/a.jpg", None),
        ("https://CDN.shop./a.jpg?sig=secret", None),
        ("http://cdn.shop:8080/a.jpg", None),
        ("http://10.0.0.1/a.jpg?sig=secret", "host 10.0.0.1 is not in fetch.allow_hosts"),
        ("http://side.shop/a.jpg", "host side.shop is not in fetch.allow_hosts"),
        ("http://side.shop:81/a.jpg", None),
        ("s3://photos/a.jpg", None),
        ("s3://other/a.jpg", "bucket other is not in fetch.allow_buckets"),
        ("gs://photos/a.jpg", "scheme 'gs' is not in fetch.allow_schemes"),
        ("ftp://cdn.shop/a.jpg", "fetch.allow_schemes"),
        ("simplecache::file:///etc/passwd", "fetch.allow_schemes"),
    ],
)
def test_refusals_by_uri_alone_are_those_of_the_fetcher(uri, words):
    from dedup_job.errors import ImageRejected
    from dedup_job.io.fetch import Fetcher

    config = FetchConfig(
        allow_schemes=("file", "s3", "http", "https"),
        allow_hosts=("cdn.shop", "side.shop:81"),
        allow_buckets=("photos",),
    )
    policy = FetchPolicy.from_config(config, ["/shop/images"])
    said = refusal(uri, policy)
    if words is None:
        assert said is None
        return
    assert words in said and "secret" not in said
    with pytest.raises(ImageRejected) as rejected:
        Fetcher(policy).fetch(uri)
    assert (rejected.value.reason, rejected.value.detail) == ("uri_refused", said)


def test_a_file_that_a_link_leads_into_the_root_is_not_refused(tmp_path):
    from dedup_job.io.fetch import Fetcher

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jpg").write_bytes(b"photo")
    (tmp_path / "mount").symlink_to(tmp_path / "data")
    policy = FetchPolicy.from_config(FetchConfig(), [str(tmp_path / "data")])
    uri = f"file://{tmp_path}/mount/a.jpg"
    assert Fetcher(policy).fetch(uri).data == b"photo"
    assert refusal(uri, policy) is None


# Estimates


def test_estimates_follow_from_counts_and_sample():
    found = estimate_run(CATALOG, SAMPLE, 4, 128, CandidatesConfig())
    assert found.photo_stage_s.value == pytest.approx(800 * 0.02 / 4)
    assert "800 photos at 20.0 ms a photo and core" in found.photo_stage_s.how
    assert found.fetched_bytes.value == pytest.approx(800 * 40_000)
    assert found.store_bytes.value == 640 * (4 * 128 + 85)
    assert found.report_bytes.value == 310_000
    assert found.core_memory_mb.value == 600
    assert found.warehouse_bytes > found.store_bytes.value + found.report_bytes.value
    assert len(found.all()) == 6 and all(estimate.how for estimate in found.all())


def test_a_verifier_takes_room_for_pictures_whether_the_run_verifies_or_not():
    plain = estimate_run(CATALOG, SAMPLE, 4, 128, CandidatesConfig())
    found = estimate_run(CATALOG, SAMPLE, 4, 128, CandidatesConfig(), has_verifier=True)
    assert plain.verification_s is None and found.verification_s is None
    assert found.store_bytes.value == plain.store_bytes.value + 640 * 6_000
    assert found.staging_bytes.value == plain.staging_bytes.value + 640 * 6_000
    assert "at 6597 bytes" in found.store_bytes.how


def test_verified_pairs_take_time_as_many_as_are_to_be_expected():
    found = estimate_run(
        CATALOG, SAMPLE, 4, 128, CandidatesConfig(), has_verifier=True, verified_per_photo=10.0
    )
    assert found.verification_s.value == pytest.approx(640 * 10 * 0.008 / 4)
    assert "6400 pairs of 640 new photos" in found.verification_s.how
    # Photos of a dense catalog come near more strangers: it is no bound.
    assert "at most" not in found.verification_s.line()


def test_a_night_that_asks_for_nothing():
    catalog = replace(CATALOG, n_asked=0, n_new=0, n_remembered=900)
    found = estimate_run(catalog, None, 4, 128, CandidatesConfig())
    assert found.photo_stage_s is None and found.store_bytes.value == 0
    assert found.all()[0].what == "memory outside the JVM, per core"


@pytest.mark.parametrize(
    ("n_contents", "megabytes"), [(8_192, 227), (16_384, 253), (1_000_000, 243)]
)
def test_search_memory_is_the_table_of_the_operations_page(n_contents, megabytes):
    assert search_memory_mb(n_contents, 128, CandidatesConfig()) == pytest.approx(
        megabytes, rel=0.05
    )


def test_exact_search_holds_no_trees():
    exact = CandidatesConfig(search="exact")
    assert search_memory_mb(100_000, 128, exact) < search_memory_mb(
        100_000, 128, CandidatesConfig()
    )


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (12.4, "s", "12 s"),
        (3_700, "s", "1 h 02 min"),
        (1.5e9, "bytes", "1.5 GB"),
        (2_000, "bytes", "2.0 kB"),
        (10, "bytes", "10 bytes"),
        (600, "MB", "600 MB"),
    ],
)
def test_figures_for_people(value, unit, text):
    assert show(value, unit) == text


def test_samples_of_tasks_add_up():
    task = {"n_photos": 10, "n_embedded": 8, "seconds": 0.5, "n_bytes": 100, "n_sized": 9}
    found = add_up(
        [
            {**task, "rejects": {"not_found": 1, "corrupt": 1}, "details": {"not_found": "gone"}},
            {**task, "rejects": {"corrupt": 1}, "details": {"corrupt": "bad"}},
        ]
    )
    assert (found.n_photos, found.seconds, found.n_bytes) == (20, 1.0, 200)
    assert found.rejects == {"corrupt": 2, "not_found": 1}
    assert found.details == {"not_found": "gone", "corrupt": "bad"}
