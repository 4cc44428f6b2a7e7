"""What importing Fabric costs: torchmetrics is not imported for its version alone."""

import importlib
import sys
from importlib.metadata import version

import pytest
from lightning_fabric.utilities import imports

from ssm_core.train.fabric import _nothing_but_the_version


def test_a_stand_in_tells_the_version_and_goes(monkeypatch):
    monkeypatch.delitem(sys.modules, "torchmetrics", raising=False)
    with _nothing_but_the_version("torchmetrics"):
        found = importlib.import_module("torchmetrics")
        assert found.__version__ == version("torchmetrics")
        assert not hasattr(found, "Metric")
    assert "torchmetrics" not in sys.modules
    with pytest.raises(ZeroDivisionError), _nothing_but_the_version("torchmetrics"):
        raise ZeroDivisionError
    assert "torchmetrics" not in sys.modules


def test_a_module_that_is_there_stays():
    before = importlib.import_module("pluggy")
    with _nothing_but_the_version("pluggy"):
        assert importlib.import_module("pluggy") is before
    assert sys.modules["pluggy"] is before


def test_fabric_knows_the_version():
    assert imports._TORCHMETRICS_GREATER_EQUAL_1_0_0 is True
