"""Names, order and defaults of arguments, and names of attributes, beside the original's.

The facts in data/signatures.json were read from the source distribution of the version named.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssm_text.compat import compat_modules
from ssm_text.compat.config import MambaConfig

FACTS = json.loads((Path(__file__).parent / "data" / "signatures.json").read_text("utf-8"))
#: of a fresh list or dict
FACTORIES = {"ssm_cfg": "dict()", "attn_layer_idx": "list()", "attn_cfg": "dict()"}


def cases(kind: str) -> list[object]:
    return list(_cases(kind))


def _cases(kind: str) -> Iterator[object]:
    for version, modules in FACTS.items():
        for module, facts in modules.items():
            for name, fact in facts.items():
                if name.endswith(" attributes") == (kind == "attributes"):
                    yield pytest.param(module, name, fact, id=f"{version} {module} {name}")


def described(parameter: inspect.Parameter) -> str:
    name = parameter.name
    if parameter.kind is parameter.VAR_KEYWORD:
        return f"**{name}"
    if parameter.default is parameter.empty:
        return name
    if repr(parameter.default) == "<factory>":
        return f"{name}={FACTORIES[name]}"
    return f"{name}={getattr(parameter.default, '__name__', repr(parameter.default))}"


@pytest.mark.parametrize(("module", "name", "expected"), cases("signatures"))
def test_arguments_are_the_original_ones(module: str, name: str, expected: list[str]) -> None:
    owner, _, method = name.partition(".")
    function = compat_modules()[module][owner]
    function = inspect.getattr_static(function, method) if method else function
    function = getattr(function, "__func__", function)  # of a class method, with `cls`
    own = inspect.signature(function).parameters.values()
    assert [described(parameter) for parameter in own] == expected


@pytest.mark.parametrize(("module", "name", "expected"), cases("attributes"))
def test_attributes_are_there(module: str, name: str, expected: list[str]) -> None:
    owner = name.split()[0]
    kind = compat_modules()[module][owner]
    made = {
        "MixerModel": lambda: kind(8, 1, 0, 11),
        "MambaLMHeadModel": lambda: kind(MambaConfig(d_model=8, n_layer=1, vocab_size=11)),
        "MHA": lambda: kind(8, 2, causal=True, d_conv=2),
        "GatedMLP": lambda: kind(8),
    }[owner]()
    missing = {attribute for attribute in expected if not hasattr(made, attribute)}
    assert missing <= {"rotary_emb"}  # a module of another library that the original leaves out too


def test_entry_point_names_the_function() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    section = text.split('[project.entry-points."ssm_kernels.compat"]\n')[1].split("\n\n")[0]
    _, _, target = section.strip().partition(" = ")
    module, _, function = target.strip('"').partition(":")
    assert (module, function) == (compat_modules.__module__, compat_modules.__name__)


def test_no_name_is_given_twice() -> None:
    """The shim refuses another object under a name that is taken."""
    from ssm_core.compat import compat_modules as of_core
    from ssm_kernels.compat.catalogue import FUNCTIONS

    taken = {(module, name) for module, names in of_core().items() for name in names}
    for module, sources in FUNCTIONS.items():
        taken |= {(module, name) for names in sources.values() for name in names}
    own = {(module, name) for module, names in compat_modules().items() for name in names}
    assert len(own) > 20
    assert own.isdisjoint(taken)
