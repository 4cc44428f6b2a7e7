"""Finds pruning plugins and collects what they offer.

Like the host of ssm-core, this one does not use pluggy's own entry-point loader, which stops at the
first broken plugin and silently skips a second entry point of the same name. A broken plugin is
kept as a record and matters only to a run that names a method nobody else offers. Environment:
`SSM_PRUNE_DISABLE_AUTOLOAD=1` loads the built-in methods only, `SSM_DISABLE_PLUGINS=NAME,NAME`
leaves out single entry points or distributions.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from ssm_core.errors import DuplicateNameError, PluginLoadError
from ssm_core.specs import BrokenPlugin
from ssm_prune import builtin, hookspecs
from ssm_prune.adapters import ADAPTERS
from ssm_prune.pruner import MethodSpec
from ssm_prune.schedules import Ramp
from ssm_prune.scores import Score

OWN_DISTRIBUTION = "ssm-prune"


@dataclass(frozen=True)
class Method:
    """A method together with the distribution that offers it."""

    spec: MethodSpec
    distribution: str
    version: str

    @property
    def provider(self) -> str:
        """Distribution and version, e.g. 'acme-prune 0.3.0'."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def qualified_name(self) -> str:
        """The name with the distribution, which is unique: 'acme-prune:decayed-taylor'."""
        return f"{self.distribution}:{self.spec.name}"


class PrunePlugins:
    """The installed pruning plugins.

    Args:
        load_entry_points: also load installed plugins; tests switch it off.
    """

    def __init__(self, load_entry_points: bool = True) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.broken: list[BrokenPlugin] = []
        self.methods: dict[str, list[Method]] = {}
        self.ramps: dict[str, Ramp] = {}
        self.scores: dict[str, Score] = {}
        self._providers: dict[str, str] = {}
        for own in (builtin, *ADAPTERS):
            self.register(own, OWN_DISTRIBUTION)
        if load_entry_points:
            self._load_entry_points()

    @property
    def hook(self) -> Any:
        """Calls the hooks of `ssm_prune.hookspecs` in every plugin."""
        return self.manager.hook

    def register(self, plugin: object, distribution: str, version: str = "") -> None:
        """Add a plugin and collect what it offers; all of it or, on an error, nothing.

        Raises:
            PluginLoadError: a misspelt hook, a wrong argument, or an unusable method.
            DuplicateNameError: a ramp or a score of a name that exists.
        """
        provider = f"{distribution} {version}".strip()
        try:
            self.manager.register(plugin)
            self.manager.check_pending()
            methods = self._offered(plugin, "ssm_prune_methods", list)
            ramps = self._offered(plugin, "ssm_prune_schedules", dict)
            self._check_methods(methods, distribution)
            scores = self._offered(plugin, "ssm_prune_scores", dict)
            self._refuse_known("ramp", ramps, self.ramps, provider)
            self._refuse_known("score", scores, self.scores, provider)
        except DuplicateNameError:
            self.manager.unregister(plugin)
            raise
        except Exception as error:  # whatever a foreign module raises is named with its owner
            if self.manager.is_registered(plugin):
                self.manager.unregister(plugin)
            raise PluginLoadError(f"pruning plugin {provider}: {_one_line(error)}") from error
        for spec in methods:
            self.methods.setdefault(spec.name, []).append(Method(spec, distribution, version))
        self.ramps |= ramps
        self.scores |= scores
        self._providers |= {f"ramp {n}": provider for n in ramps}
        self._providers |= {f"score {n}": provider for n in scores}

    def method(self, name: str) -> Method:
        """The one method of that name.

        Raises:
            DuplicateNameError: several distributions offer it; names them.
            KeyError: nobody does.
        """
        offers = self.methods[name]
        if len(offers) > 1:
            raise DuplicateNameError(
                f"pruning method {name!r} is offered by "
                + " and by ".join(offer.provider for offer in offers)
                + ": choose "
                + " or ".join(f"--prune {offer.qualified_name}" for offer in offers)
            )
        return offers[0]

    def _offered(self, plugin: object, hook: str, kind: Callable[[Any], Any]) -> Any:
        """What this one plugin answers to a collecting hook."""
        others = [p for p in self.manager.get_plugins() if p is not plugin]
        answers = self.manager.subset_hook_caller(hook, others)()
        return kind(answers[0]) if answers else kind(())

    def _check_methods(self, methods: list[MethodSpec], distribution: str) -> None:
        names = {
            m.spec.name
            for ms in self.methods.values()
            for m in ms
            if m.distribution == distribution
        }
        for spec in methods:
            if not isinstance(spec, MethodSpec):
                raise TypeError(f"ssm_prune_methods returned {spec!r}, expected a MethodSpec")
            if spec.name in names:
                raise ValueError(f"method {spec.name!r} is offered twice")
            names.add(spec.name)

    def _refuse_known(
        self, kind: str, offered: Iterable[str], known: Mapping[str, object], provider: str
    ) -> None:
        for name in offered:
            if name in known:
                raise DuplicateNameError(
                    f"pruning {kind} {name!r} is offered by {self._providers[f'{kind} {name}']} "
                    f"and by {provider}: uninstall one, or set SSM_DISABLE_PLUGINS"
                )

    def _load_entry_points(self) -> None:
        blocked = {n for n in os.environ.get("SSM_DISABLE_PLUGINS", "").split(",") if n}
        only_own = os.environ.get("SSM_PRUNE_DISABLE_AUTOLOAD", "") not in ("", "0")
        seen = set()
        for entry in sorted(entry_points(group=hookspecs.ENTRY_POINT_GROUP), key=_key):
            distribution, version = _distribution(entry)
            own = distribution == OWN_DISTRIBUTION
            unwanted = not own and (only_own or blocked & {distribution, entry.name})
            # one distribution may be seen twice on sys.path
            if unwanted or _key(entry) in seen:
                continue
            seen.add(_key(entry))
            self._load(entry, distribution, version)

    def _load(self, entry: EntryPoint, distribution: str, version: str) -> None:
        try:
            self.register(entry.load(), distribution, version)
        except Exception as error:  # must not stop the runs that do not use this plugin
            text = f"{type(error).__name__}: {_one_line(error)}"
            provider = f"{distribution} {version}".strip()
            self.broken.append(BrokenPlugin(provider, entry.name, text))


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    return (entry.dist.name, entry.dist.version) if entry.dist is not None else (entry.value, "")


def _key(entry: EntryPoint) -> tuple[str, str]:
    return _distribution(entry)[0], entry.name


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


@functools.cache
def prune_plugins() -> PrunePlugins:
    """Everything installed, found once per process."""
    return PrunePlugins()
