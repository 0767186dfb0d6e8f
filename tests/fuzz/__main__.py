"""`python -m tests.fuzz photos --cases 200000 --seed 1`: see docs/fuzzing.md."""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

from tests.fuzz import harness
from tests.fuzz.targets import NAMES, make_case, open_target

FOLDER = Path(__file__).parents[2] / "build" / "fuzz"


def main(arguments: list[str]) -> int:
    """Run a target; returns 1 when there are findings."""
    options = _parser().parse_args(arguments)
    extra = _target_options(options)
    if options.case is not None:
        return _rerun(options, extra)
    job = harness.Job(
        options.target,
        options.seed,
        options.cases,
        options.workers,
        extra,
        timeout_s=options.timeout,
    )
    result = harness.run(job, _Progress(options.cases))
    files = [str(_save(job, found)) for found in result.findings]
    print(json.dumps(summary(job, result) | {"files": files}, indent=1))
    return 1 if result.findings else 0


def summary(job: harness.Job, result: harness.Result) -> dict[str, object]:
    """What a run found, for JSON."""
    corpus = open_target(job.target, **job.options).corpus()
    rejected = {
        name: n for name, n in result.outcomes.most_common() if name not in ("ok", "finding")
    }
    return {
        "target": job.target,
        "seed": job.seed,
        "cases": result.outcomes.total(),
        "ok": result.outcomes["ok"],
        "rejected": rejected,
        "findings": [f"{found.kind} at {found.number}: {_last_line(found)}" for found in result.findings],
        "seconds": round(result.seconds, 1),
        "idle_mib": round(result.idle_mib),
        "peak_mib": round(result.peak_mib),
        "growth_mib": round(result.growth_mib, 1),
        "corpus": {"files": len(corpus), "sha256": hashlib.sha256(b"".join(corpus)).hexdigest()[:16]},
    }  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--timeout", type=float, default=harness.CASE_TIMEOUT_S, help="seconds a case"
    )
    parser.add_argument("--case", type=int, help="run this one case here and show what it does")
    parser.add_argument("--isolated", action="store_true", help="photos: decode in a child process")
    parser.add_argument(
        "--own-seeds", action="store_true", help="photos: only seeds drawn by the project"
    )
    return parser


def _target_options(options: argparse.Namespace) -> dict[str, object]:
    if options.target != "photos":
        return {}
    return {"isolated": options.isolated, "foreign": not options.own_seeds}


def _rerun(options: argparse.Namespace, extra: dict[str, object]) -> int:
    target = open_target(options.target, **extra)
    case = make_case(target, options.target, options.seed, options.case)
    print(f"{len(case)} bytes: {case[:200]!r}")
    outcome = harness.run_case(target, options.target, options.seed, options.case)
    print(f"{outcome.kind}\n{outcome.what}" if isinstance(outcome, harness.Found) else outcome)
    return int(isinstance(outcome, harness.Found))


def _save(job: harness.Job, found: harness.Found) -> Path:
    """Keep the input and what happened; a finding about a whole run has no input."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{job.target}-{job.seed}-{found.number}"
    if found.number >= 0:
        target = open_target(job.target, **job.options)
        path.with_suffix(".bin").write_bytes(make_case(target, job.target, job.seed, found.number))
    path.with_suffix(".txt").write_text(f"{found.kind}\n{found.what}\n", encoding="utf-8")
    return path.with_suffix(".txt")


def _last_line(found: harness.Found) -> str:
    return (found.what.strip().splitlines() or [""])[-1][:300]


class _Progress:
    def __init__(self, cases: int) -> None:
        self._cases, self._start, self._shown = cases, time.monotonic(), 0.0

    def __call__(self, done: int, result: harness.Result) -> None:
        now = time.monotonic()
        if now - self._shown < 10:
            return
        self._shown = now
        rate = done / (now - self._start)
        print(
            f"{done}/{self._cases} cases, {rate:.0f} a second, {len(result.findings)} findings, "
            f"peak {result.peak_mib:.0f} MiB",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
