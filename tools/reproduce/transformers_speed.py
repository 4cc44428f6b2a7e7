"""Time transformers' Mamba and Mamba-2 on its own functions and on ours, and write the table.

    .venv/bin/python tools/reproduce/transformers_speed.py --rounds 3

Both sides run in turns in one process, on the same weights. transformers' backward pass through
its loop over the steps takes minutes for Mamba, so what takes longer than SLOW_MS runs once.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from runs import installed, machine
from torch import Tensor, nn

from ssm_kernels import huggingface

TABLE = Path(__file__).resolve().parent / "results" / "transformers_speed.md"
BATCH, LENGTH, WIDTH, LAYERS, VOCABULARY = 4, 512, 256, 4, 256
NEW_TOKENS, GOAL, TOLERANCE, SLOW_MS = 32, 10, 1e-4, 10_000
FORWARD, TRAINING, DECODING = "forward", "forward + backward", f"generate {NEW_TOKENS} tokens"
HEADS = {"state_size": 128, "head_dim": 64, "num_heads": 8}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "Mamba, 16 states": ("Mamba", {}),
    "Mamba-2, heads of 64, 128 states, 1 group": ("Mamba2", HEADS | {"n_groups": 1}),
    "Mamba-2, the same with 8 groups": ("Mamba2", HEADS | {"n_groups": 8}),
    "Mamba-2, heads of 16, 64 states, 1 group": (
        "Mamba2",
        {"state_size": 64, "head_dim": 16, "num_heads": 32, "n_groups": 1},
    ),
}


@dataclass(frozen=True)
class Row:
    """Medians in milliseconds; `floor` is the linear layers alone, None where not measured."""

    case: str
    threads: int
    what: str
    theirs: float
    ours: float
    floor: float | None


@dataclass(frozen=True)
class Pair:
    """One model on transformers' functions and its copy on ours."""

    theirs: nn.Module
    ours: nn.Module
    ids: Tensor

    def alternate(self, run: Callable[[nn.Module], object], rounds: int) -> tuple[float, float]:
        """Medians in milliseconds of as many runs of each side, in turns."""
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            for model, own in zip((self.theirs, self.ours), times, strict=True):
                if max(own, default=0) < SLOW_MS:
                    own.append(timed(partial(run, model)))
        return statistics.median(times[0]), statistics.median(times[1])


def main() -> int:
    options = arguments()
    transformers.logging.set_verbosity_error()
    rows: list[Row] = []
    checks: list[str] = []
    for case, (family, changes) in CASES.items():
        pair = build(family, changes, options.length)
        checks.append(f"- {case}: {agreement(pair)}")
        for threads in options.threads:
            torch.set_num_threads(threads)
            rows += measure(case, pair, threads, options.rounds)
    text = page(rows, checks, options)
    print(text)
    if options.length == LENGTH:
        TABLE.write_text(text, encoding="utf-8")
        print(f"wrote {TABLE}")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--length", type=int, default=LENGTH, help="steps; another length writes no table"
    )
    return parser.parse_args()


def build(family: str, changes: dict[str, Any], length: int) -> Pair:
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "vocab_size": VOCABULARY}
    config = getattr(transformers, f"{family}Config")(**sizes, **changes, pad_token_id=0)
    theirs = getattr(transformers, f"{family}ForCausalLM")(config)
    ours = copy.deepcopy(theirs)
    print(huggingface.accelerate(ours), flush=True)
    return Pair(theirs, ours, torch.randint(1, VOCABULARY, (BATCH, length)))


