"""The champion trained on, measured against itself, and replaced if the result is no worse."""

import argparse
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dedup_job.errors import ConfigError, GateError
from dedup_job.kernels.bundle import Manifest, read_manifest
from model_training.bundling import export_bundle
from model_training.config import ExperimentConfig, NetworkConfig, load_config
from model_training.data import PhotoSet, fingerprint, photo_sha256
from model_training.evaluate import build_validation, score_validation
from model_training.make_verifier import make_verifier
from model_training.outputs import prepare_run_dir
from model_training.promote import promote
from model_training.registry import Registry
from model_training.sources import keep_in_training, split
from model_training.starts import find_verifier, load_start, trainings_behind
from model_training.train import CHECKPOINT, Trainer, run_training
from model_training.watchers import Watcher, tell_of_bundle
from model_training.work_dir import CANDIDATE, INPUTS, RUN, clear

FINE_TUNE = Path(__file__).parent / "configs/fine_tune.yaml"
# The champion's weights fit these; everything else of a network may be set anew.
_SHAPE = ("input_px", "blur_sigma_px", "width", "dim", "backbone_weights", "channel_attention",
          "spatial_attention", "attention_stages", "attention_reduction")  # fmt: skip
# Newer than some champions, which have the default.
_NEWER_SHAPE = ("pooling", "gem_p")


def retrain(
    options: argparse.Namespace,
    champion: Path,
    photos: PhotoSet,
    work: Path,
    report: Callable[[str], None],
    watcher: Watcher = Watcher(),
) -> dict[str, Any]:
    """Train the champion on with these photos, and promote the result unless it may be worse.

    One that was killed goes on from its checkpoint, if photos, champion and experiment are the same.

    Args:
        options: `config`, `registry`, `margin`, `max_int8_loss`, `command_line`.
        champion: bundle to start from, and to beat.
        photos: to learn from; the held-out ones among them judge.
        work: from `work_dir.claimed`; refused, it keeps the candidate but not the checkpoint.
        report: receives one line a report of the training.
        watcher: is told of the training, the candidate and its promotion.

    Returns:
        The version promoted and the comparison, for JSON.

    Raises:
        GateError: the candidate was refused; the registry is as it was.
        ConfigError: as of a training.
    """
    manifest = read_manifest(champion)
    config = fine_tune_config(manifest, load_config(options.config or FINE_TUNE))
    verifier = find_verifier("the champion", champion) if manifest.has_verifier else None
    registry = Registry(options.registry)
    training, held_out = split(keep_in_training(photos, registry.trained()))
    trainer = _open_trainer(work, champion, config, _inputs(manifest, config, photos))
    validation = build_validation(held_out, config.network)
    run_training(
        trainer,
        training,
        validate=lambda t: score_validation(t.embed(validation.views), validation),
        report=report,
        watcher=watcher,
    )
    try:
        candidate = export_bundle(
            work / RUN,
            training,
            held_out,
            work / CANDIDATE,
            command=options.command_line,
            max_int8_loss=options.max_int8_loss,
            data_note=config.data_note,
        )
        if verifier is not None:
            candidate = make_verifier(
                work / CANDIDATE,
                training,
                held_out,
                config,
                work / RUN,
                resume=True,
                command=options.command_line,
                max_int8_loss=options.max_int8_loss,
                start=verifier,
                report=report,
            )
        step = trainer.progress.step
        tell_of_bundle(watcher, candidate.model_id, step, candidate.raw["quality"])
        version, comparison = promote(
            registry, champion, work / CANDIDATE, held_out, options.margin
        )
    except GateError:
        shutil.rmtree(work / RUN, ignore_errors=True)  # trained on, it would be refused again
        raise
    compared = {k: v for k, v in comparison.as_dict().items() if isinstance(v, int | float)}
    watcher.on_figures("comparison", step, compared)
    watcher.on_fact("promoted", version)
    registry.remember_trained({photo_sha256(photo) for photo in training.photos})
    clear(work)
    return {"promoted": version, **comparison.as_dict()}


def fine_tune_config(champion: Manifest, config: ExperimentConfig) -> ExperimentConfig:
    """The experiment, with the network of a champion.

    Raises:
        ConfigError: the champion's manifest does not say what its network is.
    """
    try:
        known = champion.raw["training"]["config"]["network"]
        shape = {name: known[name] for name in _SHAPE}
        for name in _NEWER_SHAPE:
            shape[name] = known.get(name, NetworkConfig.model_fields[name].default)
    except (KeyError, TypeError):
        raise ConfigError(
            "the champion's manifest does not describe its network (training.config.network); "
            "train anew with model-training train"
        ) from None
    network = {**config.network.model_dump(), **shape}
    return ExperimentConfig.model_validate({**config.model_dump(), "network": network})


def _inputs(champion: Manifest, config: ExperimentConfig, photos: PhotoSet) -> dict[str, str]:
    """What a checkpoint belongs to."""
    labels = [(p.identity, p.product, p.family) for p in photos.photos]
    said = json.dumps([labels, sorted(photos.dissimilar.items())])
    return {
        "champion": f"{champion.model_id} {champion.verifier_id}",
        "experiment": config.fingerprint(),
        "photos": fingerprint(photos.photos),
        "labels": hashlib.sha256(said.encode()).hexdigest(),
    }


def _open_trainer(
    work: Path, champion: Path, config: ExperimentConfig, inputs: dict[str, str]
) -> Trainer:
    """Go on from the checkpoint in `work` if it is of these inputs, else start from the champion."""
    run_dir, known = work / RUN, work / INPUTS
    text = json.dumps(inputs, indent=1) + "\n"
    is_ours = known.is_file() and known.read_text(encoding="utf-8") == text
    resume = is_ours and (run_dir / CHECKPOINT).is_file()
    if not resume:
        shutil.rmtree(run_dir, ignore_errors=True)
    prepare_run_dir(run_dir, CHECKPOINT, resume=resume)
    known.write_text(text, encoding="utf-8")
    if resume:
        return Trainer(config, run_dir, resume=True)
    start, earlier = load_start(champion), trainings_behind(champion)
    return Trainer(config, run_dir, start=start, earlier=earlier)
