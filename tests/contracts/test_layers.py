"""Imports run one way; kernels know no Spark, executors no TensorFlow."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# layer -> layers (or single modules of them) it may import; every module belongs to one
ALLOWED = {
    "__init__": set(),
    "errors": set(),
    "version": set(),
    "tables": set(),
    "kernels": {"errors"},
    "sample": {"errors"},
    "config": {"kernels", "errors"},
    "settings": {"config", "errors"},
    "docs": {"config", "tables", "errors"},
    "io": {"tables", "config", "kernels", "errors", "version"},
    "stages": {"tables", "config", "kernels", "errors", "io.uris"},
    "gallery": {"io", "tables", "kernels", "errors"},
    "nightly": {
        "gallery",
        "stages",
        "io",
        "tables",
        "config",
        "settings",
        "kernels",
        "errors",
        "version",
    },
    "pipeline": {"nightly", "stages", "io", "tables", "config", "settings", "kernels", "errors"},
    "preflight": {
        "pipeline",
        "nightly",
        "stages",
        "io",
        "tables",
        "config",
        "settings",
        "kernels",
        "errors",
    },
    "commands": {
        "gallery",
        "preflight",
        "pipeline",
        "sample",
        "io",
        "tables",
        "config",
        "settings",
        "kernels",
        "errors",
        "version",
    },
    "arguments": {"settings", "errors", "version"},
    "cli": {"arguments", "commands", "pipeline", "errors"},
    "__main__": {"cli"},
}


def _modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def _name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _imports(source, module):
    """Everything a module imports, by full name; `from a.b import c` is `a.b.c`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level] if node.level else []
            parts = [*parents, *([node.module] if node.module else [])]
            yield from (".".join([*parts, alias.name]) for alias in node.names)


def _imports_of(path):
    return list(_imports(path.read_text(encoding="utf-8"), _name_of(path)))


def _layer(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def _outside(names, layer):
    """The imports of a module of `layer` that it may not have."""
    inside = [name for name in names if name.split(".")[0] == "dedup_job"]
    allowed = [f"dedup_job.{other}." for other in ALLOWED[layer] | {layer}]
    return [name for name in inside if not f"{name}.".startswith(tuple(allowed))]


@pytest.mark.parametrize("path", _modules("dedup_job"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    layer = _layer(_name_of(path))
    assert layer in ALLOWED, f"{layer} is no layer yet: say here what it may import"
    assert _outside(_imports_of(path), layer) == []


def test_every_layer_exists_and_the_rules_have_no_cycle():
    names = {path.stem for path in (ROOT / "dedup_job").iterdir()}
    assert set(ALLOWED) <= names
    graph = {layer: {a.split(".")[0] for a in allowed} for layer, allowed in ALLOWED.items()}
    order = list(TopologicalSorter(graph).static_order())
    assert set(order) == set(ALLOWED)


@pytest.mark.parametrize(
    "source",
    [
        "import dedup_job.io.tables",
        "import dedup_job",
        "from dedup_job import io",
        "from dedup_job.io import tables",
        "from dedup_job.io.tables import read_rows",
        "from .. import io",
        "from ..io import tables as t",
        "def f():\n    from ..io.tables import read_rows",
    ],
)
def test_every_form_of_import_is_seen(source):
    assert _outside(_imports(source, "dedup_job.stages.pairs"), "stages")


def test_what_is_allowed_is_no_fault():
    source = "from ..io.uris import redact\nfrom . import cells\nfrom dedup_job import tables"
    assert _outside(_imports(source, "dedup_job.stages.pairs"), "stages") == []


@pytest.mark.parametrize("path", _modules("dedup_job"), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_leans_on_training_or_on_classic_spark_only(path):
    packages = {name.split(".")[0] for name in _imports_of(path)}
    assert "model_training" not in packages
    text = path.read_text(encoding="utf-8")
    for classic in (".sparkContext", ".rdd", "._jvm"):
        assert classic not in text
    if "kernels" in path.parts:
        assert "pyspark" not in packages
    if _name_of(path) != "dedup_job.kernels.model":
        assert not packages & {"tensorflow", "keras"}


# The command that reads a warehouse for training: the job's own readers, in one place (docs/adr/0026).
_READS_THE_WAREHOUSE = {
    "model_training.cli": ["dedup_job.commands.training_pairs.collect_training_pairs"]
}


@pytest.mark.parametrize("path", _modules("model_training"), ids=lambda p: str(p.relative_to(ROOT)))
def test_training_imports_kernels_only(path):
    inside = [name for name in _imports_of(path) if name.split(".")[0] == "dedup_job"]
    outside = [n for n in inside if _layer(n) not in ("kernels", "errors", "version")]
    assert outside == _READS_THE_WAREHOUSE.get(_name_of(path), [])
