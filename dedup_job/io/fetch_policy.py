"""What may be fetched and how patiently, as one small value that travels to the executors."""

from collections.abc import Iterable
from dataclasses import dataclass

from dedup_job.config import FetchConfig
from dedup_job.io.uris import local_folder


@dataclass(frozen=True)
class FetchPolicy:
    """The rules of a fetch; see `config.FetchConfig` for the settings behind them.

    `roots` are absolute local folders; `hosts` entries are `HOST`, `HOST:PORT` or `*` in lower case;
    times are seconds; `total_timeout_s` spans redirects, retries and waits. `backoff_s` is the wait
    before the first retry; it doubles each time, with jitter.
    """

    schemes: tuple[str, ...]
    hosts: tuple[str, ...]
    buckets: tuple[str, ...]
    roots: tuple[str, ...]
    max_bytes: int
    connect_timeout_s: float
    read_timeout_s: float
    total_timeout_s: float
    max_attempts: int
    backoff_s: float = 0.5

    @classmethod
    def from_config(cls, config: FetchConfig, roots: Iterable[str]) -> "FetchPolicy":
        """Build the policy of a run.

        Args:
            config: the `fetch` section.
            roots: where the catalog's photos are (the image root); a remote one is no local root.
        """
        folders = [local_folder(root) for root in (*roots, *config.allow_roots)]
        return cls(
            schemes=tuple(scheme.lower() for scheme in config.allow_schemes),
            hosts=tuple(host.lower().rstrip(".") for host in config.allow_hosts),
            buckets=config.allow_buckets,
            roots=tuple(folder for folder in folders if folder is not None),
            max_bytes=config.max_bytes,
            connect_timeout_s=config.connect_timeout_s,
            read_timeout_s=config.read_timeout_s,
            total_timeout_s=config.total_timeout_s,
            max_attempts=config.max_attempts,
        )
