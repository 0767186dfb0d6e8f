"""`model-training train | export | ...`: learn an embedding, make it a bundle, put it to use."""

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from dedup_job.errors import ConfigError, DedupError
from model_training.tracking import MlflowRun, without_credentials
from model_training.watchers import (
    ProgressBar,
    TensorBoardLog,
    Watcher,
    tell_of_bundle,
    watching,
)

if TYPE_CHECKING:
    from dedup_job.kernels.bundle import Manifest
    from model_training.data import PhotoSet
    from model_training.registry import Registry

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# What only an extra brings.
_EXTRA = {
    **dict.fromkeys(("keras", "matplotlib", "seaborn", "tensorflow"), "train"),
    **dict.fromkeys(("mlflow", "alembic", "sqlalchemy"), "mlflow"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    # Model cards quote it: a password in a tracking URI stays out.
    command = [without_credentials(word) for word in arguments or sys.argv[1:]]
    options.command_line = shlex.join(["model-training", *command])
    try:
        options.run(options)
    except DedupError as error:
        return _complain(error)
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        return _complain(DedupError(f"{what}{error.strerror or error}"))
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("jax", "torch"):
            return _complain(ConfigError(f"KERAS_BACKEND needs {package}, which is not installed"))
        if package not in _EXTRA:
            raise
        return _complain(
            ConfigError(
                f"{package} is not installed: pip install 'catalog-dedup[{_EXTRA[package]}]'"
            )
        )
    return 0


def _complain(error: DedupError) -> int:
    print(f"model-training: {error}", file=sys.stderr)
    return error.exit_code


def run_and_exit() -> None:
    """Entry point of the console script."""
    sys.exit(main())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="model-training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="train a network; --resume continues")
    _add_data(train)
    train.add_argument("--out", type=_local_path, help="export this bundle at the end")
    train.add_argument("--run-dir", type=_local_path, help="checkpoint and log (default: OUT.run)")
    train.add_argument("--backbone-weights", metavar="imagenet|none|FILE", help="start from these")
    train.add_argument("--resume", action="store_true", help="continue from the checkpoint")
    train.add_argument(
        "--init-from",
        type=_local_path,
        metavar="BUNDLE|RUN",
        help="start a new schedule from the weights of a bundle or of a run directory",
    )
    train.add_argument("--finish-at", metavar="HH:MM", help="end by the clock instead of by views")
    _add_export(train)
    _add_watchers(train)
    train.set_defaults(run=_train)
    export = commands.add_parser("export", help="make a bundle from a run's checkpoint")
    _add_data(export)
    export.add_argument("--run-dir", type=_local_path, required=True)
    export.add_argument("--out", type=_local_path, required=True)
    _add_export(export)
    export.set_defaults(run=_export)
    verifier = commands.add_parser("verifier", help="train a pair verifier for a bundle")
    _add_data(verifier)
    verifier.add_argument("--bundle", type=_local_path, required=True, help="gets the verifier")
    verifier.add_argument("--run-dir", type=_local_path, required=True, help="checkpoint")
    verifier.add_argument("--resume", action="store_true", help="continue from the checkpoint")
    verifier.add_argument(
        "--init-from",
        type=_local_path,
        metavar="BUNDLE",
        help="start from that bundle's verifier, not from random weights",
    )
    verifier.add_argument("--finish-at", metavar="HH:MM", help="end by the clock, not by pairs")
    _add_export(verifier)
    verifier.set_defaults(run=_verifier)
    calibration = commands.add_parser("calibrate", help="measure a bundle's calibration again")
    _add_data(calibration)
    calibration.add_argument("--bundle", type=_local_path, required=True)
    calibration.set_defaults(run=_calibrate)
    evaluation = commands.add_parser("evaluate", help="print a bundle's figures as JSON")
    _add_data(evaluation)
    evaluation.add_argument("--bundle", type=_local_path, required=True)
    evaluation.add_argument(
        "--html",
        type=_local_path,
        metavar="REPORT.html",
        help="write figures and pictures as one file",
    )
    evaluation.set_defaults(run=_evaluate)
    pairs = commands.add_parser("pairs", help="turn people's decisions into training pairs")
    _add_decisions(pairs, required=True)
    pairs.add_argument(
        "--out", type=_local_path, required=True, help="directory for table and photos"
    )
    pairs.set_defaults(run=_pairs)
    promotion = commands.add_parser("promote", help="make a bundle the champion, if it is no worse")
    _add_data(promotion)
    _add_registry(promotion)
    which = promotion.add_mutually_exclusive_group(required=True)
    which.add_argument("--candidate", type=_local_path, help="bundle to compare and promote")
    which.add_argument(
        "--rollback", action="store_true", help="go back to the champion that this one replaced"
    )
    which.add_argument("--version", help="make this version champion, without comparing")
    promotion.set_defaults(run=_promote)
    again = commands.add_parser(
        "retrain", help="train the champion on and promote the result, if it is no worse"
    )
    _add_data(again)
    _add_decisions(again, required=False)
    _add_registry(again)
    _add_export(again)
    _add_watchers(again)
    again.add_argument("--work-dir", type=_local_path, help="for the run (default: REGISTRY/work)")
    again.set_defaults(run=_retrain)
    return parser


def _local_path(text: str) -> Path:
    """`Path("s3://...")` would be a folder `s3:` of the current directory."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} is no local path: copy it here, or mount it")
    return Path(text)


def _add_decisions(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument("--decisions", required=required, help="as of the nightly job")
    parser.add_argument("--warehouse", required=required, help="of the nightly job")


def _add_registry(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--registry", type=_local_path, required=True, help="directory of model versions"
    )
    parser.add_argument(
        "--champion",
        type=_local_path,
        help="bundle to beat while the registry is empty (default: the one that ships)",
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=0.02,
        metavar="UAP",
        help="how much worse the 95 %% interval may reach (default %(default)s)",
    )


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-int8-loss",
        type=float,
        default=0.01,
        metavar="UAP",
        help="uAP that int8 may cost on held-out products (default %(default)s)",
    )


def _add_watchers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--progress",
        choices=("auto", "on", "off"),
        default="auto",
        help="a bar on stderr (auto: only on a terminal)",
    )
    parser.add_argument(
        "--tensorboard",
        type=_local_path,
        metavar="DIR",
        help="write losses and figures for TensorBoard",
    )
    parser.add_argument(
        "--mlflow-uri",
        metavar="URI",
        help="record as a run of MLflow: http(s)://... or sqlite:///FILE; extra [mlflow]",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=_local_path, help="table: image_a, image_b, label")
    parser.add_argument("--photos", type=_local_path, help="folder of photos without labels")
    parser.add_argument("--products", type=_local_path, help="table: image, sku, style")
    parser.add_argument("--image-root", type=_local_path, help="base of the tables' image paths")
    parser.add_argument(
        "--config", type=_local_path, help="experiment (YAML); an export takes its data_note only"
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "catalog-dedup"
    parser.add_argument("--cache-dir", type=_local_path, default=cache, help="decoded photos")


def _train(options: argparse.Namespace) -> None:
    from model_training.config import load_config, with_backbone
    from model_training.data import fingerprint
    from model_training.evaluate import build_validation, score_validation
    from model_training.outputs import COMMAND_FILE, check_same_photos, prepare_run_dir
    from model_training.starts import load_start, trainings_behind
    from model_training.train import CHECKPOINT, Trainer, run_training

    run_dir = _run_dir(options)
    config = with_backbone(load_config(options.config), options.backbone_weights)
    finish_at = _clock(options.finish_at)
    prepare_run_dir(run_dir, CHECKPOINT, resume=options.resume)
    with watching(_open_watchers(options)) as watcher:
        training, held_out = _read_split(options)
        check_same_photos(run_dir, fingerprint(training.photos), begins=not options.resume)
        is_started = options.init_from is not None and not options.resume
        start = load_start(options.init_from) if is_started else None
        earlier = trainings_behind(options.init_from) if is_started else []
        trainer = Trainer(config, run_dir, resume=options.resume, start=start, earlier=earlier)
        if not options.resume:
            (run_dir / COMMAND_FILE).write_text(options.command_line + "\n", encoding="utf-8")
        validation = build_validation(held_out, config.network)
        run_training(
            trainer,
            training,
            finish_at=finish_at,
            validate=lambda t: score_validation(t.embed(validation.views), validation),
            report=_report,
            watcher=watcher,
        )
        if options.out:
            manifest = _export_run(run_dir, training, held_out, options)
            step = trainer.progress.step
            tell_of_bundle(watcher, manifest.model_id, step, manifest.raw["quality"])


def _open_watchers(options: argparse.Namespace) -> list[Watcher]:
    """Who looks on; those that need a place to write to are opened before hours of training."""
    watchers: list[Watcher] = [ProgressBar(options.progress)]
    if options.tensorboard:
        watchers.append(TensorBoardLog(options.tensorboard))
    if options.mlflow_uri:
        watchers.append(MlflowRun(options.mlflow_uri, options.command_line))
    return watchers


def _run_dir(options: argparse.Namespace) -> Path:
    from model_training.outputs import check_apart, check_out

    if options.out is None and options.run_dir is None:
        raise ConfigError("train needs --out BUNDLE, or --run-dir to train without exporting")
    if options.out:
        options.out = check_out(options.out)
    run_dir: Path = options.run_dir or options.out.with_name(options.out.name + ".run")
    if options.out:
        check_apart(run_dir, options.out, "--out")
        _require_tensorflow()
    return run_dir


def _export(options: argparse.Namespace) -> None:
    from model_training.data import fingerprint
    from model_training.outputs import check_apart, check_out, check_same_photos

    _require_tensorflow()
    options.out = check_out(options.out)
    check_apart(options.run_dir, options.out, "--out")
    training, held_out = _read_split(options)
    check_same_photos(options.run_dir, fingerprint(training.photos), begins=False)
    _export_run(options.run_dir, training, held_out, options)


def _read_split(options: argparse.Namespace) -> tuple["PhotoSet", "PhotoSet"]:
    from model_training.sources import count_crossing, read_sources, split

    photos = read_sources(options)
    training, held_out = split(photos)
    n_crossing = count_crossing(photos)
    if n_crossing:
        # Not on stdout: an export answers in JSON there.
        print(
            f"{n_crossing} dissimilar pairs join a training and a held-out product: not used",
            file=sys.stderr,
        )
    return training, held_out


def _export_run(
    run_dir: Path, training: "PhotoSet", held_out: "PhotoSet", options: argparse.Namespace
) -> "Manifest":
    from model_training.bundling import export_bundle
    from model_training.config import load_config
    from model_training.outputs import read_command

    data_note = load_config(options.config).data_note
    manifest = export_bundle(
        run_dir,
        training,
        held_out,
        options.out,
        command=read_command(run_dir),
        max_int8_loss=options.max_int8_loss,
        data_note=data_note,
    )
    facts = {"bundle": str(options.out), "model_id": manifest.model_id, **manifest.raw["quality"]}
    print(json.dumps(facts, indent=1))
    return manifest


def _verifier(options: argparse.Namespace) -> None:
    from model_training.config import load_config
    from model_training.make_verifier import make_verifier
    from model_training.outputs import check_apart, check_bundle, check_out, prepare_run_dir
    from model_training.starts import find_verifier
    from model_training.verifier_training import CHECKPOINT

    _require_tensorflow()
    check_bundle("--bundle", options.bundle)
    check_out(options.bundle, "--bundle")
    check_apart(options.run_dir, options.bundle, "--bundle")
    if options.resume and not (options.run_dir / CHECKPOINT).is_file():
        raise ConfigError(
            f"--resume: {options.run_dir / CHECKPOINT} does not exist; start without --resume"
        )
    finish_at = _clock(options.finish_at)
    start = None if options.init_from is None else find_verifier("--init-from", options.init_from)
    prepare_run_dir(options.run_dir, CHECKPOINT, resume=options.resume)
    training, held_out = _read_split(options)
    manifest = make_verifier(
        options.bundle.resolve(),
        training,
        held_out,
        load_config(options.config),
        options.run_dir,
        resume=options.resume,
        command=options.command_line,
        max_int8_loss=options.max_int8_loss,
        start=start,
        finish_at=finish_at,
        report=_report,
    )
    facts = {"bundle": str(options.bundle), "model_id": manifest.model_id}
    print(json.dumps({**facts, **manifest.raw["verifier"]["quality"]}, indent=1))


def _calibrate(options: argparse.Namespace) -> None:
    from model_training.bundling import recalibrate_bundle
    from model_training.sources import read_sources

    recalibrate_bundle(options.bundle, read_sources(options))
    print(f"calibrated {options.bundle}")


def _evaluate(options: argparse.Namespace) -> None:
    from model_training.bundle_figures import evaluate_bundle
    from model_training.outputs import check_file
    from model_training.sources import read_sources

    if options.html:
        check_file(options.html, f"--html {options.html}")
    figures = evaluate_bundle(options.bundle, read_sources(options), options.html)
    print(json.dumps(figures, indent=1))


def _pairs(options: argparse.Namespace) -> None:
    print(_collect_pairs(options, options.out))


def _collect_pairs(options: argparse.Namespace, out: Path) -> str:
    """Write the decided pairs below `out`; returns a line that counts them."""
    # The job's own reader of decisions, warehouse and photos; nothing else here knows of them.
    from dedup_job.commands.training_pairs import collect_training_pairs

    collected = collect_training_pairs(options.decisions, options.warehouse, out)
    return f"{out}: {collected.line()}"


def _promote(options: argparse.Namespace) -> None:
    from model_training.outputs import check_bundle
    from model_training.promote import promote
    from model_training.registry import Registry
    from model_training.sources import held_out_of, keep_in_training, read_sources

    registry = Registry(options.registry)
    if options.candidate is None:
        version = options.version
        if version is None:
            version = registry.roll_back()
        else:
            registry.point_at(version, {"why": "named"})
        print(json.dumps({"promoted": version}))
        return
    check_bundle("--candidate", options.candidate)
    champion = _open_registry(registry, options)
    photos = keep_in_training(read_sources(options), registry.trained())
    version, comparison = promote(
        registry, champion, options.candidate, held_out_of(photos), options.margin
    )
    print(json.dumps({"promoted": version, **comparison.as_dict()}, indent=1))


def _open_registry(registry: "Registry", options: argparse.Namespace) -> Path:
    from model_training.outputs import check_bundle

    if options.champion is not None:
        check_bundle("--champion", options.champion)
    return registry.open(options.champion)


def _retrain(options: argparse.Namespace) -> None:
    from model_training.registry import Registry
    from model_training.retrain import retrain
    from model_training.sources import read_sources
    from model_training.work_dir import PAIRS, claimed

    if bool(options.decisions) != bool(options.warehouse):
        raise ConfigError("--decisions and --warehouse go together: it says which photos SKUs have")
    _require_tensorflow()
    champion = _open_registry(Registry(options.registry), options)
    work: Path = options.work_dir or options.registry / "work"
    with claimed(work):
        decided = None
        if options.decisions:
            decided = work / PAIRS
            _report(_collect_pairs(options, decided))
        with watching(_open_watchers(options)) as watcher:
            photos = read_sources(options, decided)
            verdict = retrain(options, champion, photos, work, _report, watcher)
    print(json.dumps(verdict, indent=1))


def _require_tensorflow() -> None:
    """Bundles are made with TensorFlow's converter: said before hours of training, not after them."""
    import keras

    if keras.config.backend() != "tensorflow":
        raise ConfigError(
            f"KERAS_BACKEND is {keras.config.backend()}, and bundles are made with tensorflow: train with "
            "--run-dir alone, then `model-training export` without KERAS_BACKEND"
        )


def _report(line: str) -> None:
    # Above a progress bar, if there is one; the results alone are on stdout.
    tqdm.write(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr)


def _clock(text: str | None) -> float | None:
    """The next time the clock shows HH:MM, in seconds since the epoch."""
    if text is None:
        return None
    try:
        at = datetime.strptime(text, "%H:%M")
    except ValueError:
        raise ConfigError(f"--finish-at {text}: use HH:MM") from None
    now = datetime.now()
    end = now.replace(hour=at.hour, minute=at.minute, second=0, microsecond=0)
    return (end if end > now else end + timedelta(days=1)).timestamp()
