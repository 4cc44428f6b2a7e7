"""Text from a character model, one recurrent step per character, in constant memory.

The prompt is read by the parallel scan, in chunks so that its length does not matter; from then on
only the state is kept. (A mixer whose state grows, such as attention, grows here too.)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_text.causal_lm import CausalLM, State
from ssm_text.data.vocabulary import Vocabulary
from ssm_text.sampling import Sampling, draw

PREFILL_STEPS = 2048


def generate(
    model: CausalLM,
    vocabulary: Vocabulary,
    prompt: str = "",
    max_new_tokens: int = 200,
    sampling: Sampling | None = None,
) -> Iterator[str]:
    """Yield the characters that continue `prompt`, each as soon as it is chosen.

    Args:
        model: a trained model; used without dropout whatever its mode.
        vocabulary: the characters it was trained on.
        prompt: text to continue; an empty one starts after a newline (after the vocabulary's first
            character if it has no newline).
        max_new_tokens: how many characters to add.
        sampling: how to choose them.
    Raises:
        ConfigError: `max_new_tokens` is negative, or model and vocabulary do not fit together.
        TokenError: the prompt has unknown characters; names them.
        GenerationError: the model's logits are not finite numbers.

    Cost: the tower on the prompt once, then one step per character; memory for one state.
    """
    if max_new_tokens < 0:
        raise ConfigError(f"max_new_tokens is {max_new_tokens}, expected 0 or more")
    if len(vocabulary) != model.vocab_size:
        raise ConfigError(
            f"the vocabulary has {len(vocabulary)} characters, the model {model.vocab_size}; "
            "use the one the model was trained with"
        )
    start = "\n" if "\n" in vocabulary else vocabulary.characters[0]
    ids = vocabulary.encode(prompt or start)
    # checked above, at the call; a generator's own body would run only at the first `next`
    return _characters(model, vocabulary, ids, max_new_tokens, sampling or Sampling())


def _characters(
    model: CausalLM, vocabulary: Vocabulary, ids: Tensor, count: int, sampling: Sampling
) -> Iterator[str]:
    generator = torch.Generator().manual_seed(sampling.seed)
    was_training = model.training
    model.eval()
    try:
        logits, state = prefill(model, ids)
        for i in range(count):
            chosen = draw(logits, sampling, generator)
            yield vocabulary.characters[chosen]
            if i + 1 < count:
                logits, state = _step(model, chosen, state)
    finally:
        model.train(was_training)


@torch.inference_mode()
def prefill(model: CausalLM, ids: Tensor) -> tuple[Tensor, State]:
    """Read ids (l,), l >= 1: the logits (V,) after the last one, and the state there."""
    device = next(model.parameters()).device
    state = model.initial_state(1)
    for chunk in ids.to(device).split(PREFILL_STEPS):
        logits, state = model(chunk.unsqueeze(0), state=state, return_state=True, last_only=True)
    return logits[0], state


@torch.inference_mode()
def _step(model: CausalLM, chosen: int, state: State) -> tuple[Tensor, State]:
    ids_t = torch.tensor([chosen], device=next(model.parameters()).device)
    logits, state = model.step(ids_t, state)
    return logits[0], state
