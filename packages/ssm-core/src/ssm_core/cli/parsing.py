"""Argument parsers whose errors are ours: one line, exit code 2."""

from __future__ import annotations

import argparse
from typing import NoReturn

from ssm_core.errors import ConfigError


class OneLineParser(argparse.ArgumentParser):
    """An `argparse` parser that raises `ConfigError` where the original prints usage and exits."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see {self.prog} --help)")
