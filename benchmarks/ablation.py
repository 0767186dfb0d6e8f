"""One factor at a time, an equal budget for each, several seeds: what earns its place in the network.

  python -m benchmarks.ablation --photos DIR --products TABLE [--views 30000] [--seeds 3] [--arms a,b]
      [--cache-dir DIR] [--work-dir DIR]
  python -m benchmarks.ablation --table

A finished training is one line of `benchmarks/results/ablation.jsonl`; what is there is not trained again, so
a long table is made in as many sittings as it takes. Every arm starts from the same random weights as the
others of its seed, sees equally many views, and is measured in float32 on the same held-out products.
A difference is called noise where it is smaller than twice its standard error over the seeds.
"""

import argparse
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from model_training.config import ExperimentConfig, NetworkConfig

ROOT = Path(__file__).parent
RESULTS = ROOT / "results" / "ablation.jsonl"
BASE = "both"
# Of `ExperimentConfig`, by dotted name; all but what is named is as in `BASE`.
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    BASE: (
        "channel and spatial attention, InfoNCE, mined batches, blur .5, 1/4 of the channels",
        {},
    ),
    "no_attention": (
        "no attention",
        {"network.channel_attention": False, "network.spatial_attention": False},
    ),
    "channel": ("channel attention only", {"network.spatial_attention": False}),
    "spatial": ("spatial attention only", {"network.channel_attention": False}),
    "erasure": (
        "with attention erasure (top 10 % of cells, a view in five)",
        {"network.erasure": True, "network.erasure_probability": 0.2},
    ),
    "no_blur": ("no Gaussian blur", {"network.blur_sigma_px": 0.0}),
    "triplet": ("triplet loss, semi-hard", {"loss.kind": "triplet"}),
    "random": (
        "random batches",
        {"training.cluster_size": 1, "training.mine_after_steps": 10**9},
    ),
    "width_50": ("half of the channels", {"network.width": 0.5}),
    "width_100": ("all channels", {"network.width": 1.0}),
    "px_96": ("96 pixels", {"network.input_px": 96}),
    "px_160": ("160 pixels", {"network.input_px": 160}),
    "px_224": ("224 pixels", {"network.input_px": 224}),
}
# A quarter of ResNet50's channels, half of what ships: 24 trainings are 3 hours of one core.
_BASE_SETTINGS: dict[str, Any] = {
    "network.width": 0.25,
    "network.erasure": False,
    "training.both_heavy_share": 0.3,
    "training.precision": "mixed_bfloat16",
    "training.mine_after_steps": 100,
    "training.mine_every_steps": 100,
    "training.ema_decay": 0.99,
    "training.checkpoint_every_s": 1e9,
    "training.validate_every_s": 1e9,
    "loss.temperature": 0.05,
}


def main() -> None:
    """Train what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--products", type=Path)
    parser.add_argument("--image-root", type=Path)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--cache-dir", type=Path, default=Path("/tmp/ablation-cache"))
    parser.add_argument("--work-dir", type=Path, default=Path("/tmp/ablation"))
    parser.add_argument("--views", type=int, default=30_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if not options.table:
        options.work_dir.mkdir(parents=True, exist_ok=True)
        train_missing(options)
    print(table(read_results(), options.views))


def read_results() -> list[dict[str, Any]]:
    """The trainings that are done."""
    if not RESULTS.is_file():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def train_missing(options: argparse.Namespace) -> None:
    """Train and measure what is not there yet: a whole table of one seed first."""
    from model_training.evaluate import build_validation
    from model_training.sources import read_sources, split

    training, held_out = split(read_sources(options))

    @cache
    def views_of(input_px: int, blur_sigma_px: float, held_out_kinds: bool) -> Any:
        network = NetworkConfig(input_px=input_px, blur_sigma_px=blur_sigma_px)
        return build_validation(held_out, network, held_out_kinds=held_out_kinds)

    for seed in range(options.seeds):
        for arm in options.arms.split(","):
            key = {"arm": arm, "seed": seed, "views": options.views}
            if not any(key.items() <= done.items() for done in read_results()):
                config = make_config(arm, seed, options.views)
                row = {**key, **measure_arm(config, training, views_of, options.work_dir)}
                RESULTS.parent.mkdir(exist_ok=True)
                with RESULTS.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")


def measure_arm(
    config: ExperimentConfig, training: Any, views_of: Callable[..., Any], work_dir: Path
) -> dict[str, Any]:
    """Train one arm with one seed and measure it."""
    import keras

    from model_training.evaluate import score_by_source, score_validation
    from model_training.train import Trainer, run_training

    keras.utils.clear_session()  # of the arm before
    with TemporaryDirectory(dir=work_dir) as run_dir:
        trainer = Trainer(config, Path(run_dir))
        run_training(trainer, training)
    known, unseen = (
        views_of(config.network.input_px, config.network.blur_sigma_px, held_out_kinds)
        for held_out_kinds in (False, True)
    )
    vectors = trainer.embed(known.views)
    return {
        **score_validation(vectors, known),
        "by_source": score_by_source(vectors, known),
        "unseen_kinds": score_validation(trainer.embed(unseen.views), unseen),
        "seconds": trainer.progress.spent_s,
    }


def make_config(arm: str, seed: int, views: int) -> ExperimentConfig:
    """The experiment of an arm."""
    settings = {**_BASE_SETTINGS, **ARMS[arm][1], "training.views": views, "training.seed": seed}
    sections: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        section, key = name.split(".")
        sections.setdefault(section, {})[key] = value
    return ExperimentConfig.model_validate(sections)


def table(results: list[dict[str, Any]], views: int) -> str:
    """Mean and standard deviation of each arm, and the paired difference to the base."""
    of_arm = {
        arm: {r["seed"]: r for r in results if r["arm"] == arm and r["views"] == views}
        for arm in ARMS
    }
    lines = [
        "| arm | seeds | uAP | hard-negative AUC | uAP, unseen kinds | difference in uAP |",
        "|---|---|---|---|---|---|",
    ]
    for arm, rows in of_arm.items():
        if not rows:
            continue
        figures = [
            [row["uap"] for row in rows.values()],
            [row["hard_auc"] for row in rows.values()],
            [row["unseen_kinds"]["uap"] for row in rows.values()],
        ]
        both = sorted(set(rows) & set(of_arm[BASE]))
        apart = [rows[s]["uap"] - of_arm[BASE][s]["uap"] for s in both]
        cells = [ARMS[arm][0], str(len(rows)), *(_spread(f) for f in figures), _verdict(arm, apart)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{deviation}"


def _verdict(arm: str, apart: list[float]) -> str:
    if arm == BASE or not apart:
        return "-"
    mean = float(np.mean(apart))
    if len(apart) < 2:
        return f"{mean:+.3f} (one seed)"
    error = float(np.std(apart, ddof=1) / np.sqrt(len(apart)))
    return f"{mean:+.3f} ± {error:.3f}" + (" (noise)" if abs(mean) < 2 * error else "")


if __name__ == "__main__":
    main()
