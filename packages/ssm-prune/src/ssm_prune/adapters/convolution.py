"""States of S4D, and S4D and S4 as a whole.

A state of S4D is one of each conjugate pair, of all features at once: they have equally many. It is
silent when C does not read it. The states of S4 cannot be removed: the low-rank part of its state
matrix couples each of them with all others, so that the rest would compute something else.
"""

from __future__ import annotations

from torch import nn

from ssm_core.layers.convolution_layer import ConvolutionLayer
from ssm_core.layers.s4d import S4D
from ssm_prune.adapters.parts import parameters_of
from ssm_prune.hookspecs import hookimpl
from ssm_prune.units import BlockAdapter, Slice, UnitGroup, places


@hookimpl
def ssm_prune_adapter(module: nn.Module) -> BlockAdapter | None:
    if not isinstance(module, ConvolutionLayer):
        return None
    silenced = parameters_of(module, "output_linear")
    if not silenced:  # gelu(0) = 0 is the output
        silenced = ("kernel.C", "D")
    return BlockAdapter((_states(module),) if isinstance(module, S4D) else (), silenced)


def _states(module: S4D) -> UnitGroup:
    n = module.kernel.C.shape[2]
    own = places(n)
    C, B = Slice("kernel.C", 2, own), Slice("kernel.B", 2, own)
    others = [Slice("kernel.A_real", 1, own), Slice("kernel.A_imag", 1, own)]
    if not module.config.dt_tie:
        others.append(Slice("kernel.inv_dt", 1, own))
    return UnitGroup(
        kind="states",
        count=n,
        removed=(C, B, *others),
        masked=(C,),
        scored=(C, B) if module.config.train_B else (C,),
        sizes=lambda kept: {"d_state": 2 * len(kept)},
    )
