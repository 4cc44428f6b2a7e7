"""Names, order and defaults of the arguments are those of the originals.

`data/signatures.json` holds them as facts read from the packages it names; extensions have no
defaults, and their arguments are given by position alone.
"""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path

import pytest

from ssm_kernels.compat.catalogue import FUNCTIONS

ARGUMENTS: dict[str, list[list[str]]] = json.loads(
    (Path(__file__).parent / "data" / "signatures.json").read_text()
)["arguments"]
ANY_ORDER = "causal_conv1d_cuda"  # takes several orders of arguments: see its own test


def test_every_name_is_compared() -> None:
    ours = {
        f"{path}.{name}"
        for path, sources in FUNCTIONS.items()
        for names in sources.values()
        for name in names
        if path != ANY_ORDER
    }
    assert ours == set(ARGUMENTS)


@pytest.mark.usefixtures("shim")
@pytest.mark.parametrize("full_name", ARGUMENTS)
def test_arguments_are_those_of_the_original(full_name: str) -> None:
    path, _, name = full_name.rpartition(".")
    found = getattr(importlib.import_module(path), name)
    signature = inspect.signature(found.apply if name == "SelectiveScanFn" else found)
    expected = []
    for argument, *default in ARGUMENTS[full_name]:
        value = eval(default[0], {"float": float}) if default else inspect.Parameter.empty
        expected.append((argument, value))
    assert [(p.name, p.default) for p in signature.parameters.values()] == expected
    is_extension = name in ("fwd", "bwd")
    for parameter in signature.parameters.values():
        assert (parameter.kind is inspect.Parameter.POSITIONAL_ONLY) == is_extension
