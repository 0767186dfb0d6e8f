"""Embeddings by content, kept from night to night (docs/adr/0013).

`image_embeddings/model_id=ID/_index.json` names the files that count. It is replaced in one step after
new files are in place and before old ones are deleted, so a crash in between leaves a stray file that
nobody reads.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace

from dedup_job.errors import DedupError
from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, TableFile, list_table
from dedup_job.tables import IMAGE_EMBEDDINGS

INDEX = "_index.json"
_FORMAT = 1
_PREFIX = "model_id="


class EmbeddingStore:
    """The embeddings of one model in a warehouse. Whoever writes holds the warehouse's lease.

    Args:
        warehouse: the warehouse.
        model_id: the model.
    """

    def __init__(self, warehouse: Folder, model_id: str) -> None:
        self.model_id = model_id
        self.folder = warehouse.child(IMAGE_EMBEDDINGS.name, f"{_PREFIX}{model_id}")

    def stored(self) -> StoredTable:
        """All embeddings.

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
                    f"{self.folder.path(INDEX)} has format {content['format']}, this version reads "
                    f"{_FORMAT}; upgrade catalog-dedup"
                )
            files = tuple(TableFile(**file) for file in content["files"])
        except (ValueError, TypeError, KeyError):
            raise DedupError(
                f"{self.folder.path(INDEX)} is damaged; delete this model's folder, the next run "
                "embeds its photos again"
            ) from None
        return StoredTable(IMAGE_EMBEDDINGS, self.folder, files)

    def append(self, staged: StoredTable, run_id: str) -> StoredTable:
        """Add the files of a staged table of the same warehouse; their names carry the run id.

        Returns:
            What was added.
        """
        before = self.stored()
        if self.folder.read_bytes(INDEX) is None:
            self.replace(before.files)  # from here on a file that is not named does not count
        added = self.move_in(staged, run_id)
        if added:
            self.replace((*before.files, *added))
        return StoredTable(IMAGE_EMBEDDINGS, self.folder, added)

    def move_in(self, staged: StoredTable, prefix: str) -> tuple[TableFile, ...]:
        """Move files of the same warehouse in under names of their own; they do not count yet."""
        self.folder.create()
        added: list[TableFile] = []
        for i, file in enumerate(staged.files):
            name = f"{prefix}-{i:05d}.parquet"
            self.folder.move_in(staged.folder, file.name, name)
            added.append(replace(file, name=name))
        return tuple(added)

    def replace(self, files: Sequence[TableFile]) -> None:
        """Let exactly these files of the folder count."""
        content = {"format": _FORMAT, "files": [asdict(file) for file in files]}
        self.folder.replace_bytes(INDEX, json.dumps(content, indent=1).encode())

    def strays(self) -> list[str]:
        """Files in the folder that do not count: left by a crash, or replaced."""
        named = {INDEX, *(file.name for file in self.stored().files)}
        return [name for name in self.folder.file_names() if name not in named]

    def delete_strays(self) -> None:
        """Delete them. What cannot be deleted is told; the next time finds it again."""
        for name in self.strays():
            self.folder.try_delete_file(name)

    def delete(self) -> None:
        """Delete the model's embeddings; half way through, what counts is none of them."""
        self.replace(())
        self.folder.delete()


def embedding_stores(warehouse: Folder) -> Iterable[EmbeddingStore]:
    """The store of every model that has one."""
    for name in warehouse.child(IMAGE_EMBEDDINGS.name).folder_names():
        if name.startswith(_PREFIX):
            yield EmbeddingStore(warehouse, name.removeprefix(_PREFIX))