def agreement(pair: Pair) -> str:
    """How far logits and greedy continuations agree, in words."""
    outputs, texts = [], []
    for model in (pair.theirs.eval(), pair.ours.eval()):
        with torch.no_grad():
            outputs.append(model(pair.ids, use_cache=False).logits)
        texts.append(generate(model, pair.ids[:, :64]))
    largest = outputs[0].abs().max().item()
    error = (outputs[0] - outputs[1]).abs().max().item() / largest
    same = "identical" if torch.equal(texts[0], texts[1]) else "DIFFERENT"
    goal = "below" if error < TOLERANCE else "ABOVE"
    return (
        f"logits differ by at most {error:.1e} of the largest, {largest:.1f} ({goal}"
        f" {TOLERANCE:g}), greedy text {same}"
    )


def generate(model: Any, ids: Tensor) -> Tensor:
    tokens: Tensor = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False,
        max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS,
    )  # fmt: skip
    return tokens


def measure(case: str, pair: Pair, threads: int, rounds: int) -> Iterator[Row]:
    def forward(model: nn.Module) -> None:
        model.eval()
        with torch.no_grad():
            model(pair.ids, use_cache=False)

    def training(model: nn.Module) -> None:
        model.train()
        model(pair.ids, use_cache=False, labels=pair.ids).loss.backward()

    def decoding(model: nn.Module) -> None:
        generate(model.eval(), pair.ids[:, :8])

    for what, run in ((FORWARD, forward), (TRAINING, training), (DECODING, decoding)):
        print(f"==> {case}, {what}, {threads} threads", flush=True)
        run(pair.ours)  # allocates what later runs find again
        theirs, ours = pair.alternate(run, rounds)
        floor = None if what == DECODING else linear_layers(pair, what == TRAINING, rounds)
        yield Row(case, threads, what, theirs, ours, floor)


def linear_layers(pair: Pair, training: bool, rounds: int) -> float:
    """The time of the model's linear layers alone, the head among them."""
    layers = [module for module in pair.ours.modules() if isinstance(module, nn.Linear)]
    inputs = [torch.randn(*pair.ids.shape, layer.in_features) for layer in layers]

    def run() -> None:
        with torch.set_grad_enabled(training):
            for layer, x in zip(layers, inputs, strict=True):
                y = layer(x.requires_grad_(training))
                if training:
                    y.backward(y.detach())

    run()
    return statistics.median(timed(run) for _ in range(3 * rounds))


def timed(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return (time.perf_counter() - begin) * 1e3


def page(rows: list[Row], checks: list[str], options: argparse.Namespace) -> str:
    lines = [
        "# transformers' Mamba and Mamba-2 on ssm-kernels",
        "",
        f"Batch {BATCH}, {options.length} tokens, hidden size {WIDTH}, {LAYERS} layers, a"
        f" vocabulary of {VOCABULARY}, float32 on the CPU: transformers' own PyTorch functions"
        " against `ssm_kernels.huggingface.accelerate(model)`, medians of"
        f" {options.rounds} runs of each in turns (what takes longer than {SLOW_MS // 1000} s runs"
        " once). `linear` is the time of the model's linear"
        " layers alone, as ours run them; `bound` is the ratio if everything else of ours took"
        " no time.",
        "",
        "| model | threads | what | theirs ms | ours ms | ratio | linear ms | bound | goal |",
        "|---" * 9 + "|",
    ]
    for r in rows:
        ratio = r.theirs / r.ours
        cells = [r.case, str(r.threads), r.what, f"{r.theirs:.1f}", f"{r.ours:.1f}"]
        cells += [f"{ratio:.1f}"]
        if r.floor is None:
            cells += ["-", "-", "slower" if ratio < 1 else "-"]
        else:
            bound = r.theirs / r.floor
            missed = "missed" if bound >= GOAL else "missed, out of reach"
            cells += [f"{r.floor:.1f}", f"{bound:.1f}"]
            cells += [f"{GOAL}: {'met' if ratio >= GOAL else missed}"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        *checks,
        "",
        f"- machine: {machine()}",
        f"- versions: {installed()}, transformers {transformers.__version__}",
        f"- command: `python tools/reproduce/transformers_speed.py --rounds {options.rounds}"
        f" --threads {' '.join(map(str, options.threads))}`",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
