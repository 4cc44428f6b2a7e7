"""Generate a long text with a small Mamba and watch the memory: it must not grow with the text.

    .venv/bin/python tools/reproduce/long_generation.py --out tools/reproduce/results

Writes long_generation.md: resident memory, size of the state and processor time after so many
tokens. The weights are random: memory and time do not depend on them.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from runs import installed, machine

from ssm_text import CharLM, CharLMConfig, Sampling
from ssm_text.generation import Ending, stream
from ssm_text.state_tree import leaves
from ssm_text.texts import Texts

VOCABULARY = 98  # that of python-stdlib


class Measured(NamedTuple):
    """What is true after so many tokens."""

    tokens: int
    resident: float
    """MiB of the process"""
    state: float
    """KiB of the model's state"""
    tensors: int
    """that are alive"""
    seconds: float
    """of the processor since the prompt was read"""


def resident() -> float:
    """Memory of this process that is in use, unit: MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("error: /proc/self/status has no VmRSS; this needs Linux")


def measure(config: CharLMConfig, marks: list[int]) -> list[Measured]:
    """Generate one text and measure after each of `marks` tokens."""
    torch.manual_seed(0)
    model = CharLM(VOCABULARY, config)
    texts = Texts(model, 1, Sampling(1.0))
    texts.read([torch.tensor([0])])
    # of the processor: other work on the machine shall not count
    found, start = [], time.process_time()
    for count, _ in enumerate(stream(texts, Sampling(1.0), Ending(max(marks))), 1):
        if count not in marks:
            continue
        seconds = time.process_time() - start
        gc.collect()
        state = sum(leaf.untyped_storage().nbytes() for leaf in leaves(texts.state)) / 1024
        tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
        found.append(Measured(count, resident(), state, tensors, seconds))
        print(found[-1], file=sys.stderr)
    return found


def main() -> int:
    """Measure and write the table; exit code 1 when memory grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1000, 10_000, 50_000, 100_000])
    parser.add_argument("--width", type=int, default=CharLMConfig().d_model)
    parser.add_argument("--layers", type=int, default=CharLMConfig().n_layers)
    parser.add_argument("--out", type=Path, help="folder for long_generation.md")
    arguments = parser.parse_args()
    found = measure(
        CharLMConfig(d_model=arguments.width, n_layers=arguments.layers), arguments.tokens
    )
    first, last = found[0], found[-1]
    # the allocator may keep a page or two more
    flat = last.tensors == first.tensors and last.state == first.state
    flat = flat and last.resident - first.resident < 2
    report = [
        f"# {last.tokens:,} tokens from a Mamba, memory and time",
        "",
        f"A character model of width {arguments.width} with {arguments.layers} Mamba layers and "
        "random weights (memory and time do not depend on them) writes one text, drawn at "
        "temperature 1, one step per token.",
        "",
        "| tokens | resident, MiB | state, KiB | tensors | CPU seconds | tokens per CPU s |",
        "|---|---|---|---|---|---|",
        *(
            f"| {m.tokens:,} | {m.resident:.1f} | {m.state:.1f} | {m.tensors} | {m.seconds:.1f} "
            f"| {m.tokens / m.seconds:.0f} |"
            for m in found
        ),
        "",
        f"- memory after {last.tokens:,} tokens as after {first.tokens:,} (within 2 MiB; state and "
        f"tensors exactly): {'yes' if flat else 'NO'}",
        f"- {installed()}",
        f"- {machine()}",
        "- command: `python tools/reproduce/long_generation.py --tokens "
        f"{' '.join(map(str, arguments.tokens))} --width {arguments.width} "
        f"--layers {arguments.layers}`",
    ]
    text = "\n".join(report) + "\n"
    print(text)
    if arguments.out:
        (arguments.out / "long_generation.md").write_text(text)
    return 0 if flat else 1


if __name__ == "__main__":
    raise SystemExit(main())
