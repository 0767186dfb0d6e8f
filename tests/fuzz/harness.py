"""Feeds many cases to a target in worker processes, and keeps what nobody should see.

Each worker serves thousands of cases under a limit of address space. Before each case it writes the
case's number and the time into shared memory: when it dies, or is silent for too long and is killed,
the parent knows at which case, notes it, and starts another worker behind it.
"""

import faulthandler
import os
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.sharedctypes import RawArray
from typing import Any

from tests.fuzz.targets import Finding, make_case, open_target

MEMORY_MIB = 2048
GROWTH_MIB = 128
CASE_TIMEOUT_S = 10.0
START_TIMEOUT_S = 120.0
_REPORT_S = 0.5
_MOST_FINDINGS = 200
_IDLE = -1.0
# Spawned, not forked: a fork would inherit the locks of threads that it does not inherit.
_PROCESSES = get_context("spawn")


@dataclass(frozen=True)
class Job:
    """What is run: numbers `first` to `cases` - 1 of a seed, by `workers` processes."""

    target: str
    seed: int
    cases: int
    workers: int = 1
    options: dict[str, object] = field(default_factory=dict)
    memory_mib: int = MEMORY_MIB
    timeout_s: float = CASE_TIMEOUT_S


@dataclass(frozen=True)
class Found:
    """A finding: `number` is the case's, -1 when it is about the whole run."""

    number: int
    kind: str
    what: str


@dataclass
class Result:
    """What became of all cases. `memory` is in MiB of resident memory, the largest over workers."""

    outcomes: Counter = field(default_factory=Counter)
    findings: list[Found] = field(default_factory=list)
    seconds: float = 0.0
    idle_mib: float = 0.0
    peak_mib: float = 0.0
    growth_mib: float = 0.0


def run(job: Job, progress: Callable[[int, Result], None] = lambda done, result: None) -> Result:
    """Run all cases of a job; `progress` is told the number of cases done, twice a second."""
    result = Result()
    start = time.monotonic()
    workers = [_Worker(job, index) for index in range(job.workers)]
    try:
        while any(not worker.is_done for worker in workers):
            waits = [worker.pipe for worker in workers if not worker.is_done]
            connection.wait(waits, timeout=0.2)
            for worker in workers:
                worker.attend(result)
            progress(result.outcomes.total(), result)
            if len(result.findings) >= _MOST_FINDINGS:
                break
    finally:
        for worker in workers:
            worker.end()
    result.seconds = time.monotonic() - start
    for worker in workers:
        worker.judge_memory(result)
    result.findings.sort(key=lambda found: found.number)
    return result


class _Worker:
    """The processes that serve every `workers`-th case, one after the other."""

    def __init__(self, job: Job, index: int) -> None:
        self._job, self._next = job, index
        self._skipped: list[int] = []
        self.is_done = False
        self._rss_mib: list[tuple[int, float]] = []
        self._start()

    def _start(self) -> None:
        self._slot = RawArray("d", [_IDLE, time.monotonic()])
        self.pipe, theirs = _PROCESSES.Pipe(duplex=False)
        args = (self._job, self._next, tuple(self._skipped), self._slot, theirs)
        self._process = _PROCESSES.Process(target=_serve, args=args, daemon=True)
        self._process.start()
        theirs.close()

    def attend(self, result: Result) -> None:
        """Take what the process says; replace it when it died or hangs."""
        if self.is_done:
            return
        try:
            while self.pipe.poll():
                self._take(self.pipe.recv(), result)
        except EOFError:
            self._process.join(5)
            if self._next >= self._job.cases:
                self.is_done = True
            else:
                self._blame(result, "crash", f"exit code {self._process.exitcode}")
            return
        number, since = self._slot
        limit_s = START_TIMEOUT_S if number == _IDLE else self._job.timeout_s
        if time.monotonic() - since > limit_s:
            self._process.kill()
            self._process.join()
            self._blame(result, "hang", f"longer than {limit_s:g} s")

    def end(self) -> None:
        """Leave no process behind."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join()

    def judge_memory(self, result: Result) -> None:
        """Growth: from a tenth of the cases on, by when every code path has been warmed up."""
        warm = [mib for number, mib in self._rss_mib if number >= self._job.cases * 0.1]
        if not warm:
            return
        few = max(1, len(warm) // 4)
        growth = min(warm[-few:]) - min(warm[:few])
        result.growth_mib = max(result.growth_mib, growth)
        if growth > GROWTH_MIB:
            result.findings.append(Found(-1, "growth", f"{growth:.0f} MiB, limit {GROWTH_MIB}"))

    def _take(self, told: Any, result: Result) -> None:
        if isinstance(told, Found):
            if told not in result.findings:  # cases since the last report run again after a crash
                result.findings.append(told)
            return
        self._next, outcomes, rss_mib, peak_mib, idle_mib = told
        result.outcomes.update(outcomes)
        result.idle_mib = max(result.idle_mib, idle_mib)
        result.peak_mib = max(result.peak_mib, peak_mib)
        self._rss_mib.append((self._next, rss_mib))

    def _blame(self, result: Result, kind: str, what: str) -> None:
        number = int(self._slot[0])
        result.findings.append(Found(number, kind, what))
        if number == _IDLE:  # it never got to a case: the next would not either
            self.is_done = True
            return
        self._skipped.append(number)
        result.outcomes["finding"] += 1
        self._rss_mib.clear()
        self._start()


def _serve(job: Job, first: int, skipped: tuple[int, ...], slot: Any, pipe: Any) -> None:
    """What a worker process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = (
        "1"  # for Arrow, which is not imported yet: a worker is one core
    )
    target = open_target(job.target, **job.options)
    _silence_natives()
    _limit_memory(job.memory_mib << 20)
    idle_mib, _ = _memory_mib()
    outcomes: Counter = Counter()
    reported = time.monotonic()
    for number in range(first, job.cases, job.workers):
        now = time.monotonic()
        if now - reported > _REPORT_S:
            pipe.send((number, outcomes, *_memory_mib(), idle_mib))
            outcomes, reported = Counter(), now
        slot[:] = [number, now]
        if number in skipped:
            continue
        found = run_case(target, job.target, job.seed, number)
        if isinstance(found, Found):
            pipe.send(found)
            found = "finding"
        outcomes[found] += 1
    pipe.send((job.cases, outcomes, *_memory_mib(), idle_mib))


def run_case(target: Any, name: str, seed: int, number: int) -> str | Found:
    """Run one case here; returns its outcome in a word, or what was found."""
    try:
        return str(target.run(make_case(target, name, seed, number)))
    except Finding as finding:
        return Found(number, "property", str(finding))
    except MemoryError as error:
        return Found(number, "memory", _traceback(error))
    except Exception as error:
        return Found(number, "untyped", _traceback(error))


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-4000:]


def _silence_natives() -> None:
    """Decoders complain on stderr, once for each damaged photo; a native crash is still told."""
    faulthandler.enable(os.dup(2))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _limit_memory(budget_bytes: int) -> None:
    """Let the address space grow by so much beyond what the idle process takes."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        in_use = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + budget_bytes, resource.RLIM_INFINITY))


def _memory_mib() -> tuple[float, float]:
    """Resident memory of this process: at the moment, and its peak."""
    with open("/proc/self/status", encoding="ascii") as status:
        lines = dict(line.split(":", 1) for line in status)
    return tuple(int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))


if sys.platform != "linux":
    raise ImportError("the harness reads /proc: it needs Linux")
