"""Names, order and defaults of arguments, and names of attributes, beside the original's.

The facts in data/signatures.json were read from the sources of the versions named.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from ssm_core.compat import compat_modules

FACTS = json.loads((Path(__file__).parent / "data" / "signatures.json").read_text("utf-8"))
#: what the vision forks add to `Mamba.__init__`
OF_FORKS = [
    "bimamba_type='none'",
    "if_divide_out=False",
    "init_layer_scale=None",
    "if_devide_out=False",
    "bimamba=None",
    "nslices=None",
    "nframes=None",
]


def cases(kind: str) -> list[object]:
    return list(_cases(kind))


def _cases(kind: str) -> Iterator[object]:
    for version, modules in FACTS.items():
        for module, facts in modules.items():
            for name, fact in facts.items():
                if name.endswith(" attributes") == (kind == "attributes"):
                    yield pytest.param(module, name, fact, id=f"{version} {module} {name}")


def described(function: object) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [described_parameter(parameter) for parameter in parameters]


def described_parameter(parameter: inspect.Parameter) -> str:
    stars = {inspect.Parameter.VAR_KEYWORD: "**", inspect.Parameter.VAR_POSITIONAL: "*"}
    name = stars.get(parameter.kind, "") + parameter.name
    if parameter.default is parameter.empty:
        return name
    if repr(parameter.default) == "<factory>":
        return f"{name}=dict()"
    return f"{name}={getattr(parameter.default, '__name__', repr(parameter.default))}"


@pytest.mark.parametrize(("module", "name", "expected"), cases("signatures"))
def test_arguments_are_the_original_ones(module: str, name: str, expected: list[str]) -> None:
    owner, _, method = name.partition(".")
    own = described(getattr(compat_modules()[module][owner], method))
    if name == "Mamba.__init__":
        expected = expected + [of_fork for of_fork in OF_FORKS if of_fork not in expected]
    assert own == expected


@pytest.mark.parametrize(("module", "name", "expected"), cases("attributes"))
def test_attributes_are_there(module: str, name: str, expected: list[str]) -> None:
    owner = name.split()[0]
    kind = compat_modules()[module][owner]
    made = {
        "Mamba": lambda: kind(8, bimamba_type="v2" if "D_b" in expected else "none"),
        "Mamba2": lambda: kind(32),
        "Mamba3": lambda: kind(64),
        "Mamba2Simple": lambda: kind(64, learnable_init_states=True),
        "Block": lambda: kind(8, *[_identity] * (1 + expected.count("mlp"))),
    }[owner]()
    assert [attribute for attribute in expected if not hasattr(made, attribute)] == []


def _identity(dim: int) -> nn.Module:
    return nn.Linear(dim, dim)


def test_entry_point_names_the_function() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    section = text.split('[project.entry-points."ssm_kernels.compat"]\n')[1].split("\n\n")[0]
    _, _, target = section.strip().partition(" = ")
    module, _, function = target.strip('"').partition(":")
    assert (module, function) == (compat_modules.__module__, compat_modules.__name__)


def test_every_name_is_below_its_package() -> None:
    assert all(module.split(".")[0] == "mamba_ssm" for module in compat_modules())
    for names in compat_modules().values():
        assert all(callable(value) for value in names.values())
