"""Every target for a short while under the coverage-guided fuzzer."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import NAMES

pytest.importorskip("atheris", reason="atheris has no wheel for this machine")
ROOT = Path(__file__).parents[2]
SECONDS = 20


@pytest.mark.fuzz
@pytest.mark.parametrize("name", NAMES)
def test_coverage_guided(name):
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.atheris_targets", name, f"-max_total_time={SECONDS}"],
        cwd=ROOT,
        capture_output=True,
        timeout=SECONDS + 120,
    )
    said = done.stderr.decode(errors="replace")
    assert done.returncode == 0, said[-4000:]
    runs = re.search(r"Done (\d+) runs", said)
    assert runs and int(runs[1]) > 500
    # The project's own modules are watched, or the fuzzer would be blind.
    assert "Instrumenting dedup_job.io." in said or "Instrumenting dedup_job.kernels." in said
    reached = [int(number) for number in re.findall(r"cov: (\d+)", said)]
    assert reached[-1] > 100
