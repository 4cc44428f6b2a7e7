"""The layers of state-spaces/s4, models/s4/s4.py: the block, or the convolution layer alone.

    layer.D, layer.kernel.C ..     the convolution layer; without "layer." where it is alone
    output_linear.0.weight ..      the output map of the block

Mode "dplr" is our S4, mode "diag" our S4D; both have these names, but for "layer.".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssm_core.config import make_config
from ssm_core.errors import ConfigError
from ssm_core.layers.s4 import S4, S4Config
from ssm_core.layers.s4d import S4D, S4DConfig
from ssm_core.official import s4d_minimal
from ssm_core.official.axes import Layout, Sizes, fit
from ssm_core.official.build import filled
from ssm_core.official.options import Fact, check_facts, check_names, fields_of
from ssm_core.official.tensors import Tensors

SEPARATOR = "."
#: names by which this layer, or another form of it, is found inside a larger checkpoint
LANDMARKS = (("layer.kernel.C", "layer.D"), ("kernel.C", "D"))

#: what the tensors do not say, initial values and training
_KEPT = {
    name: name
    for name in (
        *("activation", "dt_transform", "real_transform", "dropout", "tie_dropout"),
        *("dt_min", "dt_max", "lr", "lr_dt", "lr_C"),
    )
}
#: options that our layers have at one value only
_ONLY: dict[str, Any] = {
    "imag_transform": "none",
    "is_real": False,
    "rate": 1,
    "bandlimit": None,
    "gate": None,
    "bottleneck": None,
    "mult_act": None,
    "drop_kernel": 0,
    "swap_channels": False,
    "weight_norm": False,
}
#: initial values, and the order of the axes outside: ours is always (b, l, d)
_WITHOUT_EFFECT = (
    *("init", "measure", "initializer", "deterministic", "transposed"),
    *("gate_act", "wd", "verbose", "backend"),
)


def build(tensors: Tensors, config: Mapping[str, Any], hint: str) -> S4 | S4D:
    """Build an S4 or, in mode "diag", an S4D."""
    if s4d_minimal.MARK in tensors:
        return s4d_minimal.build("s4", tensors, config, hint)
    return _build("s4", tensors, config, hint)


def build_s4d(tensors: Tensors, config: Mapping[str, Any], hint: str) -> S4 | S4D:
    """Build an S4D from a minimal layer, or from a layer in mode "diag"."""
    if s4d_minimal.MARK in tensors:
        return s4d_minimal.build("s4d", tensors, config, hint)
    if config.get("mode", "diag") != "diag":
        raise ConfigError(f"s4d: mode is {config['mode']!r}, expected 'diag'")
    return _build("s4d", tensors, {**config, "mode": "diag"}, hint)


def _build(owner: str, tensors: Tensors, config: Mapping[str, Any], hint: str) -> S4 | S4D:
    layer = "layer." if any(name.startswith("layer.") for name in tensors) else ""
    diagonal = _mode(owner, tensors, layer, config) == "diag"
    sizes = fit(owner, tensors, _layout(tensors, layer, diagonal), hint)
    facts = _facts(tensors, layer, diagonal, sizes)
    check_names(owner, config, {*facts, *_KEPT, *_ONLY, *_WITHOUT_EFFECT, "disc", "l_max"})
    config = {name: _ours(name, value, sizes) for name, value in config.items()}
    check_facts(owner, config, facts, tensors)
    for name, value in _ONLY.items():
        if config.get(name, value) != value:
            raise ConfigError(f"{owner}: {name} is {config[name]!r}, expected {value!r}")

    fields = {
        name: facts[name].value
        for name in ("d_state", "channels", "bidirectional", "n_ssm", "dt_tie", "final_act")
    }
    if fields["final_act"] is None:
        fields["activation"] = None
    fields |= fields_of(owner, config, _KEPT)
    renamed = {name.removeprefix(layer): value for name, value in tensors.items()}
    if diagonal:  # kernels of any length: l_max is without effect
        fields |= fields_of(owner, config, {"disc": "disc"})
        return filled(owner, S4D(sizes["h"], make_config(S4DConfig, fields, owner)), renamed)
    # always bilinear: disc is without effect, there as here
    fields |= fields_of(owner, config, {"l_max": "l_max"})
    return filled(owner, S4(sizes["h"], make_config(S4Config, fields, owner)), renamed)


def _mode(owner: str, tensors: Tensors, layer: str, config: Mapping[str, Any]) -> str:
    """The mode that is said; otherwise the one whose parameters there are.

    Raises:
        ConfigError: there is no such mode.
    """
    low_rank = any(f"{layer}kernel.{name}" in tensors for name in ("P", "l_kernel"))
    mode: str = config.get("mode", "dplr" if low_rank else "diag")
    if mode not in ("dplr", "diag"):
        raise ConfigError(f"{owner}: mode is {mode!r}, expected 'dplr' or 'diag'")
    return mode


def _ours(name: str, value: Any, sizes: Sizes) -> Any:
    """The value of an option in our words."""
    if name == "n_ssm" and value is None:
        return sizes["h"]
    no_activation = name == "activation" and value in ("id", "identity", "linear", "none")
    return None if no_activation else value


def _layout(tensors: Tensors, layer: str, diagonal: bool) -> Layout:
    """The axes, with S copies of n states; the low-rank part has the rank 1."""
    outputs, kernels = (_length(tensors, f"{layer}{name}") for name in ("D", "kernel.C"))
    both = outputs is not None and kernels == 2 * outputs
    dt = tensors.get(f"{layer}kernel.inv_dt")
    tied = dt is None or dt.shape[-1:] == (1,)
    output = any(name.startswith("output_linear.") for name in tensors)
    return {
        f"{layer}D": "c, h",
        f"{layer}kernel.C": "2c, h, n, 2" if both else "c, h, n, 2",
        f"{layer}kernel.inv_dt": "h, 1" if tied else "h, n",
        f"{layer}kernel.A_real": "S, n",
        f"{layer}kernel.A_imag": "S, n",
        f"{layer}kernel.B": "1, S, n, 2",
        **(
            {f"{layer}kernel.P": "1, S, n, 2", f"{layer}kernel.l_kernel": ""}
            if not diagonal
            else {}
        ),
        **({"output_linear.0.weight": "2h, ch", "output_linear.0.bias": "2h"} if output else {}),
    }


def _length(tensors: Tensors, name: str) -> int | None:
    """The first axis of a tensor, if there are tensor and axis."""
    return tensors[name].shape[0] if name in tensors and tensors[name].dim() else None


def _facts(tensors: Tensors, layer: str, diagonal: bool, sizes: Sizes) -> dict[str, Fact]:
    C = f"{layer}kernel.C"
    glu = "glu" if "output_linear.0.weight" in tensors else None
    dt = f"{layer}kernel.inv_dt"
    facts = {
        "mode": Fact("diag" if diagonal else "dplr", f"{layer}kernel.P"),
        **dict.fromkeys(("d_model", "H"), Fact(sizes["h"], C)),
        **dict.fromkeys(("d_state", "N"), Fact(2 * sizes["n"], C)),
        "channels": Fact(sizes["c"], f"{layer}D"),
        "bidirectional": Fact(tensors[C].shape[0] == 2 * sizes["c"], C),
        "n_ssm": Fact(sizes["S"], f"{layer}kernel.A_real"),
        "dt_tie": Fact(tensors[dt].shape[1] == 1, dt),
        "final_act": Fact(glu, "output_linear.0.weight"),
        "postact": Fact(glu, "output_linear.0.weight"),
    }
    if not diagonal:
        facts["rank"] = Fact(1, f"{layer}kernel.P")
    return facts
