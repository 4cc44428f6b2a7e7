"""Our models in timm's registry, whichever of the two is imported first.

timm takes seconds to import and every `ssm-train` command imports this package, so timm is not
imported here. If it is there already, the models are registered at once; otherwise a finder on
`sys.meta_path` waits for `timm.models`, lets it be loaded as usual, registers the models and takes
itself away. `import ssm_vision.timm_models` does the same without waiting.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

log = logging.getLogger(__name__)

AWAITED = "timm.models"


def register_with_timm() -> None:
    """Register the models now if timm is imported, otherwise as soon as it is."""
    if AWAITED in sys.modules:
        _register()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _register() -> None:
    try:
        importlib.import_module("ssm_vision.timm_models")
    except Exception as error:  # whatever it is, it must not keep anybody from importing timm
        log.warning("the models of ssm_vision are not registered with timm: %s", error)


class _Finder(MetaPathFinder):
    """Finds `timm.models` once, as the other finders do, with a loader that registers models."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != AWAITED:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


class _RegisteringLoader(Loader):
    """Loads a module with its own loader, then registers the models."""

    def __init__(self, own: Loader) -> None:
        self.own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        # the module is to look as if nobody had waited for it: for reload, pickle and resources
        spec.loader = module.__loader__ = self.own
        self.own.exec_module(module)
        _register()
