"""Names that other packages add to the stand-ins, such as the module classes of ssm-core.

A package adds an entry point to the group `ssm_kernels.compat`. It names a function
`compat_modules() -> dict[str, dict[str, object]]` that maps an original module path to the names to
add there:

    {"mamba_ssm.modules.mamba_simple": {"Mamba": Mamba}, "mamba_ssm": {"Mamba": Mamba}}

Entry points are read when such a name or an unknown module is first asked for, not before.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from .catalogue import FUNCTIONS, roots
from .errors import ProviderError

GROUP = "ssm_kernels.compat"


@cache
def provided() -> dict[str, dict[str, object]]:
    """Return every added name: original module -> name -> object.

    Raises:
        ProviderError: an entry point cannot be loaded, adds a module that no stand-in has as its
            parent, or adds another object under a name that is taken; the message names both.
    """
    merged: dict[str, dict[str, object]] = {}
    owners = {
        (module, name): "ssm-kernels"
        for module, sources in FUNCTIONS.items()
        for names in sources.values()
        for name in names
    }
    for entry_point in entry_points(group=GROUP):
        owner = _describe(entry_point)
        for module, names in _load(entry_point, owner).items():
            if module.partition(".")[0] not in roots():
                raise ProviderError(
                    f"{owner} adds the module {module}, expected one below {', '.join(roots())}"
                )
            target = merged.setdefault(module, {})
            for name, value in names.items():
                if (module, name) in owners and target.get(name) is not value:
                    raise ProviderError(
                        f"{module}.{name} is provided by both {owners[module, name]} and {owner}: "
                        "uninstall one of them"
                    )
                target[name] = value
                owners[module, name] = owner
    return merged


def _load(entry_point: EntryPoint, owner: str) -> dict[str, dict[str, object]]:
    try:
        modules: dict[str, dict[str, object]] = entry_point.load()()
    except ImportError as error:
        raise ProviderError(
            f"{owner} cannot be loaded: {error}; reinstall or uninstall it"
        ) from error
    return modules


def _describe(entry_point: EntryPoint) -> str:
    distribution = f"{entry_point.dist.name} " if entry_point.dist is not None else ""
    return f"{distribution}(entry point {entry_point.name} = {entry_point.value})"
