"""Switching the stand-ins on and off."""

from __future__ import annotations

import sys
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from types import ModuleType

from . import providers
from .catalogue import root_version, roots
from .errors import ShadowError
from .finder import StandInFinder, StandInLoader

_finder = StandInFinder()
_replaced: dict[str, ModuleType] = {}


def install(*, replace_installed: bool = False, quiet: bool = False) -> None:
    """Let `import mamba_ssm`, `causal_conv1d` and the CUDA extensions find this package's kernels.

    Calling it again changes nothing. Code that imported a name of a replaced package before keeps
    what it has: call this first.

    Args:
        replace_installed: also if packages of these names are installed or imported; an imported
            one is taken out of `sys.modules` until `uninstall()`.
        quiet: do not say on stderr, in one line, which modules now come from here.

    Raises:
        ShadowError: (an ImportError) a package of such a name is installed or imported, and
            `replace_installed` is False; the message names it.
    """
    if _finder in sys.meta_path:
        return
    found = {root: what for root in roots() if (what := _find_other(root)) is not None}
    if found and not replace_installed:
        raise ShadowError(
            f"ssm_kernels.compat would hide {', '.join(found.values())}; uninstall it, or pass "
            "replace_installed=True (python -m ssm_kernels.compat --replace-installed) to use "
            "ssm-kernels all the same"
        )
    for name in [name for name in sys.modules if name.partition(".")[0] in roots()]:
        _replaced[name] = sys.modules.pop(name)
    sys.meta_path.insert(0, _finder)
    if not quiet:
        instead = f" instead of {', '.join(found.values())}" if found else ""
        own = root_version("mamba_ssm").rpartition("+ssm_kernels.")[2]
        print(
            f"ssm_kernels.compat: {', '.join(roots())} now come from ssm-kernels {own}{instead}",
            file=sys.stderr,
        )


def uninstall() -> None:
    """Undo `install()`; names that were imported meanwhile keep working."""
    if _finder not in sys.meta_path:
        return
    sys.meta_path.remove(_finder)
    for name in [name for name, module in sys.modules.items() if _is_stand_in(module)]:
        del sys.modules[name]
    sys.modules.update(_replaced)
    _replaced.clear()
    providers.provided.cache_clear()


def _is_stand_in(module: ModuleType) -> bool:
    return isinstance(getattr(module, "__loader__", None), StandInLoader)


def _find_other(root: str) -> str | None:
    """Describe the package that `import root` would give now; None if there is none."""
    if root in sys.modules:
        where = getattr(sys.modules[root], "__file__", None)
        return f"{root}, which is imported already{f' from {where}' if where else ''}"
    spec = find_spec(root)
    if (
        spec is None or spec.origin is None
    ):  # None: a folder without __init__.py, which any name hides
        return None
    distributions = packages_distributions().get(root, [])
    if not distributions:
        return f"{root} in {spec.origin}"
    named = " and ".join(f"{name} {version(name)}" for name in sorted(set(distributions)))
    return f"{root} of the installed {named}"
