"""Part language: character models beside a Transformer, and a Mamba of published size beside what
transformers makes of the same weights.

A training step is forward and backward without an optimizer, of the recipes of ssm-text with their
dropout, at the same number of characters per batch whatever the context. Decoding is greedy, a
batch of one; its limit is reading every weight once per token at the rate of the machine's memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssm_text import MambaLM, MambaLMConfig
from ssm_text.benchmark import BENCHMARK
from ssm_text.presets import preset

from .compare import add_times, relative_error
from .options import Options
from .peers import transformers_lm
from .report import OURS, Report
from .timing import Action, alternate

STEP, PREFILL, DECODE = "step", "prefill", "decode, per token"
TRANSFORMER, THEIRS = "shakespeare-transformer", "transformers"
MODELS = ("shakespeare-mamba", TRANSFORMER, "shakespeare-mamba2", "shakespeare-s4d")
CHARACTERS, CONTEXTS = 8192, (256, 1024, 4096)
PRESETS = ("mamba-130m", "mamba2-130m")
PROMPT, NEW_TOKENS = 512, 32
TOLERANCE = 1e-3
"""of logits after 24 layers in float32, relative to the largest"""


def run(report: Report, options: Options) -> None:
    for context in (16,) if options.smoke else CONTEXTS:
        run_steps(report, options, context, 32 if options.smoke else CHARACTERS)
    for name in PRESETS:
        run_published(report, options, name)


def run_steps(report: Report, options: Options, context: int, characters: int) -> None:
    """The training step of every character model in turns; ratios are to the first."""
    batch = characters // context
    models = {name: BENCHMARK.build(name, context) for name in MODELS}
    actions = {name: step(model, batch, context) for name, model in models.items()}
    all_times = alternate(actions, options.budget_s * 2)
    for name, times in all_times.items():
        weights = sum(p.numel() for p in models[name].parameters())
        add_times(
            report,
            f"{batch} x {context} characters",
            STEP,
            name,
            times,
            rate=characters / times.median,
            ratio=times.median / all_times[MODELS[0]].median,
            note=f"{weights / 1e6:.2f} M weights",
        )


def step(model: nn.Module, batch: int, context: int) -> Action:
    ids = BENCHMARK.inputs(model, batch, context)

    def run() -> float:
        model.zero_grad(set_to_none=True)
        start = time.perf_counter()
        BENCHMARK.loss(model(ids), ids).backward()
        return time.perf_counter() - start

    return run


def run_published(report: Report, options: Options, name: str) -> None:
    """Prefill and decoding of random weights in a published size."""
    config = preset(name)
    if options.smoke:
        config = small(config)
    ours = MambaLM(config).eval()
    prompt, count = (5, 3) if options.smoke else (PROMPT, NEW_TOKENS)
    ids = torch.randint(ours.vocab_size, (1, prompt))
    theirs = transformers_lm.load(ours)
    with torch.inference_mode():
        error = relative_error(transformers_lm.prefill(theirs, ids), ours(ids, last_only=True))
    if not error < TOLERANCE:
        report.fail(f"{name}: logits of transformers differ by {error:.2g}")
        return
    n_bytes = sum(p.numel() * p.element_size() for p in ours.parameters())
    # what one token reads: of the embedding one row, unless it is the head too
    floor_s = n_bytes / options.limits().bandwidth
    compare(
        report,
        (f"{name}, {prompt} tokens", PREFILL),
        {
            OURS: lambda: ours(ids, last_only=True),
            THEIRS: lambda: transformers_lm.prefill(theirs, ids),
        },
        options.budget_s * 2,
    )
    one = ids[:, :1]
    compare(
        report,
        (f"{name}, {count} tokens", DECODE),
        {
            OURS: lambda: ours.generate(one, max_new_tokens=count, temperature=0.0),
            THEIRS: lambda: transformers_lm.continued(theirs, one, count),
        },
        options.budget_s * 2,
        per=count,
        floor_s=floor_s,
    )


def compare(
    report: Report,
    case_and_what: tuple[str, str],
    calls: Mapping[str, Callable[[], Tensor]],
    budget_s: float,
    per: int = 1,
    floor_s: float | None = None,
) -> None:
    """Time the calls in turns; figures are per `per`-th part of a call, ratios to the first."""

    def timed(call: Callable[[], Tensor]) -> Action:
        def run() -> float:
            with torch.inference_mode():
                start = time.perf_counter()
                call()
                return (time.perf_counter() - start) / per

        return run

    all_times = alternate({name: timed(call) for name, call in calls.items()}, budget_s)
    first = next(iter(calls))
    for name, times in all_times.items():
        more: dict[str, Any] = {} if floor_s is None else {"of_limit": floor_s / times.median}
        ratio = times.median / all_times[first].median
        add_times(report, *case_and_what, name, times, ratio=ratio, **more)


def small(config: MambaLMConfig) -> MambaLMConfig:
    """The same model in a size that takes no time."""
    options = {"headdim": 8} if config.mixer == "mamba2" else {}
    return MambaLMConfig(
        d_model=16,
        n_layers=2,
        vocab_size=32,
        mixer=config.mixer,
        mixer_options=options,
        pad_vocab_size_multiple=1,
    )
