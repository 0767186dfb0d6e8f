"""Where the settings of a run come from: flags > `DEDUP_*` environment > YAML file > defaults.

Every value keeps its source, so that `--print-config` can say who set what.
"""

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dedup_job.config import JobConfig, leaves
from dedup_job.errors import ConfigError

ENVIRONMENT_PREFIX = "DEDUP_"
# Read by other parts of the package; not settings of a run.
_NOT_SETTINGS = {"DEDUP_LOCAL_CORES", "DEDUP_TRACEBACK", "DEDUP_FAIL_AT"}


@dataclass(frozen=True)
class Setting:
    """A value someone gave. `source` is for people: "flag --warehouse", "environment DEDUP_..."."""

    value: Any
    source: str


@dataclass(frozen=True)
class Settings:
    """A validated configuration, the source of each of its keys, and the command that set it."""

    config: JobConfig
    sources: dict[str, str]
    command: str = "dedup-job run ..."

    def lines(self) -> list[str]:
        """`key = value  # source`, one line per key, in declaration order."""
        values = {key: value for key, value, _ in leaves(self.config)}
        return [f"{key} = {_show(values[key])}  # {self.sources[key]}" for key in all_keys()]

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Per key its JSON value and source, for manifests."""
        dumped = self.config.model_dump(mode="json")
        return {
            key: {"value": _dig(dumped, key), "source": self.sources[key]} for key in all_keys()
        }


def load_settings(
    flags: Mapping[str, Setting], config_file: str | None, environment: Mapping[str, str]
) -> Settings:
    """Merge all sources and validate.

    Args:
        flags: dotted key -> setting; the strongest source.
        config_file: YAML file with the sections of `JobConfig`, or None.
        environment: usually `os.environ`; `DEDUP_MATCH__MIN_COSINE` sets `match.min_cosine`.

    Raises:
        ConfigError: unknown key (the right one is suggested) or a value out of range.
    """
    given: dict[str, Setting] = {}
    given.update(_from_file(config_file) if config_file else {})
    given.update(_from_environment(environment))
    given.update(flags)
    for key, setting in given.items():
        if key not in all_keys():
            raise ConfigError(f"unknown setting {key!r} ({setting.source}){_suggest(key)}")
    config = _validate(given)
    sources = {key: given[key].source if key in given else "default" for key in all_keys()}
    return Settings(config, sources)


def parse_assignment(text: str) -> tuple[str, Setting]:
    """Read one `--set key=value`; the value is YAML (`3`, `true`, `[a, b]`, `null`)."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set takes key=value, e.g. --set match.sku_match=main; got {text!r}")
    return key.strip(), Setting(_parse_value(key.strip(), value), "flag --set")


def all_keys() -> tuple[str, ...]:
    """Every dotted key that can be set, in declaration order."""
    return tuple(key for key, _, _ in leaves(JobConfig()))


def _from_file(path: str) -> dict[str, Setting]:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(
            f"--config {path} must hold sections such as 'match:', got {content!r:.60}"
        )
    return {key: Setting(value, f"file {path}") for key, value in _flatten(content)}


def _flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    sections = {key.split(".")[0] for key in all_keys() if "." in key}
    for name, value in content.items():
        if isinstance(value, dict) and (prefix or name in sections):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _from_environment(environment: Mapping[str, str]) -> dict[str, Setting]:
    found = {}
    for name, text in environment.items():
        if name.startswith(ENVIRONMENT_PREFIX) and name not in _NOT_SETTINGS:
            key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            found[key] = Setting(_parse_value(key, text), f"environment {name}")
    return found


def _parse_value(key: str, text: str) -> Any:
    """Text settings stay text ("00123" is a name); lists may be given as a,b; the rest is YAML."""
    default = {name: value for name, value, _ in leaves(JobConfig())}.get(key)
    if isinstance(default, str):
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{key}: cannot read the value {text!r}") from None
    if isinstance(default, tuple) and not isinstance(value, list):
        return [part.strip() for part in text.split(",") if part.strip()]
    return value


def _validate(given: Mapping[str, Setting]) -> JobConfig:
    nested: dict[str, Any] = {}
    for key, setting in given.items():
        section, _, name = key.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = setting.value
    try:
        return JobConfig.model_validate(nested)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
        source = f" ({given[key].source})" if key in given else ""
        message = first["msg"].removeprefix("Value error, ")
        got = f"; got {first['input']!r:.80}" if key else ""
        raise ConfigError(f"{key or 'settings'}: {message}{got}{source}") from None


def _suggest(key: str) -> str:
    close = difflib.get_close_matches(key, all_keys(), n=1, cutoff=0.5)
    by_name = [known for known in all_keys() if known.rpartition(".")[2] == key.rpartition(".")[2]]
    best = by_name or close
    return f"; did you mean {best[0]!r}?" if best else "; --print-config lists all settings"


def _dig(content: Mapping[str, Any], key: str) -> Any:
    value: Any = content
    for name in key.split("."):
        value = value[name]
    return value


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(value) + "]"
    return "null" if value is None else str(value)


def current_environment() -> Mapping[str, str]:
    """The process environment (a seam for tests)."""
    return os.environ
