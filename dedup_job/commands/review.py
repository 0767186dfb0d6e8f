"""`dedup-job review`: the gallery of the last published run, written anew."""

from dedup_job.gallery.writing import choose_shown, most_groups, write_gallery
from dedup_job.io.manifests import read_manifest
from dedup_job.io.storage import open_warehouse


def review(warehouse: str, max_groups: int | None = None) -> str:
    """Write the gallery of the last published run, with the thumbnails that its run made.

    Args:
        warehouse: as `--warehouse`.
        max_groups: groups to show, the least certain of all; default: as the run was set.

    Returns:
        Where the page lies.

    Raises:
        DedupError: nothing was published there, or it cannot be read.
    """
    folder = open_warehouse(warehouse)
    manifest = read_manifest(folder)
    n = most_groups(manifest) if max_groups is None else max_groups
    return write_gallery(folder, manifest, choose_shown(folder, manifest, n))
