"""Small models of every family, for the tests that all of them must pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ssm_core import DataInfo
from ssm_vision.models.image_model import ImageModel

INFO = DataInfo(input_shape=(3, 32, 32), n_outputs=5)


class Case(NamedTuple):
    """A model of a thousand or so parameters."""

    build: Callable[[DataInfo], ImageModel]
    least: int
    """pixels of a side of the smallest image"""
    sizes: tuple[tuple[int, int], ...] = ((32, 32), (40, 24), (33, 47))
    """image sizes that must work"""


CASES: dict[str, Case] = {}
