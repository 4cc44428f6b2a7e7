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

    What stands beside the blocks of a stage belongs to the stage's last block (a downsampling), in
    a decoder to its first (an upsampling). A decoder (`layers_up`) follows the encoder.
    """
    names = list(names)
    found = {name: match for name in names if (match := _BLOCK.search(name))}
    last: dict[tuple[bool, int], int] = {}  # stage -> its last block
    for match in found.values():
        stage = _stage(match)
        last[stage] = max(last.get(stage, 0), int(match[3] or 0))
    place = {}
    for name, match in found.items():
        up, stage_number = stage = _stage(match)
        beside = 0 if up else last[stage]
        place[name] = (up, stage_number, int(match[3]) if match[3] is not None else beside)
    number = {block: i for i, block in enumerate(sorted(set(place.values())), start=1)}
    top = len(number) + 1
    return {
        name: number[place[name]] if name in place else (top if _AFTER.match(name) else 0)
        for name in names
    }


def _stage(match: re.Match[str]) -> tuple[bool, int]:
    return match[1] == "layers_up", int(match[2])
