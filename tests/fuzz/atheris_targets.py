"""Coverage-guided fuzzing: `python -m tests.fuzz.atheris_targets photos -max_total_time=60`.

Atheris watches which lines of this project (and of Pillow's parsers, which are Python) an input
reaches, and keeps what reaches new ones under build/fuzz/corpus. Other arguments are libFuzzer's.
"""

import random
import sys
from pathlib import Path

import atheris

from tests.fuzz.targets import NAMES, make_case, open_target

FOLDER = Path(__file__).parents[2] / "build" / "fuzz"
_WATCHED = ["dedup_job.io", "dedup_job.kernels", "PIL"]
_N_SEEDS = 300
_MEMORY_MIB = 4096
_TIMEOUT_S = 10


def main(arguments: list[str]) -> None:
    """Fuzz one target until a finding or the end of the time."""
    if not arguments or arguments[0] not in NAMES:
        sys.exit(f"expected one of {', '.join(NAMES)}, then options of libFuzzer")
    name, options = arguments[0], arguments[1:]
    with atheris.instrument_imports(include=_WATCHED):
        target = open_target(name)
    corpus = _write_corpus(name, target)
    limits = [
        f"-rss_limit_mb={_MEMORY_MIB}",
        f"-timeout={_TIMEOUT_S}",
        f"-artifact_prefix={FOLDER}/{name}-atheris-",
    ]

    def run(data: bytes) -> None:
        target.run(data)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        """Mostly libFuzzer's mutations; now and then a fresh case, whose damage knows the format."""
        rng = random.Random(seed)
        if rng.random() < 0.2:
            return target.make(rng)[:max_size]
        return atheris.Mutate(data, max_size)

    command = [sys.argv[0], str(corpus), *limits, *options]
    atheris.Setup(command, run, custom_mutator=mutate)
    atheris.Fuzz()


def _write_corpus(name: str, target: object) -> Path:
    folder = FOLDER / "corpus" / name
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(_N_SEEDS):
        (folder / f"seed-{number}").write_bytes(make_case(target, name, 1, number))
    return folder


if __name__ == "__main__":
    main(sys.argv[1:])
