"""The modules of the stand-ins, made when they are imported."""

from __future__ import annotations

import dis
import importlib
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType

from . import catalogue, providers

_IMPORT_FROM = dis.opmap["IMPORT_FROM"]


class StandInFinder(MetaPathFinder):
    """Finds the modules of the catalogue, those that providers add, and the packages above them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a stand-in; None for modules outside the packages covered.

        Raises:
            ModuleNotFoundError: a package covered has no such module; the message lists its own.
        """
        parent, _, name = fullname.rpartition(".")
        if fullname.partition(".")[0] not in catalogue.roots():
            return None
        # Providers are asked last: loading them imports their packages.
        modules = _known_modules() if fullname in _known_modules() else all_modules()
        if fullname in modules:
            is_package = any(module.startswith(f"{fullname}.") for module in modules)
            return ModuleSpec(fullname, StandInLoader(), origin=__name__, is_package=is_package)
        raise ModuleNotFoundError(_nothing_there(parent, name), name=fullname)


class StandInLoader(Loader):
    """Fills a module with the names of the catalogue; all others are looked up when asked for."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None  # an ordinary module

    def exec_module(self, module: ModuleType) -> None:
        path = module.__name__
        package = __name__.rpartition(".")[0]
        for source, names in catalogue.FUNCTIONS.get(path, {}).items():
            implementation = importlib.import_module(f"{package}.{source}")
            for name in names:
                setattr(module, name, getattr(implementation, name))
        if "." not in path:
            module.__dict__["__version__"] = catalogue.root_version(path)
        module.__doc__ = f"Stand-in for {path}; see ssm_kernels.compat."

        def look_up(name: str) -> object:
            return _look_up(module, name, sys._getframe(1))

        module.__dict__["__getattr__"] = look_up
        module.__dict__["__dir__"] = lambda: [*module.__dict__, *_missing_so_far(module)]


def all_modules() -> set[str]:
    """Return the modules of all stand-ins, those of providers included, and their parents."""
    return _known_modules() | _with_parents(providers.provided())


def submodules(path: str) -> list[str]:
    """Return the modules one level below, in alphabetical order."""
    return sorted(m for m in all_modules() if m.rpartition(".")[0] == path)


def names_of(path: str) -> list[str]:
    """Return the public names of a stand-in, without its submodules, in alphabetical order."""
    names = {name for found in catalogue.FUNCTIONS.get(path, {}).values() for name in found}
    return sorted(names | providers.provided().get(path, {}).keys())


@cache
def _known_modules() -> set[str]:
    return _with_parents([*catalogue.FUNCTIONS, *(module for module, _ in catalogue.ELSEWHERE)])


def _with_parents(paths: Iterable[str]) -> set[str]:
    found = set()
    for path in paths:
        parts = path.split(".")
        found |= {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    return found


def _look_up(module: ModuleType, name: str, caller: FrameType) -> object:
    """Return a name that the module does not hold yet, and keep it there.

    Raises:
        ImportError: in `from module import name`, where Python would replace an AttributeError by
            one of its own, without the list of what is there.
        AttributeError: everywhere else.
    """
    path = module.__name__
    if name == "__all__":
        return names_of(path)
    if name.startswith("__"):
        raise AttributeError(f"module {path!r} has no attribute {name!r}", name=name, obj=module)
    if f"{path}.{name}" in _known_modules():
        return importlib.import_module(f"{path}.{name}")
    added = providers.provided().get(path, {})
    if name in added:
        setattr(module, name, added[name])
        return added[name]
    if f"{path}.{name}" in all_modules():
        return importlib.import_module(f"{path}.{name}")
    message = catalogue.who_provides(path, name) or _nothing_there(path, name)
    if caller.f_code.co_code[caller.f_lasti] == _IMPORT_FROM:
        raise ImportError(message, name=path)
    raise AttributeError(message, name=name, obj=module)


def _nothing_there(path: str, name: str) -> str:
    parts = [*names_of(path), *(module.rpartition(".")[2] for module in submodules(path))]
    return f"ssm_kernels.compat has no {path}.{name}; {path} has: {', '.join(parts) or 'nothing'}"


def _missing_so_far(module: ModuleType) -> list[str]:
    return [name for name in names_of(module.__name__) if name not in module.__dict__]
