"""Imports run one way; kernels know no Spark, executors no TensorFlow."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# layer -> layers it may import; a module not listed belongs to "top"
ALLOWED = {
    "errors": set(),
    "version": set(),
    "kernels": {"errors"},
    "config": {"kernels", "errors"},
    "tables": set(),
    "settings": {"config", "errors"},
    "io": {"tables", "config", "kernels", "errors", "version"},
    "stages": {"tables", "config", "kernels", "errors", "io.uris"},
    "nightly": {"stages", "io", "tables", "config", "settings", "kernels", "errors", "version"},
}


def _modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def _imports(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _layer(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", _modules("dedup_job"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    layer = _layer(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if layer not in ALLOWED:
        return
    inside = [name for name in _imports(path) if name.startswith("dedup_job.")]
    allowed = ALLOWED[layer] | {layer}
    wrong = [
        name
        for name in inside
        if _layer(name) not in allowed and name.removeprefix("dedup_job.") not in allowed
    ]
    assert wrong == []


def test_every_layer_exists():
    names = {path.stem for path in (ROOT / "dedup_job").iterdir()}
    assert set(ALLOWED) <= names


@pytest.mark.parametrize("path", _modules("dedup_job"), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_leans_on_training_or_on_classic_spark_only(path):
    names = list(_imports(path))
    assert not [name for name in names if name.split(".")[0] == "model_training"]
    text = path.read_text(encoding="utf-8")
    for classic in (".sparkContext", ".rdd", "._jvm"):
        assert classic not in text
    if "kernels" in path.parts:
        assert not [name for name in names if name.split(".")[0] == "pyspark"]
    if path.name != "model.py":
        assert not [name for name in names if name.split(".")[0] in ("tensorflow", "keras")]


@pytest.mark.parametrize("path", _modules("model_training"), ids=lambda p: str(p.relative_to(ROOT)))
def test_training_imports_kernels_only(path):
    inside = [name for name in _imports(path) if name.startswith("dedup_job")]
    assert [n for n in inside if _layer(n) not in ("kernels", "errors", "version")] == []
