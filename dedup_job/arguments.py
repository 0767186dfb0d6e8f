"""The command line: which flag sets which setting."""

import argparse
import datetime
from collections.abc import Sequence
from typing import NoReturn

from dedup_job.errors import ConfigError
from dedup_job.settings import (
    Setting,
    Settings,
    current_environment,
    load_settings,
    parse_assignment,
)
from dedup_job.version import VERSION

# flag -> (setting, value name, help)
_RUN_FLAGS = {
    "--catalog": ("catalog.path", "PATH", "Parquet, CSV, JSON Lines, or a folder of photos"),
    "--warehouse": ("warehouse", "DIR", "where the report tables live: a path, s3:// or gs://"),
    "--decisions": (
        "decisions",
        "PATH",
        "CSV or Parquet: sku_id_a, sku_id_b, decision same|different",
    ),
    "--image-root": ("catalog.image_root", "DIR", "base of relative image URIs [catalog's folder]"),
    "--model": ("model.bundle", "BUNDLE", "model bundle directory [the one in the package]"),
    "--run-date": ("run_date", "YYYY-MM-DD", "partition to publish [today in UTC]"),
    "--target-precision": ("match.target_precision", "P", "precision of grouped pairs [0.97]"),
    "--min-cosine": ("match.min_cosine", "C", "explicit threshold instead of a target precision"),
    "--sku-match": ("match.sku_match", "RULE", "photos that must agree: any, main, majority [any]"),
    "--block-by": (
        "catalog.block_by",
        "COLS",
        "compare only rows with equal values, e.g. tenant,brand",
    ),
    "--conflict": (
        "catalog.conflict",
        "COLS",
        "never group products that differ here, e.g. colour",
    ),
    "--canonical-order": ("catalog.canonical_order", "ORDER", 'who survives: "in_stock desc, id"'),
    "--runtime": ("model.runtime", "NAME", "litert (int8, CPU) or tensorflow [litert]"),
    "--catalog-mode": (
        "catalog.mode",
        "MODE",
        "snapshot: the whole catalog; delta: only new and changed SKUs [snapshot]",
    ),
    "--revalidate-days": (
        "fetch.revalidate_days",
        "N",
        "days before a remote photo's server is asked again whether it changed [0]",
    ),
    "--chunk-photos": (
        "embed.chunk_photos",
        "N",
        "photos after which a killed run can continue [about a minute of work]",
    ),
    "--keep-runs": ("keep_runs", "N", "published runs to keep; older ones are deleted [all]"),
    "--reason": ("reason", "TEXT", "why a gate is accepted; kept in the manifest"),
    "--dollars-per-core-hour": (
        "dollars_per_core_hour",
        "D",
        "price, to report cost per million photos",
    ),
}
_EXCLUSIVE = ("--target-precision", "--min-cosine")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message} (see {self.prog} --help)")


def build_parser() -> argparse.ArgumentParser:
    """The parser of `dedup-job`."""
    parser = _Parser(prog="dedup-job", description="Find near-duplicate products by their photos.")
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Parser
    )
    run = commands.add_parser("run", help="run the job over a catalog and publish the reports")
    _add_run(run)
    _add_dry_run(run)
    doctor = commands.add_parser(
        "doctor", help="check machine, executors, model, warehouse, catalog; writes nothing"
    )
    _add_run(doctor)
    demo = commands.add_parser("demo", help="run on a drawn sample catalog and score the groups")
    demo.add_argument("--directory", default="demo", help="where to put it [demo]")
    show = commands.add_parser("show", help="print the last published run")
    show.add_argument("--warehouse", required=True, metavar="DIR")
    show.add_argument("--run-id", metavar="ID", help="a certain run [the last]")
    show.add_argument(
        "--run-date", type=_date, metavar="YYYY-MM-DD", help="what is published for this date"
    )
    show.add_argument("--top", type=int, default=10, metavar="N", help="groups to print [10]")
    show.add_argument("--json", action="store_true", help="print JSON")
    runs = commands.add_parser("runs", help="list the runs of a warehouse, or prune old ones")
    runs.add_argument("--warehouse", required=True, metavar="DIR")
    runs.add_argument(
        "--keep-runs", type=_count, metavar="N", help="delete all but the newest N published runs"
    )
    runs.add_argument("--json", action="store_true", help="print JSON")
    views = commands.add_parser("views", help="print SQL for views that show the newest run")
    views.add_argument("--warehouse", required=True, metavar="DIR")
    views.add_argument("--dialect", choices=("duckdb", "spark"), default="duckdb")
    compact = commands.add_parser(
        "compact", help="merge the small files of the embedding store, drop what nothing uses"
    )
    compact.add_argument("--warehouse", required=True, metavar="DIR")
    forget = commands.add_parser("forget", help="erase SKUs from everything in a warehouse")
    forget.add_argument("sku_ids", nargs="+", metavar="SKU")
    forget.add_argument("--warehouse", required=True, metavar="DIR")
    review = commands.add_parser("review", help="write the gallery of the last published run anew")
    review.add_argument("--warehouse", required=True, metavar="DIR")
    review.add_argument(
        "--max-groups", type=_count, metavar="N", help="groups to show [as the run was set]"
    )
    explain = commands.add_parser("explain", help="say and draw why two SKUs are together or not")
    explain.add_argument("sku_a", metavar="SKU_A")
    explain.add_argument("sku_b", metavar="SKU_B")
    explain.add_argument("--warehouse", required=True, metavar="DIR")
    explain.add_argument("--model", default="", metavar="BUNDLE", help="the model of the run")
    explain.add_argument("--out", metavar="FILE", help=".png or .html to write")
    compare = commands.add_parser("compare", help="say whether two photos show one product")
    compare.add_argument("photo_a", metavar="PHOTO_A", help="a file")
    compare.add_argument("photo_b", metavar="PHOTO_B", help="another file")
    compare.add_argument("--model", default="", metavar="BUNDLE", help="[the one in the package]")
    compare.add_argument("--out", metavar="FILE", help=".png or .html that shows why")
    compare.add_argument("--json", action="store_true", help="print JSON")
    find = commands.add_parser("find", help="print the listings that look like a photo")
    find.add_argument("photo", metavar="PHOTO", help="a file")
    find.add_argument("--warehouse", required=True, metavar="DIR")
    find.add_argument("--top", type=_count, default=10, metavar="N", help="SKUs to print [10]")
    find.add_argument("--model", default="", metavar="BUNDLE", help="the model of the run")
    find.add_argument("--rebuild", action="store_true", help="build the search index anew")
    find.add_argument("--json", action="store_true", help="print JSON")
    metrics = commands.add_parser("metrics", help="print the last run's figures for Prometheus")
    metrics.add_argument("--warehouse", required=True, metavar="DIR")
    metrics.add_argument("--out", metavar="FILE.prom", help="write them for the textfile collector")
    lineage = commands.add_parser("lineage", help="print a run as an OpenLineage event")
    lineage.add_argument("--warehouse", required=True, metavar="DIR")
    lineage.add_argument("--run-id", metavar="ID", help="a certain run [the last]")
    csv = commands.add_parser("export-csv", help="write a report table as CSV for a spreadsheet")
    csv.add_argument("table", metavar="TABLE", help="a report table, e.g. duplicate_groups")
    csv.add_argument("--warehouse", required=True, metavar="DIR")
    csv.add_argument("--out", required=True, metavar="FILE", help="CSV file to write")
    csv.add_argument("--run-id", metavar="ID", help="a certain run [the last]")
    for kind in ("delta", "iceberg"):
        lake = commands.add_parser(
            f"export-{kind}", help=f"write the report tables of a run as {kind.title()} tables"
        )
        lake.add_argument("--warehouse", required=True, metavar="DIR")
        lake.add_argument("--out", required=True, metavar="DIR", help="where the tables lie")
        lake.add_argument("--run-id", metavar="ID", help="a certain run [the last]")
    export = commands.add_parser("export-embeddings", help="write sku_id, image_uri, embedding")
    export.add_argument("--warehouse", required=True, metavar="DIR")
    export.add_argument("--out", required=True, metavar="FILE", help="Parquet file to write")
    return parser


