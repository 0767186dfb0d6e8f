"""What a look before a run found: one line each, with what to do about it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from dedup_job.nightly.executors import Executor


class Level(StrEnum):
    """How bad it is; a run with a FAIL would not end well."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, and what was found with what to do about it."""

    level: Level
    what: str
    detail: str

    def line(self) -> str:
        """For a person."""
        return f"{self.level:<4} {self.what}: {self.detail}"


def for_all(
    executors: Sequence[Executor], check: Callable[[Executor], Iterable[Finding]]
) -> list[Finding]:
    """Findings of all executors, each told once and with the hosts it holds for."""
    hosts: dict[Finding, list[str]] = {}
    for executor in executors:
        for finding in check(executor):
            hosts.setdefault(finding, []).append(executor.machine.host)
    return [_named(finding, list(dict.fromkeys(names))) for finding, names in hosts.items()]


def _named(finding: Finding, hosts: list[str]) -> Finding:
    shown = ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "")
    return replace(finding, what=f"{finding.what} on {shown}")
