"""Checks of the machines a run would use: pure functions from facts to findings.

A finding that is not ok names what was found, what is needed, and the setting or command that helps.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from dedup_job.io.machine import MIN_HEADROOM_MB, PACKAGE, Java, Machine
from dedup_job.nightly.estimate import PHOTO_WORKER_MB
from dedup_job.nightly.executors import Executor
from dedup_job.nightly.findings import Finding, Level, for_all

MIN_PYTHON, MIN_JAVA = (3, 11), 17  # as setup.py and scripts/check_machine.sh say
# Address space of a worker with its model where nothing limits it; measured. Most is never touched.
_WORKER_ADDRESS_MB = 1600
_JAVA_ADDRESS_MB = 8_000
_JAVA_LACKS_MEMORY = ("Could not allocate", "Could not reserve", "insufficient memory")
_NO_ADDRESS_SPACE = ("failed to map segment", "MemoryError", "Cannot allocate memory")
_FEW_FILES, _TOO_FEW_FILES = 1024, 256  # a worker of 16 fetch threads holds about 100


def check_java(java: Java) -> Finding:
    """Whether Spark can start the Java of this machine."""
    help_ = (
        f"Spark needs Java {MIN_JAVA} or newer: point JAVA_HOME at one, or install it "
        "(Debian: apt-get install openjdk-17-jre-headless)"
    )
    if any(sign in java.problem for sign in _JAVA_LACKS_MEMORY):
        detail = f"{java.path}: {java.problem}; raise what limits this process: ulimit -v unlimited"
        return Finding(Level.FAIL, "Java", detail)
    if not java.version:
        return Finding(Level.FAIL, "Java", f"{java.path}: {java.problem}; {help_}")
    if java.major < MIN_JAVA:
        return Finding(Level.FAIL, "Java", f"{java.version} ({java.path}); {help_}")
    return Finding(Level.OK, "Java", f"{java.version} ({java.path})")


def check_driver_limit(machine: Machine) -> list[Finding]:
    """Whether the driver's RLIMIT_AS lets Java start; nothing without a limit."""
    limit = machine.address_space_mb
    if limit is None or limit >= _JAVA_ADDRESS_MB:
        return []
    detail = (
        f"RLIMIT_AS is {limit} MB; Java reserves more than it uses, and below {_JAVA_ADDRESS_MB} MB "
        "it may not start: ulimit -v unlimited"
    )
    return [Finding(Level.WARN, "address space", detail)]


def check_machine(machine: Machine) -> list[Finding]:
    """Python, libraries and open files of one machine."""
    return [_check_python(machine), *_check_libraries(machine), _check_files(machine)]


def _check_python(machine: Machine) -> Finding:
    found = f"{machine.python} ({machine.executable})"
    if _minor(machine.python) < MIN_PYTHON:
        needed = ".".join(map(str, MIN_PYTHON))
        return Finding(
            Level.FAIL,
            "Python",
            f"{found}; {needed} or newer is needed: name one with spark.pyspark.python",
        )
    return Finding(Level.OK, "Python", found)


def _check_libraries(machine: Machine) -> list[Finding]:
    broken = [
        Finding(
            Level.FAIL,
            name,
            f"{problem}; install it for {machine.executable}: pip install --force-reinstall "
            f"--no-cache-dir {name}",
        )
        for name, problem in machine.broken.items()
    ]
    if broken:
        return broken
    versions = ", ".join(f"{name} {version}" for name, version in machine.libraries.items())
    return [Finding(Level.OK, "libraries", versions)]


def _check_files(machine: Machine) -> Finding:
    limit = machine.open_files
    if limit is None or limit >= _FEW_FILES:
        return Finding(Level.OK, "open files", "no limit" if limit is None else f"up to {limit}")
    level = Level.FAIL if limit < _TOO_FEW_FILES else Level.WARN
    return Finding(
        level,
        "open files",
        f"a process may open {limit} (RLIMIT_NOFILE), {_FEW_FILES} are needed: ulimit -n 65536, or "
        "LimitNOFILE= of the service that starts Spark",
    )


def compare_machines(driver: Machine, other: Machine) -> list[Finding]:
    """What an executor has in other versions than the driver; nothing when all are the same."""
    findings = []
    if _minor(driver.python) != _minor(other.python):
        detail = (
            f"{other.python}, the driver has {driver.python}; both must have the same minor "
            "version: name one interpreter with spark.pyspark.python"
        )
        findings.append(Finding(Level.FAIL, "Python", detail))
    for name, version in driver.libraries.items():
        found = other.libraries.get(name, "none")
        if found == version or name in other.broken or "unknown" in (found, version):
            continue
        # Another version of this package is another program; of a library, perhaps other pixels.
        level = Level.FAIL if name == PACKAGE else Level.WARN
        remedy = f"pip install {name}=={version} there, or ship one environment to all (--archives)"
        detail = f"{found}, the driver has {version}; results may differ: {remedy}"
        findings.append(Finding(level, name, detail))
    return findings


