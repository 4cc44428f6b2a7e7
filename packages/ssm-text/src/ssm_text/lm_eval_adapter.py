"""Any language model of this package for lm-evaluation-harness (extra `lm-eval`).

lm_eval.simple_evaluate(model=for_lm_eval(model, codec), tasks=["lambada_openai"])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ssm_core.errors import UnknownNameError
from ssm_text.causal_lm import CausalLM
from ssm_text.continuations import score_continuations
from ssm_text.data.codec import TextCodec
from ssm_text.extras import require
from ssm_text.generate import beginning, check_fit, generate
from ssm_text.progress import Progress
from ssm_text.sampling import Sampling
from ssm_text.scoring import score

#: what the harness takes where a task says nothing
NEW_TOKENS = 256
OPTIONS = ("until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p", "min_p", "seed")


def for_lm_eval(model: CausalLM, codec: TextCodec) -> Any:
    """An `lm_eval.api.model.LM` that answers with `model`, on the device it is on.

    Raises:
        ConfigError: `lm_eval` is missing, or model and codec do not fit together.
    """
    base = require("lm_eval.api.model", "lm-eval").LM
    check_fit(model, codec)
    return type("LanguageModel", (Answers, base), {})(model, codec)


class Answers:
    """The three questions of the harness; requests carry their arguments in `args`.

    Text is cut into tokens as the harness does for Hugging Face models: a beginning and an ending
    together, spaces between them counting as the ending's; what begins with nothing begins with
    the end of a text (with a newline, for a model of characters).

    Raises (each method):
        TokenError: text that cannot be written in the model's tokens; names the characters.
        GenerationError: the model's logits are not finite numbers.
    """

    def __init__(self, model: CausalLM, codec: TextCodec) -> None:
        super().__init__()
        self.model, self.codec = model, codec

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """For (beginning, ending): log p of the ending, and whether greedy decoding writes it."""
        pairs = [split_pair(self.codec, *request.args) for request in requests]
        found = score_continuations(self.model, pairs)
        return [(-one.nats, one.greedy) for one in found]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """For (text,): log p of all of it, read as `scoring.score` reads it."""
        found = []
        with Progress("predicting", len(requests), "texts") as progress:
            for request in requests:
                ids = self.codec.encode(request.args[0])
                found.append(-score(self.model, _begun(self.codec, ids)).nats if len(ids) else 0.0)
                progress.advance(1)
        return found

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """For (beginning, options): the text that follows, up to the strings of "until".

        Raises:
            UnknownNameError: an option that is none of `OPTIONS`.
        """
        found = []
        with Progress("generating", len(requests), "texts") as progress:
            for request in requests:
                prompt, options = request.args
                found.append("".join(self._written(prompt, options)))
                progress.advance(1)
        return found

    def _written(self, prompt: str, options: Mapping[str, Any]) -> Sequence[str]:
        sampling, until = parse_options(options)
        count = int(options.get("max_gen_toks", NEW_TOKENS))
        return list(generate(self.model, self.codec, prompt, count, sampling, until))


def split_pair(codec: TextCodec, before: str, ending: str) -> tuple[Tensor, Tensor]:
    """Ids (l,) of what comes before, one token at least, and of the ending."""
    spaces = len(before) - len(before.rstrip())
    if spaces:
        before, ending = before[:-spaces], before[-spaces:] + ending
    ids = codec.encode(before)
    whole = codec.encode(before + ending)
    rest = whole[len(ids) :]
    if ending and not len(rest):  # one token reaches from the beginning into the ending
        rest = codec.encode(ending)
    return (ids if len(ids) else beginning(codec)), rest


def parse_options(options: Mapping[str, Any]) -> tuple[Sampling, tuple[str, ...]]:
    """How to choose tokens, and the strings before which to stop.

    Raises:
        UnknownNameError: an option that is none of `OPTIONS`.
    """
    for name in options:
        if name not in OPTIONS:
            raise UnknownNameError.of("option of generate_until", name, OPTIONS)
    until = options.get("until") or ()
    until = (until,) if isinstance(until, str) else tuple(until)
    if not options.get("do_sample", bool(options.get("temperature", 0.0))):
        return Sampling(temperature=0.0), until
    sampling = Sampling(
        temperature=float(options.get("temperature", 1.0)),
        top_k=int(options.get("top_k") or 0),
        top_p=float(options.get("top_p", 1.0)),
        min_p=float(options.get("min_p", 0.0)),
        seed=int(options.get("seed", 0)),
    )
    return sampling, until


def _begun(codec: TextCodec, ids: Tensor) -> Tensor:
    """Ids with something before them, so that their first one is predicted too."""
    return torch.cat([beginning(codec), ids])
