"""A model that writes and what turns its tokens into text, from wherever they are."""

from __future__ import annotations

from pathlib import Path

import torch

from ssm_core.errors import ConfigError
from ssm_text.causal_lm import CausalLM
from ssm_text.data.codec import TextCodec, codec_of


def load_writer(
    source: str | Path, device: str = "cpu", tokenizer: str | None = None
) -> tuple[CausalLM, TextCodec]:
    """A language model on `device`, in evaluation mode, and its characters or tokenizer.

    Args:
        source: the folder of a run; the folder of a published Mamba, with its tokenizer.json; or
            the id of one on the Hugging Face hub (extra `hub`).
        tokenizer: a tokenizer.json, its folder, or the id of a model on the hub that has one,
            instead of the model's own.
    Raises:
        ConfigError: the run trained another kind of model, or there is no such device.
        CheckpointError: there is no model, or its files are damaged.
        TokenError, DataError: there is no tokenizer, or it is damaged.
    """
    _check_device(device)
    folder = Path(source).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        model = _model_of_run(folder, device)
    else:
        from ssm_text.mamba_lm import MambaLM

        model = MambaLM.from_pretrained(source, device=device)
    if tokenizer is None and folder.is_dir():
        return model, codec_of(folder)
    from ssm_text.data.tokenizer import Tokenizer

    return model, Tokenizer.from_pretrained(source if tokenizer is None else tokenizer)


def _model_of_run(folder: Path, device: str) -> CausalLM:
    from ssm_core.train.restore import load_run

    module = load_run(folder, device=device).module
    if not isinstance(module, CausalLM):
        raise ConfigError(
            f"{folder}: holds a {type(module).__name__}, expected a language model (model: char-lm "
            "or mamba-lm); give the folder of such a run"
        )
    return module


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {device} cannot be used here: {reason}") from None
