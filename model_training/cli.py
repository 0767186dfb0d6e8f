"""`model-training train | export | calibrate | evaluate`."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from dedup_job.errors import ConfigError, DedupError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except DedupError as error:
        print(f"model-training: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run_and_exit() -> None:
    """Entry point of the console script."""
    sys.exit(main())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="model-training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="train a network; --resume continues")
    _add_data(train)
    train.add_argument("--run-dir", type=Path, required=True, help="checkpoint and log")
    train.add_argument("--resume", action="store_true")
    train.add_argument("--finish-at", metavar="HH:MM", help="end by the clock instead of by views")
    train.set_defaults(run=_train)
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--photos", type=Path, help="folder of photos without labels")
    parser.add_argument("--products", type=Path, help="table: image, sku, style")
    parser.add_argument("--pairs", type=Path, help="table: image_a, image_b, label")
    parser.add_argument("--image-root", type=Path, help="base of the tables' image paths")
    parser.add_argument("--config", type=Path, help="experiment (YAML)")
    parser.add_argument("--cache-dir", type=Path, default=Path("/tmp/dedup_train_cache"))


def _train(options: argparse.Namespace) -> None:
    from model_training.config import load_config
    from model_training.evaluate import build_validation, score_validation
    from model_training.sources import read_sources, split
    from model_training.train import Trainer, run_training

    config = load_config(options.config)
    training, held_out = split(read_sources(options))
    options.run_dir.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config, options.run_dir)
    if options.resume:
        trainer.resume()
    validation = build_validation([p for p in held_out.photos], config.network)
    run_training(
        trainer,
        training,
        finish_at=_clock(options.finish_at),
        validate=lambda t: score_validation(t.embed(validation.views), validation),
        report=lambda line: print(f"{time.strftime('%H:%M:%S')} {line}", flush=True),
    )


def _clock(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        at = datetime.strptime(text, "%H:%M")
    except ValueError:
        raise ConfigError(f"--finish-at {text}: use HH:MM") from None
    now = datetime.now()
    return now.replace(hour=at.hour, minute=at.minute, second=0).timestamp()
