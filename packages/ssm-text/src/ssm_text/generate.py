"""Text from a language model, piece by piece as it is chosen, in constant memory.

Tokens come from `ssm_text.generation`; here they become text, which ends before stop strings. (A
mixer whose state grows, such as attention, grows here too.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

import torch
from torch import Tensor

from ssm_core.errors import ConfigError
from ssm_text.causal_lm import CausalLM
from ssm_text.data.codec import TextCodec, TextStream
from ssm_text.data.vocabulary import Vocabulary
from ssm_text.errors import TokenError
from ssm_text.generation import Ending, stream
from ssm_text.sampling import Sampling
from ssm_text.stop_strings import StopStrings
from ssm_text.texts import Texts, evaluating


def generate(
    model: CausalLM,
    codec: TextCodec,
    prompt: str = "",
    max_new_tokens: int = 200,
    sampling: Sampling | None = None,
    stop: Sequence[str] = (),
    texts: Texts | None = None,
) -> Iterator[str]:
    """Yield the text that continues `prompt`, each piece as soon as it is certain.

    Args:
        model: a trained model; used without dropout whatever its mode.
        codec: the characters or the tokenizer it was trained with. Where that has a token for the
            end of a text, the text ends there.
        prompt: text to continue; an empty one starts after a newline (after the vocabulary's first
            character if it has no newline; after the token for the end of a text, of a tokenizer).
        max_new_tokens: how many tokens to add at most.
        sampling: how to choose them.
        stop: strings before which the text ends, e.g. ("\\n\\n",); they are looked for in the new
            text. Text that may be the beginning of one comes when that is decided.
        texts: where to go on from, `new_texts(model, codec)` or what `load_state` returned; it
            keeps up with the text, to be saved or continued. `prompt` then is further text and may
            be empty. The seed of `sampling` does nothing: the generators go on too.
    Raises:
        ConfigError: `max_new_tokens` is negative, a stop string is empty, or model and codec do not
            fit together.
        TokenError: the prompt has unknown characters, or is empty where it may not be.
        GenerationError: the model's logits are not finite numbers (not at the call, as they come).

    Cost: the model on the prompt once, then one step per token; memory for one state.
    """
    sampling = sampling or Sampling()
    if texts is None:
        texts = new_texts(model, codec, sampling)
    else:
        check_fit(model, codec)
        if texts.model is not model or len(texts.lengths) != 1:
            raise ConfigError("texts are of another model or several, expected one of this model")
        if texts.vocab_size != len(codec):
            raise ConfigError(
                f"the text was written in {texts.vocab_size} different tokens, the vocabulary has "
                f"{len(codec)}; use the one it was begun with"
            )
    end = codec.end_of_text
    ending = Ending(max_new_tokens, stop_ids=() if end is None else (end,))
    ids = codec.encode(prompt)
    if not len(ids) and not texts.lengths[0]:
        ids = beginning(codec)
    # checked above, at the call; a generator's own body would run only at the first `next`
    return _pieces(texts, ids, codec.stream(), StopStrings(stop), (sampling, ending))


def new_texts(model: CausalLM, codec: TextCodec, sampling: Sampling | None = None) -> Texts:
    """An empty text for `generate`, drawn with the seed of `sampling`.

    Raises:
        ConfigError: model and codec do not fit together.
    """
    check_fit(model, codec)
    return Texts(model, 1, sampling, len(codec))


def check_fit(model: CausalLM, codec: TextCodec) -> None:
    """Check that the tokens of `codec` can be those of `model`.

    Raises:
        ConfigError: they cannot.
    """
    # a tokenizer's model may have more rows than there are tokens, to a round number
    fits = len(codec) <= model.vocab_size
    if isinstance(codec, Vocabulary):
        fits = len(codec) == model.vocab_size
    if not fits:
        kind = "characters" if isinstance(codec, Vocabulary) else "tokens"
        raise ConfigError(
            f"the vocabulary has {len(codec)} {kind}, the model {model.vocab_size}; "
            "use the one the model was trained with"
        )


def beginning(codec: TextCodec) -> Tensor:
    """Ids (1,) that stand before a text that begins with nothing.

    Raises:
        TokenError: the tokenizer has no token for that.
    """
    if isinstance(codec, Vocabulary):
        return codec.encode("\n" if "\n" in codec else codec.characters[0])
    if codec.end_of_text is None:
        raise TokenError(
            "the prompt is empty and the tokenizer has no token to begin with: give a prompt"
        )
    return torch.tensor([codec.end_of_text])


def _pieces(
    texts: Texts,
    ids: Tensor,
    decoder: TextStream,
    stops: StopStrings,
    how: tuple[Sampling, Ending],
) -> Iterator[str]:
    sampling, ending = how
    with evaluating(texts.model):
        texts.read([ids])
    # what a token means may depend on those before it: half a character, a space in front
    for id in texts.tail():
        decoder.push(id)
    with closing(stream(texts, sampling, ending)) as tokens:
        for chosen in tokens:
            id = int(chosen)
            texts.check()  # the device was waited for already
            if id in ending.stop_ids:
                break
            if piece := stops.push(decoder.push(id)):
                yield piece
            if stops.found:
                return
    piece = stops.push(decoder.finish())
    if piece := piece + stops.finish():
        yield piece
