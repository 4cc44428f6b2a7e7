"""What ssm-prune offers to `ssm-train`: one choice of `--prune` per installed method."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ssm_core import ExtensionSpec, hookimpl

if TYPE_CHECKING:
    from ssm_core.specs import BrokenPlugin
    from ssm_prune.loader import Method, PrunePlugins


@hookimpl
def ssm_register_extensions() -> list[ExtensionSpec]:
    from ssm_prune.loader import prune_plugins

    return extension_specs(prune_plugins())


@hookimpl
def ssm_broken_plugins() -> list[BrokenPlugin]:
    from ssm_prune.loader import prune_plugins

    return prune_plugins().broken


def extension_specs(plugins: PrunePlugins) -> list[ExtensionSpec]:
    """A choice per method; of an ambiguous name, one that explains and one per distribution."""
    specs = []
    for name, offers in sorted(plugins.methods.items()):
        specs.append(_spec(name, offers[0], plugins, ambiguous=len(offers) > 1))
        if len(offers) > 1:
            specs += [_spec(offer.qualified_name, offer, plugins) for offer in offers]
    return specs


def _spec(
    name: str, method: Method, plugins: PrunePlugins, ambiguous: bool = False
) -> ExtensionSpec:
    summary = (method.spec.summary.strip().splitlines() or [""])[0]
    if ambiguous:
        summary = "ambiguous: " + ", ".join(m.provider for m in plugins.methods[name])
    return ExtensionSpec(
        section="prune",
        kind="pruners",
        name=name,
        config=method.spec.options,
        build=partial(_build, None if ambiguous else method, name, plugins),
        summary=summary,
        provider=method.provider,
    )


def _build(method: Method | None, name: str, plugins: PrunePlugins, options: Any) -> object:
    from ssm_prune.host import PruneExtension

    return PruneExtension(method or plugins.method(name), options, plugins)
