"""Settings as YAML: read into frozen dataclasses and written back, one section a part."""

from __future__ import annotations

import collections.abc
import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from hardmine import defaults
from hardmine.errors import InputError
from hardmine.mining.conditions import read_contexts
from hardmine.mining.need import NeedRules
from hardmine.mining.targets import TargetRules
from hardmine.mining.weights import WeightRules, named_rules

T = TypeVar("T")


@dataclass(frozen=True)
class ImagesConfig:
    """The training images: arguments of ``load_images``."""

    source: str | None = None
    annotations: str | None = None
    format: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class EncoderConfig:
    """What embeds images and texts: arguments of ``load_encoder``."""

    name: str = "tiny"
    image_size: int | None = None
    dense: str = "value"
    whole: str = "same"
    device: str | None = None
    precision: str | None = None


@dataclass(frozen=True)
class IndexConfig:
    """Where the index lies and how it is built: arguments of ``build_index``."""

    path: str = "index.hmx"
    clusters: str = defaults.CLUSTERS
    quantize: str | None = None
    batch_size: int = 32
    workers: int | None = None
    shard_size: int = 1024


@dataclass(frozen=True)
class ValidationConfig:
    """The validation images: arguments of ``load_images``, and where their index lies."""

    source: str | None = None
    annotations: str | None = None
    format: str | None = None
    split: str | None = None
    index: str = "val-index.hmx"


@dataclass(frozen=True)
class SamplerConfig:
    """The draws: arguments of ``HardMiningSampler``."""

    epoch_length: int | None = None
    seed: int = 0
    shuffle: bool = True
    infinite: bool = False
    sharded_by: str = "sampler"


@dataclass(frozen=True)
class MinerConfig:
    """How the loop is run: arguments of ``HardMiner``."""

    contexts: str | tuple[str, ...] = ()
    rounds: str | None = "rounds.jsonl"
    strict: bool = False
    kept: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "contexts", read_contexts(self.contexts))


@dataclass(frozen=True)
class Config:
    """Everything that a training loop with mining can set."""

    images: ImagesConfig = field(default_factory=ImagesConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    index: IndexConfig = field(default_factory=IndexConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    need: NeedRules = field(default_factory=NeedRules)
    targets: TargetRules = field(default_factory=TargetRules)
    weights: WeightRules = field(default_factory=WeightRules)
    miner: MinerConfig = field(default_factory=MinerConfig)


def load_config(path: str | Path) -> Config:
    """Read a YAML file; what it leaves out keeps its default.

    Raises:
        InputError: If the file cannot be read, or a key or value is not understood; the message
            names the place and, for a key, the nearest known one.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read the config {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"the config {path} must be UTF-8 text: {error}") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    return read_config({} if values is None else values, name=str(path))


def read_config(values: Any, *, name: str = "config") -> Config:
    """Check plain values, such as YAML gives, and make a Config of them."""
    return _section(Config, values, name, "")


def miner_arguments(settings: Mapping[str, Any], *, name: str = "miner") -> dict[str, Any]:
    """Turn plain settings of ``HardMiner`` into its arguments: rules given as mappings to records.

    >>> miner_arguments({"contexts": ["at night"], "weights": {"cap": 2}})["weights"].cap
    2.0

    Raises:
        InputError: If there is no such setting, or a value is not understood.
    """
    known = ["need", "targets", "weights", *(entry.name for entry in fields(MinerConfig))]
    for key in settings:
        if key not in known:
            raise InputError(_unknown_key(name, str(key), str(key), known))
    arguments = dict(settings)
    if "contexts" in settings:
        arguments["contexts"] = read_contexts(settings["contexts"])
    for section, kind in (("need", NeedRules), ("targets", TargetRules), ("weights", WeightRules)):
        given = settings.get(section)
        if isinstance(given, Mapping | str):
            given = given if isinstance(given, str) else dict(given)
            arguments[section] = _value(kind, given, name, section)
    return arguments


def dump_config(config: Config) -> str:
    """Write a Config as YAML, every value spelled out."""
    return yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True)


def _section(kind: type[T], values: Any, name: str, place: str) -> T:
    if values is None:  # a heading with nothing but comments under it
        values = {}
    if not isinstance(values, dict):
        raise InputError(
            f"{name}: {place or 'the file'} must be a mapping of settings, got {_describe(values)}"
        )
    hints = typing.get_type_hints(kind)
    known = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]
    made = {}
    for key, value in values.items():
        here = f"{place}.{key}" if place else str(key)
        if key not in known:
            raise InputError(_unknown_key(name, here, str(key), known))
        made[key] = _value(hints[key], value, name, here)
    try:
        return kind(**made)
    except InputError as error:
        raise InputError(f"{name}, {place}: {error}") from None


def _unknown_key(name: str, place: str, key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    advice = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"{name}: unknown key {place!r}; {advice}"


def _value(hint: Any, value: Any, name: str, place: str) -> Any:
    if hint is WeightRules and isinstance(value, str):
        try:
            return named_rules(value)
        except InputError as error:
            raise InputError(f"{name}, {place}: {error}") from None
    if is_dataclass(hint):
        return _section(hint, value, name, place)  # type: ignore[arg-type]
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    options = typing.get_args(hint) if union else (hint,)
    for option in options:
        if option is type(None) and value is None:
            return None
        if option in (str, bool) and isinstance(value, option):
            return value
        if typing.get_origin(option) is collections.abc.Callable and callable(value):
            return value
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if option is float and number:
            return float(value)
        if option is int and number and isinstance(value, int):
            return value
        if typing.get_origin(option) is tuple and isinstance(value, list | tuple):
            inner = typing.get_args(option)[0]
            return tuple(
                _value(inner, one, name, f"{place}[{row}]") for row, one in enumerate(value)
            )
    written = [
        option for option in options if typing.get_origin(option) is not collections.abc.Callable
    ]
    expected = " or ".join(_WORDS.get(option, "a list") for option in written)
    raise InputError(
        f"{name}: {place} must be {expected}, got {_describe(value)}{_hint(value, options)}"
    )


_WORDS = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    type(None): "null",
}


def _describe(value: Any) -> str:
    return "nothing" if value is None else f"{value!r} ({type(value).__name__})"


def _hint(value: Any, options: tuple[Any, ...]) -> str:
    if isinstance(value, str) and (float in options or int in options):
        try:
            float(value)
        except ValueError:
            return ""
        return "; YAML reads numbers without quotes, and 1e-3 only as 1.0e-3"
    return ""


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value)}
    return list(value) if isinstance(value, tuple) else value
