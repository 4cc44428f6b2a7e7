"""The sequence layer of lindermanlab/S5, under the names of its JAX parameters.

    seq/Lambda_re ..             the SSM; without "seq/" where it is the SSM alone
    out1/kernel, out1/bias ..    the gate, Dense: kernels (in, out), so transposed for nn.Linear

The norm of the official layer belongs to the block here; its parameters are not accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssm_core.config import make_config
from ssm_core.errors import ConfigError
from ssm_core.layers.s5 import S5
from ssm_core.layers.s5_config import S5Config
from ssm_core.official.axes import Layout, fit
from ssm_core.official.build import filled
from ssm_core.official.options import Fact, check_facts, check_names, fields_of
from ssm_core.official.tensors import Tensors

SEPARATOR = "/"
#: names by which this layer, or another form of it, is found inside a larger checkpoint
LANDMARKS = (("seq/Lambda_re", "seq/B"), ("Lambda_re", "B"))

_KEPT = {
    "discretization": "discretization",
    "disc": "discretization",
    "step_rescale": "step_rescale",
    "clip_eigs": "clip_eigs",
    "conj_sym": "conj_sym",
    "activation": "activation",
    "activation_fn": "activation",
    "dropout": "dropout",
    "p_dropout": "dropout",
    # initial values and training, kept for the record
    "blocks": "blocks",
    "C_init": "C_init",
    "dt_min": "dt_min",
    "dt_max": "dt_max",
    "lr": "lr",
    "ssm_lr": "lr",
}


def build(tensors: Tensors, config: Mapping[str, Any], hint: str) -> S5:
    """Build an S5 from the parameters of an official layer."""
    # a tree that went through a flat file may be joined by dots
    tensors = {name.replace(".", "/"): value for name, value in tensors.items()}
    seq = "seq/" if any(name.startswith("seq/") for name in tensors) else ""
    if any(name.startswith("norm/") for name in tensors):
        hint += "; the norm belongs to the block, leave it out"
    layout = _layout(tensors, seq)
    sizes = fit("s5", tensors, layout, hint)

    stored, bidirectional = sizes["p"], _has_both_directions(tensors, seq)
    size = stored if config.get("conj_sym") is False else 2 * stored
    facts = {
        **dict.fromkeys(("d_model", "H"), Fact(sizes["h"], f"{seq}D")),
        **dict.fromkeys(("d_state", "ssm_size", "ssm_size_base"), Fact(size, f"{seq}Lambda_re")),
        "P": Fact(stored, f"{seq}Lambda_re"),
        "bidirectional": Fact(bidirectional, f"{seq}C" if f"{seq}C" in tensors else f"{seq}C1"),
    }
    check_names("s5", config, {*facts, *_KEPT})
    check_facts("s5", config, facts, tensors)
    fields = {"d_state": size, "bidirectional": bidirectional} | fields_of("s5", config, _KEPT)
    fields["activation"] = _activation(tensors, fields)
    if bidirectional:
        fields["C_init"] = _initial_C(f"{seq}C" in tensors, fields)
    layer = S5(sizes["h"], make_config(S5Config, fields, "s5"))
    return filled("s5", layer, dict(_renamed(name, tensors[name], seq) for name in layout))


def _layout(tensors: Tensors, seq: str) -> Layout:
    single = f"{seq}C" in tensors or (f"{seq}C1" not in tensors and f"{seq}C2" not in tensors)
    both = _has_both_directions(tensors, seq)
    gates = [gate for gate in ("out1", "out2") if _has(tensors, gate)]
    if gates == ["out1"]:  # no activation has it alone
        gates.append("out2")
    return {
        f"{seq}Lambda_re": "p",
        f"{seq}Lambda_im": "p",
        f"{seq}log_step": "p, 1",
        f"{seq}B": "p, h, 2",
        **(
            {f"{seq}C": "h, 2p, 2" if both else "h, p, 2"}
            if single
            else {f"{seq}C1": "h, p, 2", f"{seq}C2": "h, p, 2"}
        ),
        f"{seq}D": "h",
        **{f"{gate}/kernel": "h, h" for gate in gates},
        **{f"{gate}/bias": "h" for gate in gates},
    }


def _has(tensors: Tensors, part: str) -> bool:
    return any(name.startswith(f"{part}/") for name in tensors)


def _has_both_directions(tensors: Tensors, seq: str) -> bool:
    """Two matrices C, or (initial value "complex_normal") one with twice as many columns."""
    C, states = tensors.get(f"{seq}C"), tensors.get(f"{seq}Lambda_re")
    if C is None or states is None:
        return C is None
    return C.dim() == 3 and C.shape[1] == 2 * states.numel()


def _activation(tensors: Tensors, fields: Mapping[str, Any]) -> str | None:
    """The activation that the gates allow: the one given, or the first.

    Raises:
        ConfigError: the one given needs other gates.
    """
    gates = [gate for gate in ("out1", "out2") if _has(tensors, gate)]
    allowed: dict[int, list[str | None]] = {
        0: [None, "gelu"],
        1: ["half_glu1", "half_glu2"],
        2: ["full_glu"],
    }
    choice = allowed[len(gates)]
    given: str | None = fields.get("activation", choice[0])
    if given not in choice:
        raise ConfigError(
            f"s5: activation is {given!r}, but a state dict with "
            f"{' and '.join(gates) or 'no gate'} needs {' or '.join(repr(w) for w in choice)}"
        )
    return given


def _initial_C(single: bool, fields: Mapping[str, Any]) -> str:
    """The C_init of a bidirectional layer, which decides whether it has one C or two.

    Raises:
        ConfigError: the one given does not fit.
    """
    given = str(fields.get("C_init", "complex_normal" if single else "trunc_standard_normal"))
    if (given == "complex_normal") != single:
        raise ConfigError(
            f"s5: C_init is {given!r}, but the state dict has {'one C' if single else 'C1 and C2'} "
            f"for two directions, which {'only' if single else 'no'} 'complex_normal' makes"
        )
    return given


def _renamed(name: str, value: Any, seq: str) -> tuple[str, Any]:
    gate, _, kind = name.rpartition("/")
    if kind == "kernel":
        return f"{gate}.weight", value.T
    return (f"{gate}.bias" if kind == "bias" else name.removeprefix(seq)), value
