"""Embeddings by content, kept from night to night: they are only ever added.

`image_embeddings/model_id=ID/_index.json` names the files that count. It is replaced in one step after
new files are in place, so a crash in between leaves a stray file that nobody reads.
"""

import json
import logging
from dataclasses import asdict, replace

from dedup_job.errors import DedupError
from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, TableFile, list_table
from dedup_job.tables import IMAGE_EMBEDDINGS

logger = logging.getLogger("dedup_job")
INDEX = "_index.json"
_FORMAT = 1


class EmbeddingStore:
    """The embeddings of one model in a warehouse. Whoever writes holds the warehouse's lease.

    Args:
        warehouse: the warehouse.
        model_id: the model.
    """

    def __init__(self, warehouse: Folder, model_id: str) -> None:
        self.folder = warehouse.child(IMAGE_EMBEDDINGS.name, f"model_id={model_id}")

    def stored(self) -> StoredTable:
        """All embeddings, each content once.

        Raises:
            DedupError: the index is damaged or of a newer format.
        """
        data = self.folder.read_bytes(INDEX)
        if data is None:  # nothing yet, or written before there was an index
            return list_table(IMAGE_EMBEDDINGS, self.folder)
        try:
            content = json.loads(data)
            if content["format"] != _FORMAT:
                raise DedupError(
                    f"{self.folder.path(INDEX)}: unknown format; upgrade catalog-dedup"
                )
            files = tuple(TableFile(**file) for file in content["files"])
        except (ValueError, TypeError, KeyError):
            raise DedupError(
                f"{self.folder.path(INDEX)} is damaged; delete this model's folder, the next run "
                "embeds its photos again"
            ) from None
        return StoredTable(IMAGE_EMBEDDINGS, self.folder, files)

    def append(self, staged: StoredTable, run_id: str) -> StoredTable:
        """Add the files of a staged table of the same warehouse; their names carry the run id."""
        before = self.stored()
        self.folder.create()
        added: list[TableFile] = []
        for i, file in enumerate(staged.files):
            name = f"{run_id}-{i:05d}.parquet"
            self.folder.move_in(staged.folder, file.name, name)
            added.append(replace(file, name=name))
        if added or self.folder.read_bytes(INDEX) is None:
            self.replace((*before.files, *added))
        return StoredTable(IMAGE_EMBEDDINGS, self.folder, tuple(added))

    def replace(self, files: tuple[TableFile, ...]) -> None:
        """Let exactly these files of the folder count."""
        content = {"format": _FORMAT, "files": [asdict(file) for file in files]}
        self.folder.replace_bytes(INDEX, json.dumps(content, indent=1).encode())
