"""The order of a model's layers from the image to the head, read from its parameters' names."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: "layers.3.", "levels.1.blocks.0.", "layers_up.2.blocks.1.", "blocks.7.": a stage, and its block
_BLOCK = re.compile(r"(?:^|\.)(layers_up|layers|levels|stages|blocks)\.(\d+)(?:\.blocks\.(\d+))?\.")
#: first part of the name, or the second of "classifier.norm.weight", of what follows the blocks;
#: the norm of "patch_embed.norm.weight" does not
_AFTER = re.compile(
    r"^(?!patch_embed\.)(?:\w+\.)?(head|heads|classifier|fc|fc_norm|norm|norm_f|final\w*)(\.|$)"
)


def layer_order(names: Iterable[str]) -> dict[str, int]:
    """The place of every parameter: 0 for stem, positions and class tokens, then one number per
    block in order, then one for what follows the last block.

    What stands beside the blocks of a stage (a downsampling) belongs to the stage's last block. A
    decoder (`layers_up`) follows the encoder.
    """
    names = list(names)
    found = {name: match for name in names if (match := _BLOCK.search(name))}
    last: dict[tuple[bool, int], int] = {}  # stage -> its last block
    for match in found.values():
        stage = _stage(match)
        last[stage] = max(last.get(stage, 0), int(match[3] or 0))
    place = {
        name: (*_stage(match), int(match[3]) if match[3] is not None else last[_stage(match)])
        for name, match in found.items()
    }
    number = {block: i for i, block in enumerate(sorted(set(place.values())), start=1)}
    top = len(number) + 1
    return {
        name: number[place[name]] if name in place else (top if _AFTER.match(name) else 0)
        for name in names
    }


def _stage(match: re.Match[str]) -> tuple[bool, int]:
    return match[1] == "layers_up", int(match[2])
