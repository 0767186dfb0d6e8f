"""Thumbnails of grouped photos: one small JPEG a content, beside the gallery that shows them."""

from dedup_job.io.storage import Folder
from dedup_job.tables import PHOTO_DIGITS

GALLERY_FOLDER = "gallery"
_FOLDER = "thumbnails"
_SUFFIX = ".jpg"


def thumbnail_folder(warehouse: Folder, photo: str) -> Folder:
    """Where the thumbnail of a photo lies; `photo` is PHOTO_DIGITS of its content's SHA-256."""
    return warehouse.child(GALLERY_FOLDER, _FOLDER, photo[:2])


def thumbnail_name(photo: str) -> str:
    """The file's name in `thumbnail_folder`."""
    return photo + _SUFFIX


def store_thumbnail(warehouse: Folder, photo: str, jpeg: bytes) -> None:
    """Put a thumbnail in its place, in one step; runs on executors."""
    folder = thumbnail_folder(warehouse, photo)
    folder.create()
    folder.replace_bytes(thumbnail_name(photo), jpeg)


def thumbnails_there(warehouse: Folder) -> set[str]:
    """Photos whose thumbnail is stored."""
    root = warehouse.child(GALLERY_FOLDER, _FOLDER)
    names = (name for folder in root.folder_names() for name in root.child(folder).file_names())
    stems = {name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)}
    return {stem for stem in stems if len(stem) == PHOTO_DIGITS}


def delete_thumbnails(warehouse: Folder, photos: set[str]) -> None:
    """Delete thumbnails, where they are; raises what the store raises."""
    for photo in photos:
        thumbnail_folder(warehouse, photo).delete_file(thumbnail_name(photo))
