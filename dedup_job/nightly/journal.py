"""The steps a run has finished, so that a run that was killed continues where it stopped.

`_staging/RUN_ID/journal.json` names the tables each step stored. A run that starts with the same
inputs (catalog files, settings, model, date, code, last published run) adopts the journal of the
dead run; the tables stay where they are until the new run is published. Only the holder of the
warehouse's lease opens journals, so every other one belongs to a run that is over.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dedup_job.io.manifests import describe_table, described_table
from dedup_job.io.storage import STAGING_FOLDER, Folder
from dedup_job.io.tables import StoredTable
from dedup_job.tables import Table

logger = logging.getLogger("dedup_job")
_FILE = "journal.json"
_FORMAT = 1


@dataclass
class Journal:
    """What one run has stored so far.

    Attributes:
        warehouse: where the run works.
        run_id: the run.
        inputs: digest of everything that decides the result.
        steps: step -> folder, relative to the warehouse, and files.
        adopted_from: the dead run whose steps these were at first.
        reused: steps of it that were taken over, in order.
    """

    warehouse: Folder
    run_id: str
    inputs: str
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    adopted_from: str | None = None
    reused: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Folder:
        """This run's staging folder."""
        return self.warehouse.child(STAGING_FOLDER, self.run_id)

    def find(self, step: str, table: Table) -> StoredTable | None:
        """The table of a step that is done and whose files are all still there."""
        entry = self.steps.get(step)
        if entry is None:
            return None
        stored = described_table(table, self.warehouse, entry)
        if not {file.name for file in stored.files} <= set(stored.folder.file_names()):
            return None
        self.reused.append(step)
        return stored

    def record(self, step: str, stored: StoredTable) -> None:
        """Keep a finished step; on return it survives a crash."""
        self.steps[step] = describe_table(stored, self.warehouse)
        self._write()

    def _write(self) -> None:
        content = {
            "format": _FORMAT,
            "run_id": self.run_id,
            "inputs": self.inputs,
            "adopted_from": self.adopted_from,
            "steps": self.steps,
        }
        self.folder.replace_bytes(_FILE, json.dumps(content, indent=1).encode())


def open_journal(
    warehouse: Folder,
    run_id: str,
    inputs: str,
    is_in_vain: Callable[[str], bool] = lambda run_id: False,
) -> Journal:
    """Start a journal, with the steps of the newest dead run of equal inputs.

    Staging folders that nobody can continue from are deleted.

    Args:
        warehouse: where the run works.
        run_id: the run.
        inputs: digest of everything that decides the result.
        is_in_vain: whether a run's work would only lead to where that run ended.
    """
    journal = Journal(warehouse, run_id, inputs)
    root = warehouse.child(STAGING_FOLDER)
    others = [name for name in root.folder_names() if name != run_id]
    for name in sorted(others, reverse=True):  # run ids begin with their time
        found = _read(root.child(name))
        if found and found["inputs"] == inputs and found["steps"]:
            if is_in_vain(name):
                logger.info("run %s was held back; its photos are looked at again", name)
                break
            journal.steps, journal.adopted_from = found["steps"], name
            logger.info("continuing the work of run %s, which did not finish", name)
            break
    needed = {entry["folder"].split("/")[1] for entry in journal.steps.values()}
    if journal.steps:
        journal._write()
    for name in others:
        if name not in needed:
            root.child(name).try_delete()
    return journal


def delete_staging(warehouse: Folder) -> None:
    """Delete all work in progress: what was published needs none of it.

    What cannot be deleted is told, and does not fail the run.
    """
    root = warehouse.child(STAGING_FOLDER)
    for name in root.folder_names():
        root.child(name).try_delete()
    if root.is_local:
        root.try_delete()


def _read(folder: Folder) -> dict[str, Any] | None:
    data = folder.read_bytes(_FILE)
    if data is None:
        return None
    try:
        content = json.loads(data)
        return content if content["format"] == _FORMAT else None
    except (ValueError, KeyError, TypeError):
        return None
