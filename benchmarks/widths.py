"""What a photo costs by the width and the input size of the network: int8 on LiteRT, one thread.

  python -m benchmarks.widths

The ablation's arms of width and size, beside their measured quality (`benchmarks/results/ablation.jsonl`).
Weights do not change the time, so the networks are untrained. They take turns, so that a noisy machine slows
all of them; the time of each is its median over the rounds. Pin it to a core (taskset -c 0).
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ablation import ARMS, BASE, make_config, read_results
from dedup_job.kernels.model import LiteRtNetwork
from model_training.export import convert_to_int8, draw_golden
from model_training.network import build_network, raw_model

_ROUNDS = 30


def main() -> None:
    """Measure and print one JSON object an arm."""
    names = [BASE, *(arm for arm in ARMS if arm.startswith(("width_", "px_")))]
    with tempfile.TemporaryDirectory() as folder:
        networks = {arm: _convert(arm, Path(folder) / f"{arm}.tflite") for arm in names}
        seconds: dict[str, list[float]] = {arm: [] for arm in names}
        for _ in range(_ROUNDS):
            for arm, (network, photos) in networks.items():
                start = time.perf_counter()
                network(photos)
                seconds[arm].append((time.perf_counter() - start) / len(photos))
        sizes = {arm: (Path(folder) / f"{arm}.tflite").stat().st_size for arm in names}
    quality = {row["arm"]: row for row in read_results() if row["seed"] == 0}
    for arm in names:
        figures: dict[str, Any] = {
            "arm": arm,
            "ms_per_photo": round(1000 * float(np.median(seconds[arm])), 2),
            "megabytes": round(sizes[arm] / 1e6, 1),
        }
        if arm in quality:
            figures |= {name: round(quality[arm][name], 3) for name in ("uap", "hard_auc")}
            figures["training_s"] = round(quality[arm]["seconds"])
        print(json.dumps(figures))


def _convert(arm: str, path: Path) -> tuple[LiteRtNetwork, np.ndarray]:
    network = make_config(arm, 0, 1).network
    photos = draw_golden(network.input_px)
    path.write_bytes(convert_to_int8(raw_model(build_network(network, training=False)), photos))
    return LiteRtNetwork(path, 1), photos


if __name__ == "__main__":
    main()
