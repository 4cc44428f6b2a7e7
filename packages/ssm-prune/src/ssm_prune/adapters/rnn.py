"""Hidden units of an RNN that has an output map; without one they are the output itself."""

from __future__ import annotations

from torch import nn

from ssm_core.layers.rnn import RNN
from ssm_prune.adapters.parts import parameters_of
from ssm_prune.adapters.rounding import CHANNELS
from ssm_prune.hookspecs import hookimpl
from ssm_prune.units import BlockAdapter, Slice, UnitGroup, places


@hookimpl
def ssm_prune_adapter(module: nn.Module) -> BlockAdapter | None:
    if not isinstance(module, RNN):
        return None
    output = parameters_of(module, "out_proj")
    if not output:  # without weights and biases hidden units stay at 0, where they begin
        return BlockAdapter((), parameters_of(module, "rnn"))
    own = places(module.rnn.hidden_size)
    consumers = (Slice("rnn.weight_hh_l0", 1, own), Slice("out_proj.weight", 1, own))
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    producers = [Slice(f"rnn.{name}", 0, own) for name in names]
    channels = UnitGroup(
        kind="channels",
        count=len(own),
        removed=(*producers, *consumers),
        masked=consumers,
        scored=(producers[0], *consumers),
        sizes=lambda kept: {"hidden": len(kept), "project": True},
        round_to=CHANNELS,
    )
    return BlockAdapter((channels,), output)
