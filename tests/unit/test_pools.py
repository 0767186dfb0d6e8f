"""Pools of helper processes: one thread each, and a death among them is told, not waited for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import pytest

from dedup_job.errors import DedupError
from model_training.processes import open_pool

_ROOT = Path(__file__).parents[2]
_kept: dict[str, Any] = {}


def keep(name: str, value: int) -> None:
    _kept[name] = value


def refuse_to_start() -> None:
    raise RuntimeError("no network here")


def kept_and_threads(name: str) -> tuple[int, int, str | None]:
    return _kept[name], cv2.getNumThreads(), os.environ.get("OMP_NUM_THREADS")


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_helper_has_its_arguments_and_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with open_pool(1, keep, ("answer", 42)) as pool:
        assert list(pool.map(kept_and_threads, ["answer"])) == [(42, 1, "1")]
    assert os.environ["OMP_NUM_THREADS"] == "5" and "MKL_NUM_THREADS" not in os.environ


def test_a_helper_that_dies_is_told() -> None:
    with pytest.raises(DedupError, match=r"a helper process died.*--resume"), open_pool(1) as pool:
        list(pool.map(die, [1]))


def test_a_helper_that_cannot_start_is_told() -> None:
    with (
        pytest.raises(DedupError, match="a helper process died"),
        open_pool(1, refuse_to_start) as pool,
    ):
        list(pool.map(die, [1]))


_POOL = (
    "import os, time\n"
    "from model_training.processes import open_pool\n"
    "if __name__ == '__main__':\n"
    "    with open_pool(1) as pool:\n"
    "        print(pool.submit(os.getpid).result(), flush=True)\n"
    "        time.sleep(60)\n"
)
_BATCHES = (
    "import time\n"
    "from model_training.batches import BatchProcess\n"
    "from tests.unit.test_batches import CONFIG, photos_in_memory\n"
    "if __name__ == '__main__':\n"
    "    with BatchProcess(photos_in_memory(6), CONFIG, 1) as batches:\n"
    "        batches.draw()\n"
    "        print(batches._processes[0].pid, flush=True)\n"
    "        time.sleep(60)\n"
)


@pytest.mark.parametrize("program", [_POOL, _BATCHES], ids=["pool", "batches"])
def test_helpers_end_with_a_parent_that_was_killed(tmp_path: Path, program: str) -> None:
    script = tmp_path / "parent.py"
    script.write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout is not None
        helper = int(parent.stdout.readline())
        assert _lives(helper)
        parent.kill()
    end = time.monotonic() + 20
    while _lives(helper) and time.monotonic() < end:
        time.sleep(0.1)
    assert not _lives(helper)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