def check_address_space(
    machine: Machine, decode_memory_mb: int, pyspark_memory: str | None
) -> Finding:
    """Whether RLIMIT_AS leaves a worker, and the decoder it starts, what they need.

    Args:
        machine: as a worker sees it that has loaded the model.
        decode_memory_mb: images.decode_memory_mb.
        pyspark_memory: spark.executor.pyspark.memory, which sets that limit; None when not set.
    """
    limit, used = machine.address_space_mb, machine.used_address_space_mb or 0
    if limit is None:
        return Finding(Level.OK, "address space", "no limit (RLIMIT_AS)")
    needed = max(used, _WORKER_ADDRESS_MB) + max(decode_memory_mb, MIN_HEADROOM_MB)
    found = f"RLIMIT_AS is {limit} MB, a worker takes {used} MB of it before the first photo"
    remedy = _raise_address_space(needed, pyspark_memory)
    if limit < used + MIN_HEADROOM_MB:
        return Finding(Level.FAIL, "address space", f"{found}; {remedy}")
    if limit < needed:
        return Finding(
            Level.WARN,
            "address space",
            f"{found}, so photos that take more to decode are rejected as too_much_memory before "
            f"they reach images.decode_memory_mb ({decode_memory_mb} MB); {remedy}, or lower "
            "images.decode_memory_mb",
        )
    return Finding(Level.OK, "address space", found)


def _raise_address_space(needed_mb: int, pyspark_memory: str | None) -> str:
    if pyspark_memory:
        return (
            f"{needed_mb} MB are needed: unset spark.executor.pyspark.memory ({pyspark_memory}), "
            f"which the cores of an executor share, or give it {needed_mb}m for every core"
        )
    return f"{needed_mb} MB are needed: raise it with ulimit -v, or ulimit -v unlimited"


def explain_failed_look(error: str, pyspark_memory: str | None, decode_memory_mb: int) -> Finding:
    """A Finding for executors that could not even be asked.

    Args:
        error: one line of what Spark said.
        pyspark_memory: spark.executor.pyspark.memory; None when not set.
        decode_memory_mb: images.decode_memory_mb.
    """
    if pyspark_memory:
        remedy = (
            f"spark.executor.pyspark.memory is {pyspark_memory}, shared by the cores of an "
            "executor; little of it ends a worker as it starts: unset it, or give it "
            f"{_WORKER_ADDRESS_MB + decode_memory_mb}m for every core"
        )
    elif any(sign in error for sign in _NO_ADDRESS_SPACE):
        remedy = (
            "address space or memory is short: raise the limit that the executors are started with "
            "(ulimit -v), and spark.executor.memoryOverhead"
        )
    elif "VERSION_MISMATCH" in error:
        remedy = "driver and executors need one Python: name it with spark.pyspark.python"
    elif "No module named" in error:
        remedy = (
            "name the right environment with spark.pyspark.python and ship this package with "
            "--py-files"
        )
    else:
        remedy = (
            "a worker that is killed lacks memory mostly: raise spark.executor.memoryOverhead; "
            "the log of the executor says more"
        )
    return Finding(Level.FAIL, "executors", f"cannot run Python tasks: {error}; {remedy}")


