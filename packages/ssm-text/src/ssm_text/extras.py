"""Libraries that only some features need: imported when used, with one clear line if missing."""

from __future__ import annotations

import importlib
from typing import Any

from ssm_core.errors import ConfigError


def require(module: str, extra: str) -> Any:
    """Import a module of one of this package's extras.

    Raises:
        ConfigError: it is not installed; says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise ConfigError(
            f"this needs {library}, which cannot be imported ({error}); "
            f"pip install 'ssm-text[{extra}]'"
        ) from None
