"""From a recipe, a YAML file and command-line overrides to one checked configuration.

Precedence, lowest first: the option dataclasses' defaults, the recipe, `--config` files, the
command line. `model`, `data`, `task` and extension sections such as `prune` each name what they
use (`name:`); picking another name starts again from that thing's own defaults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from ssm_core.config import one_line, parse_message
from ssm_core.errors import ConfigError, UnknownNameError
from ssm_core.keys import check_keys
from ssm_core.plugins import PluginHost
from ssm_core.train.options import LoaderOptions, OptimOptions, TrainerOptions

CHOSEN = {"model": "models", "data": "datasets", "task": "tasks"}
FIXED: dict[str, type] = {
    "optim": OptimOptions,
    "loader": LoaderOptions,
    "trainer": TrainerOptions,
}


@dataclass(frozen=True)
class ResolvedConfig:
    """A checked configuration.

    Attributes:
        recipe: name of the recipe it started from.
        options: every section as a plain mapping, defaults filled in; what config.yaml holds.
        specs: section -> the spec it names (model, data, task, extensions).
        typed: section -> its option dataclass.
    """

    recipe: str
    options: dict[str, dict[str, Any]]
    specs: dict[str, Any]
    typed: dict[str, Any]

    @property
    def optim(self) -> OptimOptions:
        """The optimizer section."""
        return self.typed["optim"]

    @property
    def loader(self) -> LoaderOptions:
        """The batch section."""
        return self.typed["loader"]

    @property
    def trainer(self) -> TrainerOptions:
        """The length and bookkeeping section."""
        return self.typed["trainer"]

    def to_yaml(self) -> str:
        """The configuration as a recipe file; resolving it again gives the same."""
        return yaml.safe_dump({"recipe": self.recipe, **self.options}, sort_keys=False)


def resolve(
    host: PluginHost,
    recipe: str,
    base: Mapping[str, Any],
    files: Sequence[Path] = (),
    arguments: Sequence[str] = (),
) -> ResolvedConfig:
    """Resolve a configuration.

    Args:
        host: the installed plugins.
        recipe: name shown and stored.
        base: the recipe's content.
        files: YAML files laid over it, in order.
        arguments: command-line words such as `--model.d_model 64`, laid over everything.
    """
    merged = _without_notes(base)
    for file in files:
        merged = _merge(merged, _without_notes(read_yaml(file)))
    names, words = _split_names(arguments, {*CHOSEN, *host.extension_sections})
    merged = _merge(merged, {section: {"name": name} for section, name in names.items()})
    specs, configs = _choose(host, merged)
    parser = parser_for(configs, f"ssm-train fit {recipe}")
    namespace = _parse(parser, merged, words)
    options = {
        section: ({"name": specs[section].name} if section in specs else {}) | values
        for section, values in _plain(namespace, configs).items()
    }
    try:
        typed = parser.instantiate(namespace)
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(one_line(error)) from error
    return ResolvedConfig(recipe, options, specs, {s: getattr(typed, s, None) for s in configs})


def parser_for(configs: Mapping[str, type], program: str) -> ArgumentParser:
    """A parser with one option group per section."""
    parser = ArgumentParser(prog=program, exit_on_error=False, add_help=False)
    for section, cls in configs.items():
        parser.add_class_arguments(cls, section)
    return parser


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping, or say which file is wrong and why."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds {type(content).__name__}, expected sections of options")
    return content


def _choose(host: PluginHost, merged: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, type]]:
    """The spec and the option dataclass of every section."""
    kinds = CHOSEN | {s: k for s, k in host.extension_sections.items() if s in merged}
    for section in merged:
        if section not in kinds and section not in FIXED:
            known = {*CHOSEN, *FIXED, *host.extension_sections}
            raise UnknownNameError.of("section", section, known)
        if not isinstance(merged[section], Mapping):
            raise ConfigError(f"{section} is {merged[section]!r}, expected a section of options")
    specs: dict[str, Any] = {}
    configs: dict[str, type] = {}
    for section, kind in kinds.items():
        name = merged.get(section, {}).get("name")
        if name is None:
            raise ConfigError(f"{section}.name is missing: choose one of `ssm-train list {kind}`")
        specs[section] = host.get(kind, name)
        configs[section] = specs[section].config
    configs |= FIXED
    for section, cls in configs.items():
        check_keys(cls, _options_of(merged, section), section)
    return specs, configs


def _parse(parser: ArgumentParser, merged: Mapping[str, Any], words: Sequence[str]) -> Any:
    known = [a.dest for a in parser._actions if a.option_strings and "." in a.dest]
    for word in words:
        key = word.removeprefix("--").split("=")[0]
        if word.startswith("--") and not _is_option(key, known):
            raise UnknownNameError.of("option", f"--{key}", [f"--{k}" for k in known])
    sections = {s: _options_of(merged, s) for s in {k.split(".")[0] for k in known}}
    try:
        defaults = parser.parse_object({s: v for s, v in sections.items() if v})
        return parser.parse_args(list(words), namespace=defaults)
    except ArgumentError as error:
        raise ConfigError(parse_message(error)) from None


def _is_option(key: str, known: Sequence[str]) -> bool:
    """Whether `key` is an option, or an entry of a dict-valued option."""
    return any(key == k or key.startswith(k + ".") for k in known)


def _split_names(words: Sequence[str], sections: set[str]) -> tuple[dict[str, str], list[str]]:
    """Take `--model NAME` (or `--model.name NAME`) out of the words."""
    names: dict[str, str] = {}
    rest: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        key, equals, value = word.partition("=")
        section = key.removeprefix("--").removesuffix(".name")
        if key.startswith("--") and section in sections:
            if not equals:
                if not queue or queue[0].startswith("--"):
                    raise ConfigError(f"{key}: a name is missing after it")
                value = queue.pop(0)
            names[section] = value
        else:
            rest.append(word)
    return names, rest


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `over` over `base`, section by section and key by key."""
    merged = dict(base)
    for section, options in over.items():
        old = merged.get(section)
        if not isinstance(old, Mapping) or not isinstance(options, Mapping):
            merged[section] = options
        elif options.get("name", old.get("name")) != old.get("name"):
            merged[section] = dict(options)
        else:
            merged[section] = _merge(old, options)
    return merged


def _options_of(merged: Mapping[str, Any], section: str) -> dict[str, Any]:
    return {k: v for k, v in merged.get(section, {}).items() if k != "name"}


def _without_notes(content: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in content.items() if k not in ("summary", "recipe")}


def _plain(namespace: Any, configs: Mapping[str, type]) -> dict[str, dict[str, Any]]:
    """Sections as YAML values, in a stable order."""
    values = namespace.as_dict()
    plain = {}
    for section, cls in configs.items():
        given = values.get(section) or {}
        names = [f.name for f in dataclasses.fields(cls) if f.init]
        plain[section] = {name: _yaml_value(given[name]) for name in names}
    return plain


def _yaml_value(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {k: _yaml_value(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_yaml_value(v) for v in value]
    return str(value) if isinstance(value, Path) else value
