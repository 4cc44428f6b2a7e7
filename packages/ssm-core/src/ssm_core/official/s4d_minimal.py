"""The minimal S4D of state-spaces/s4, models/s4/s4d.py: B = 1, one step size per feature, a 1x1
convolution with a gate behind it.

It stores Lambda = -exp(log_A_real) + i A_imag, our layer (as s4.py) -exp(A_real) - i A_imag: the
sign of A_imag changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssm_core.config import make_config
from ssm_core.layers.s4d import S4D, S4DConfig
from ssm_core.official.axes import Layout, fit
from ssm_core.official.build import filled
from ssm_core.official.options import Fact, check_facts, check_names, fields_of
from ssm_core.official.tensors import Tensors

#: a parameter that only this layer has
MARK = "kernel.log_A_real"

LAYOUT: Layout = {
    "D": "h",
    "kernel.log_dt": "h",
    "kernel.log_A_real": "h, n",
    "kernel.A_imag": "h, n",
    "kernel.C": "h, n, 2",
    "output_linear.0.weight": "2h, h, 1",
    "output_linear.0.bias": "2h",
}
_KEPT = {name: name for name in ("dropout", "dt_min", "dt_max", "lr", "lr_dt", "lr_C")}
#: initial values, and the order of the axes outside: ours is always (b, l, d)
_WITHOUT_EFFECT = ("transposed", "init")


def build(owner: str, tensors: Tensors, config: Mapping[str, Any], hint: str) -> S4D:
    """Build an S4D from the tensors of a minimal one."""
    sizes = fit(owner, tensors, LAYOUT, hint)
    states = 2 * sizes["n"]
    facts = {
        "mode": Fact("diag", MARK),
        "d_model": Fact(sizes["h"], "D"),
        "d_state": Fact(states, "kernel.C"),
        "N": Fact(states, "kernel.C"),
        # what the minimal layer has without saying so
        "disc": Fact("zoh", MARK),
        "bidirectional": Fact(False, "kernel.C"),
        "channels": Fact(1, "kernel.C"),
        "activation": Fact("gelu", MARK),
        "final_act": Fact("glu", MARK),
    }
    check_names(owner, config, {*facts, *_KEPT, *_WITHOUT_EFFECT})
    check_facts(owner, config, facts, tensors)
    fixed = {"d_state": states, "init": "lin", "train_B": False, "tie_dropout": True}
    layer = S4D(sizes["h"], make_config(S4DConfig, fixed | fields_of(owner, config, _KEPT), owner))
    C = tensors["kernel.C"]
    return filled(
        owner,
        layer,
        {
            "D": tensors["D"].unsqueeze(0),
            "kernel.inv_dt": tensors["kernel.log_dt"].unsqueeze(1),
            "kernel.A_real": tensors["kernel.log_A_real"],
            "kernel.A_imag": -tensors["kernel.A_imag"],
            "kernel.B": C.new_tensor([1.0, 0.0]).expand(C.shape).unsqueeze(0),
            "kernel.C": C.unsqueeze(0),
            "output_linear.0.weight": tensors["output_linear.0.weight"].squeeze(2),
            "output_linear.0.bias": tensors["output_linear.0.bias"],
        },
    )