def check_executors(
    driver: Machine,
    executors: Sequence[Executor],
    decode_memory_mb: int,
    pyspark_memory: str | None,
    n_wanted: int | None,
) -> list[Finding]:
    """All findings about executors; equal ones are told once, with the hosts they hold for.

    Args:
        driver: the driver's machine.
        executors: as they answered.
        decode_memory_mb: images.decode_memory_mb.
        pyspark_memory: spark.executor.pyspark.memory; None when not set.
        n_wanted: spark.executor.instances; None when not set.
    """

    def check(executor: Executor) -> list[Finding]:
        machine = executor.machine
        space = check_address_space(machine, decode_memory_mb, pyspark_memory)
        if (
            space.level is Level.FAIL
        ):  # libraries and model fail for it, and reinstalling helps none
            failed = [*machine.broken, *(["the model"] if executor.model_problem else [])]
            detail = f"{space.detail}. Not loaded there: {', '.join(failed) or 'what comes after the model'}"
            return [replace(space, detail=detail)]
        own = [finding for finding in check_machine(machine) if finding.level is not Level.OK]
        model = Finding(Level.OK, "model", "loaded, golden embeddings agree")
        if executor.model_problem:
            model = Finding(Level.FAIL, "model", executor.model_problem)
        return [*own, *compare_machines(driver, machine), space, model]

    findings = for_all(executors, check)
    differs = any(compare_machines(driver, executor.machine) for executor in executors)
    n_cores = sum(executor.n_workers for executor in executors)
    javas = ", ".join(sorted({executor.java for executor in executors}))
    answered = (
        f"{len(executors)} answered with {n_cores} Python workers in all, Java {javas}; Python and "
        f"libraries {'differ from the driver' if differs else 'as on the driver'}"
    )
    if n_wanted is not None and len(executors) < n_wanted:
        detail = (
            f"{answered}; spark.executor.instances asks for {n_wanted}: the cluster has no room for "
            "the others, or they start late"
        )
        return [Finding(Level.WARN, "executors", detail), *findings]
    return [Finding(Level.OK, "executors", answered), *findings]


def check_core_memory(
    executors: Sequence[Executor], needed_mb: int, overhead: str | None
) -> list[Finding]:
    """Whether every core's share of memory is what the run needs.

    Args:
        executors: as they answered.
        needed_mb: memory outside the JVM that one core needs.
        overhead: spark.executor.memoryOverhead, as Spark reads it; None when not set.
    """
    overhead_mb = to_megabytes(overhead) if overhead else None
    by_host: dict[str, int] = {}
    for executor in executors:
        host = executor.machine.host
        by_host[host] = by_host.get(host, 0) + executor.n_workers

    def check(executor: Executor) -> list[Finding]:
        machine, n_workers = executor.machine, by_host[executor.machine.host]
        needed = needed_mb * n_workers
        findings = []
        if machine.free_memory_mb is not None and machine.free_memory_mb < needed:
            detail = (
                f"{machine.free_memory_mb} MB free, {n_workers} cores need {needed} MB outside the "
                "JVM: use fewer cores (spark.executor.cores, DEDUP_LOCAL_CORES), a larger machine, "
                "or a smaller candidates.max_cell_rows"
            )
            findings.append(Finding(Level.WARN, "memory", detail))
        own = needed_mb * executor.n_workers
        if overhead_mb is not None and overhead_mb < own:
            detail = (
                f"spark.executor.memoryOverhead is {overhead_mb} MB, {executor.n_workers} cores "
                f"need {own} MB: set it to {own}m"
            )
            findings.append(Finding(Level.WARN, "memory", detail))
        limit = machine.address_space_mb
        # Where the search needs no more than photos do, `check_address_space` has said it all.
        is_search = needed_mb > PHOTO_WORKER_MB
        if limit is not None and is_search and limit < needed_mb + _WORKER_ADDRESS_MB:
            detail = (
                f"RLIMIT_AS is {limit} MB, the candidate search needs {needed_mb} MB beyond the "
                f"{_WORKER_ADDRESS_MB} MB a worker starts with: raise "
                "spark.executor.pyspark.memory (or ulimit -v), or lower candidates.max_cell_rows"
            )
            findings.append(Finding(Level.WARN, "memory", detail))
        return findings

    if bad := for_all(executors, check):
        return bad
    return [Finding(Level.OK, "memory", f"{needed_mb} MB a core outside the JVM are there")]


def check_scratch(executors: Sequence[Executor], needed_bytes: float) -> list[Finding]:
    """Whether Spark's local folders hold shuffles and caches; told only where they may not."""
    n_mb = int(needed_bytes / (1 << 20) / max(1, len(executors))) + 1

    def check(executor: Executor) -> list[Finding]:
        return [
            Finding(
                Level.WARN,
                "scratch disk",
                f"{free_mb} MB free in {folder}, an executor's share of the shuffles may take "
                f"{n_mb} MB: point spark.local.dir (or TMPDIR) at a larger disk",
            )
            for folder, free_mb in executor.machine.free_disk_mb.items()
            if free_mb < n_mb
        ]

    return for_all(executors, check)


def to_megabytes(size: str) -> int | None:
    """Spark's notation of memory (`2g`, `512m`; `2048` is megabytes); None when it is no size."""
    found = re.fullmatch(r"(\d+)([kmgt]?)b?", size.strip().lower())
    if found is None:
        return None
    kilobytes = {"k": 1, "": 1 << 10, "m": 1 << 10, "g": 1 << 20, "t": 1 << 30}[found[2]]
    return int(found[1]) * kilobytes >> 10


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
