"""The plugin host: finds plugins, collects what they offer, and names the broken ones.

pluggy's own entry-point loader stops at the first broken plugin and silently skips a second one of
the same name; this host keeps a broken plugin as a record (it matters only to a run that needs it)
and refuses duplicate names, naming both distributions.
"""

from __future__ import annotations

import functools
import os
from importlib.metadata import EntryPoint, entry_points, version
from typing import Any

import pluggy

from ssm_core import hookspecs
from ssm_core.errors import DuplicateNameError, PluginLoadError, UnknownNameError
from ssm_core.specs import BrokenPlugin, ExtensionSpec, Registered

#: what `ssm-train list` shows -> the hook that collects it
KINDS = {
    "recipes": "ssm_register_recipes",
    "models": "ssm_register_models",
    "mixers": "ssm_register_mixers",
    "datasets": "ssm_register_datasets",
    "tasks": "ssm_register_tasks",
    "commands": "ssm_register_commands",
    "benchmarks": "ssm_register_benchmarks",
    "exports": "ssm_register_exports",
}


class PluginHost:
    """Holds the installed plugins and the tables of what they offer.

    Args:
        load_entry_points: also load installed plugins; tests switch it off.
    """

    def __init__(self, load_entry_points: bool = True) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.broken: list[BrokenPlugin] = []
        self._providers: dict[int, str] = {}
        from ssm_core import builtin

        self.register(builtin, provider="ssm-core " + version("ssm-core"))
        if load_entry_points:
            self._load_entry_points()

    def register(self, plugin: object, provider: str, name: str | None = None) -> None:
        """Add a plugin; a misspelt hook or a wrong argument name is an error that names it."""
        try:
            self.manager.register(plugin, name=name)
            self.manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            if self.manager.is_registered(plugin):
                self.manager.unregister(plugin)
            raise PluginLoadError(f"plugin {provider}: {error}".replace("\n", " ")) from error
        self._providers[id(plugin)] = provider

    def _load_entry_points(self) -> None:
        blocked = {n for n in os.environ.get("SSM_DISABLE_PLUGINS", "").split(",") if n}
        found: dict[str, EntryPoint] = {}
        for entry in sorted(entry_points(group=hookspecs.ENTRY_POINT_GROUP), key=_entry_key):
            if entry.name in blocked or provider_of(entry) in blocked:
                continue
            other = found.get(entry.name)
            if other is not None:
                if other.value == entry.value:  # the same install seen twice on sys.path
                    continue
                raise DuplicateNameError(
                    f"plugin name {entry.name!r} is used by {provider_of(other)} and by "
                    f"{provider_of(entry)}: uninstall one, or set SSM_DISABLE_PLUGINS"
                )
            found[entry.name] = entry
            self._load(entry)

    def _load(self, entry: EntryPoint) -> None:
        provider = provider_of(entry)
        try:
            plugin = entry.load()
            self.register(plugin, provider, name=entry.name)
        except Exception as error:  # whatever a foreign module raises must not stop other runs
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            self.broken.append(BrokenPlugin(provider, entry.name, text))

    @functools.cached_property
    def _tables(self) -> dict[str, dict[str, Registered]]:
        tables: dict[str, dict[str, Registered]] = {kind: {} for kind in KINDS}
        for kind, hook in KINDS.items():
            for spec, provider in self._collect(hook):
                _add(tables[kind], kind, spec.name, Registered(spec, provider))
        for spec, provider in self._collect("ssm_register_extensions"):
            entry = Registered(spec, spec.provider or provider)
            _add(tables.setdefault(spec.kind, {}), spec.kind, spec.name, entry)
        self.broken += [broken for broken, _ in self._collect("ssm_broken_plugins")]
        return tables

    def _collect(self, hook: str) -> list[tuple[Any, str]]:
        """Call each implementation of a registering hook by itself, so that one can fail."""
        collected = []
        for impl in getattr(self.manager.hook, hook).get_hookimpls():
            provider = self._providers.get(id(impl.plugin), str(impl.plugin_name))
            try:
                collected += [(spec, provider) for spec in impl.function()]
            except Exception as error:
                text = f"{type(error).__name__}: {error}".splitlines()[0]
                self.broken.append(BrokenPlugin(provider, hook, text))
        return collected

    def table(self, kind: str) -> dict[str, Registered]:
        """Everything offered of one kind, by name."""
        if kind not in self._tables:
            raise UnknownNameError.of("kind", kind, self._tables)
        return self._tables[kind]

    @property
    def providers(self) -> list[str]:
        """The loaded plugins: distribution and version."""
        return sorted(set(self._providers.values()))

    @property
    def kinds(self) -> list[str]:
        """Every kind of thing that can be listed, extension kinds included."""
        return list(self._tables)

    def get(self, kind: str, name: str) -> Any:
        """The spec of that name, or an error with the nearest names and any broken plugin."""
        table = self.table(kind)
        if name in table:
            return table[name].spec
        hint = f"(ssm-train list {kind})"
        if self.broken:
            hint += "; not loaded: " + "; ".join(str(b) for b in self.broken)
        raise UnknownNameError.of(kind.removesuffix("s"), name, table, hint)

    @property
    def extension_sections(self) -> dict[str, str]:
        """Optional sections of a run: section name -> the kind that fills it."""
        sections: dict[str, str] = {}
        for kind, table in self._tables.items():
            for registered in table.values():
                if isinstance(registered.spec, ExtensionSpec):
                    sections[registered.spec.section] = kind
        return sections

    def run_manager(self, extensions: list[object]) -> pluggy.PluginManager:
        """A manager for one run: the installed plugins plus that run's own extensions."""
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        for plugin in [*self.manager.get_plugins(), *extensions]:
            manager.register(plugin)
        manager.check_pending()
        if os.environ.get("SSM_TRACE_PLUGINS"):
            manager.trace.root.setwriter(print)
            manager.enable_tracing()
        return manager


def _entry_key(entry: EntryPoint) -> tuple[str, str]:
    return provider_of(entry), entry.name


def _add(table: dict[str, Registered], kind: str, name: str, new: Registered) -> None:
    if name in table:
        raise DuplicateNameError(
            f"{kind.removesuffix('s')} {name!r} is offered by {table[name].provider} and by "
            f"{new.provider}: uninstall one, or set SSM_DISABLE_PLUGINS"
        )
    table[name] = new


def provider_of(entry: EntryPoint) -> str:
    """Distribution name and version of an entry point, e.g. 'ssm-vision 0.1.0'."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value


@functools.cache
def plugin_host() -> PluginHost:
    """The host with everything installed, made once per process."""
    return PluginHost()
