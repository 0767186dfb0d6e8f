"""The memory of every process that a benchmark starts."""

import os
import threading
from pathlib import Path

_EVERY_S = 0.5


class MemoryWatch(threading.Thread):
    """Samples resident memory of this process's descendants; `peaks_mib`: command -> highest of one."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks_mib: dict[str, float] = {}
        self._done = threading.Event()

    def __enter__(self) -> "MemoryWatch":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        while not self._done.wait(_EVERY_S):
            for name, mib in _resident(os.getpid()):
                self.peaks_mib[name] = max(self.peaks_mib.get(name, 0.0), mib)

    @property
    def highest_mib(self) -> float:
        """Of any one process."""
        return max(self.peaks_mib.values(), default=0.0)


def _resident(root: int) -> list[tuple[str, float]]:
    facts = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                lines = Path(f"/proc/{entry}/status").read_text().splitlines()
            except OSError:
                continue
            facts[int(entry)] = dict(line.split(":", 1) for line in lines if ":" in line)
    ours, found = {root}, []
    for pid in sorted(facts):  # a child is mostly younger; those that are not are met next time
        if int(facts[pid]["PPid"]) in ours or pid == root:
            ours.add(pid)
            kib = int(facts[pid].get("VmRSS", "0 kB").split()[0])
            found.append((facts[pid]["Name"].strip(), kib / 1024))
    return found
