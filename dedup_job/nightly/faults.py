"""A hook for fault tests: stop the run at a named point as a crash or a paused machine would.

`DEDUP_FAIL_AT=POINT` leaves the process at that point without any clean-up; `DEDUP_FAIL_AT=POINT:stop`
stops it until somebody continues it. Unset, as it always is outside tests, nothing happens.
Points: after_STAGE (catalog, embeddings, candidates, groups, reports), after_audit, before_manifest,
after_manifest.
"""

import os
import signal

_EXIT_CODE = 70


def reach(point: str) -> None:
    """Say that the run has come to a point."""
    wanted, _, how = os.environ.get("DEDUP_FAIL_AT", "").partition(":")
    if wanted != point:
        return
    if how == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        os._exit(_EXIT_CODE)
