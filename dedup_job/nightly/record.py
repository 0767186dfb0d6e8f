"""The manifest of a run as it grows: written when the run starts, and again when it ends or fails."""

import logging
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from types import TracebackType
from typing import Any

from dedup_job.errors import DedupError, GateError, one_line
from dedup_job.io.lease import Lease
from dedup_job.io.manifests import RunManifest, write_manifest
from dedup_job.io.snapshot import shown_snapshot
from dedup_job.io.storage import Folder
from dedup_job.nightly.context import RunContext
from dedup_job.settings import Settings
from dedup_job.version import VERSION, library_versions

logger = logging.getLogger("dedup_job")


def name_run() -> str:
    """A new run id; ids sort by their time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"


@contextmanager
def blaming_a_lost_lease(lease: Lease) -> Iterator[None]:
    """If the block fails because another run took over and deleted its files, say that instead.

    Raises:
        LeaseLost: in place of what the block raised.
    """
    try:
        yield
    except DedupError:
        raise
    except Exception:
        lease.check()
        raise


class RunRecord:
    """What is known of a run so far. As a context manager it records how the run ends.

    Attributes:
        started_at: UTC.
        inputs: the catalog's files, from `snapshot_catalog`.
        base_run_id: the run whose group ids are passed on.
        context: once there is one; its stages and journal are recorded too.
        facts: figures of the result.
        gates: results of the audit.
        accepted: gate -> reason.
        status: `running` until the run sets another or fails.
    """

    def __init__(
        self,
        warehouse: Folder,
        run_id: str,
        run_date: date,
        settings: Settings,
        inputs: list[dict[str, Any]],
    ) -> None:
        self.warehouse, self.run_id, self.run_date = warehouse, run_id, run_date
        self.started_at = datetime.now(UTC)
        self.inputs = inputs
        self.base_run_id: str | None = None
        self.context: RunContext | None = None
        self.facts: dict[str, Any] = {}
        self.gates: list[dict[str, Any]] = []
        self.accepted: dict[str, str] = {}
        self.status = "running"
        self._settings = settings

    @property
    def is_shadow(self) -> bool:
        """Whether the run only says what it would change."""
        return self._settings.config.shadow

    def manifest(
        self, status: str, tables: dict[str, dict[str, Any]], error: str | None = None
    ) -> RunManifest:
        """The run's manifest as of now."""
        context = self.context
        stages = [m for m in context.metrics if m.metric == "wall_time"] if context else []
        journal = context.journal if context else None
        resumed = {}
        if journal and journal.adopted_from:
            resumed = {"run_id": journal.adopted_from, "steps": journal.reused}
        return RunManifest(
            run_id=self.run_id,
            run_date=self.run_date.isoformat(),
            status=status,
            started_at=self.started_at.isoformat(),
            finished_at="" if status == "running" else datetime.now(UTC).isoformat(),
            version=VERSION,
            config=self._settings.as_dict(),
            facts=self.facts,
            tables=tables,
            libraries=library_versions(),
            error=error,
            host=socket.gethostname(),
            pid=os.getpid(),
            inputs={"files": shown_snapshot(self.inputs), "n_files": len(self.inputs)},
            stages={metric.stage: metric.value for metric in stages},
            resumed_from=resumed,
            accepted=self.accepted,
            gates=self.gates,
            base_run_id=self.base_run_id,
        )

    def __enter__(self) -> "RunRecord":
        write_manifest(self.warehouse, self.manifest("running", {}))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None or self.status != "running":
            return
        status = "held" if isinstance(error, GateError) else "failed"
        said = "interrupted" if isinstance(error, KeyboardInterrupt) else _one_line(error)
        try:
            write_manifest(self.warehouse, self.manifest(status, {}, said))
        except Exception as second:  # the first error is the one to tell
            logger.warning("could not record the failure: %s", one_line(second))


def _one_line(error: BaseException) -> str:
    """All that was said to the user; of what was not meant for users, the beginning."""
    return " ".join(str(error).split()) if isinstance(error, DedupError) else one_line(error)