def _date(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected YYYY-MM-DD, got {text!r}") from None


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def build_run_parser(prog: str) -> argparse.ArgumentParser:
    """The parser of `jobs/nightly_dedup.py`: the options of `dedup-job run`, no subcommand."""
    parser = _Parser(prog=prog, description="The nightly deduplication job.")
    _add_run(parser)
    _add_dry_run(parser)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    either = parser.add_mutually_exclusive_group()
    for flag, (_, metavar, text) in _RUN_FLAGS.items():
        target = either if flag in _EXCLUSIVE else parser
        target.add_argument(flag, metavar=metavar, help=text)
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="GATE",
        help="publish although this gate is broken; needs --reason; repeatable",
    )
    parser.add_argument(
        "--shadow", action="store_true", help="report what would change, publish nothing"
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="settings by section")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any setting; repeatable"
    )
    parser.add_argument("--print-config", action="store_true", help="print all settings and stop")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def _add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything and estimate time, memory and storage; write nothing",
    )


def settings_from(arguments: argparse.Namespace) -> Settings:
    """Settings of a run from parsed arguments, environment and file.

    Raises:
        ConfigError: see `load_settings`; or a target precision and a threshold, both as flags.
    """
    flags = dict(_flag_settings(arguments))
    for assignment in arguments.set:
        key, setting = parse_assignment(assignment)
        flags[key] = setting
    precision, explicit = (flags.get(f"match.{k}") for k in ("target_precision", "min_cosine"))
    if precision is not None and explicit is not None and explicit.value is not None:
        raise ConfigError(
            f"match.target_precision ({precision.source}) and match.min_cosine ({explicit.source}) "
            "exclude each other; give one of them"
        )
    if precision is not None and explicit is None:
        # A target given here and now wins over a threshold from a file or the environment.
        flags["match.min_cosine"] = Setting(None, precision.source)
    return load_settings(flags, arguments.config, current_environment())


def _flag_settings(arguments: argparse.Namespace) -> list[tuple[str, Setting]]:
    found = []
    for flag, (key, _, _) in _RUN_FLAGS.items():
        text = getattr(arguments, flag.lstrip("-").replace("-", "_"))
        if text is not None:
            found.append((key, Setting(_read(key, text, flag), f"flag {flag}")))
    if arguments.accept:
        found.append(("accept", Setting(arguments.accept, "flag --accept")))
    if arguments.shadow:
        found.append(("shadow", Setting(True, "flag --shadow")))
    return found


def _read(key: str, text: str, flag: str) -> object:
    if key in ("catalog.block_by", "catalog.conflict"):
        return [part.strip() for part in text.split(",") if part.strip()]
    if key == "run_date":
        try:
            return datetime.date.fromisoformat(text)
        except ValueError:
            raise ConfigError(f"{flag} must be a date YYYY-MM-DD, got {text!r}") from None
    return text


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse; a mistake becomes a ConfigError instead of a usage dump."""
    return parser.parse_args(arguments)
