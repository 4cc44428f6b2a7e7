"""Names of tensors that VM-UNet and VMamba of the first release have in common."""

from __future__ import annotations

import re

from ssm_core.official.tensors import Tensors

WRAPPER = "vmunet."
#: present names of VMamba -> the old ones, which VM-UNet has kept
OLD_NAMES = (
    (r"^patch_embed\.0\.", "patch_embed.proj."),
    (r"^patch_embed\.2\.", "patch_embed.norm."),
    (r"(\.blocks\.\d+)\.norm\.", r"\1.ln_1."),
    (r"(\.blocks\.\d+)\.op\.", r"\1.self_attention."),
)


def encoder_names(tensors: Tensors) -> Tensors:
    """The tensors under the names of VM-UNet, whose prefix is left out; others keep theirs."""
    named = {}
    for name, tensor in tensors.items():
        name = name.removeprefix(WRAPPER)
        for pattern, old in OLD_NAMES:
            name = re.sub(pattern, old, name)
        named[name] = tensor
    return named


def with_decoder(tensors: Tensors, stages: int) -> Tensors:
    """The tensors, and those of the encoder's stages once more for the decoder's, last to first."""
    up = {
        re.sub(r"^layers\.(\d+)\.", lambda m: f"layers_up.{stages - 1 - int(m[1])}.", name): tensor
        for name, tensor in tensors.items()
        if name.startswith("layers.")
    }
    return tensors | up
