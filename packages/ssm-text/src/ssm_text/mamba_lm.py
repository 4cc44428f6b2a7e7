"""Mamba language models, with the parameter names of the published checkpoints.

    model = MambaLM.from_pretrained("state-spaces/mamba-130m")   # or a folder
    model = MambaLM.from_preset("mamba2-130m")                   # untrained
    model.save_pretrained("folder", format="huggingface")

Sources: Gu & Dao 2023, arXiv:2312.00752; Dao & Gu 2024, arXiv:2405.21060; Lahoti et al. 2026,
arXiv:2603.15569. Tied weights: Press & Wolf 2017, arXiv:1608.05859.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ssm_core import DataInfo
from ssm_core.errors import ConfigError
from ssm_core.linear import Linear
from ssm_text.causal_lm import CausalLM, State
from ssm_text.mamba_lm_blocks import Backbone
from ssm_text.mamba_lm_config import MambaLMConfig

if TYPE_CHECKING:
    from ssm_text.official.config import Format


class MambaLM(CausalLM):
    """Next-token logits of a stack of Mamba blocks: ids (b, l) int64 -> (b, l, V).

    V is `vocab_size` rounded up to `config.pad_vocab_size_multiple`, as in the published models.
    Ids are 0 to vocab_size - 1; nothing was trained in the columns behind those: who chooses a
    token reads logits[..., : model.vocab_size].

    Parameters: backbone.embedding.weight (V, d), backbone.layers.{i}.norm and .mixer (and .norm2
    and .mlp), backbone.norm_f, lm_head.weight (V, d; with `tie_embeddings` the embedding itself).
    Initial values are the official ones: embedding N(0, 0.02^2), the last matrix of each branch
    divided by sqrt(n_layers), no bias of a Linear but those of the step sizes.

    The state is a tuple with one NamedTuple of tensors per block.

    Cost: that of the mixers, plus O(b l d V) for the head.

    Args:
        config: sizes and mixer.
    Raises:
        ConfigError: no vocab_size, or options that the mixer refuses.
    """

    def __init__(self, config: MambaLMConfig) -> None:
        super().__init__()
        self.config = config
        if config.vocab_size is None:
            raise ConfigError("model: vocab_size is None, expected the number of tokens")
        self.vocab_size = config.vocab_size
        rows = config.padded(config.vocab_size)
        self.backbone = Backbone(rows, config)
        self.lm_head = Linear(config.d_model, rows, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.backbone.embedding.weight

    def hidden(
        self, ids: Tensor, state: State | None, return_state: bool, mask: Tensor | None
    ) -> tuple[Tensor, State | None]:
        """What the head reads, (b, l, d), and the state; see `CausalLM.hidden`."""
        x = self.backbone.embedding(ids)
        if not return_state:
            return self.backbone(x, state, mask=mask), None
        y, state = self.backbone(x, state, return_state=True, mask=mask)
        return y, state

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (.., V) of `hidden` (.., d)."""
        logits: Tensor = self.lm_head(hidden)
        return logits

    def initial_state(self, batch: int) -> State:
        """The state at the beginning of `batch` texts."""
        return self.backbone.initial_state(batch)

    @classmethod
    def from_preset(cls, name: str) -> MambaLM:
        """An untrained model with the sizes of a published one; see `ssm_text.presets.PRESETS`.

        Raises:
            UnknownNameError: no such preset; names the nearest.
        """
        from ssm_text.presets import preset

        return cls(preset(name))

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        revision: str | None = None,
    ) -> MambaLM:
        """A published model from a folder or the Hugging Face hub; see `ssm_text.pretrained.load`.

        Raises:
            CheckpointError: nothing is there, or it is damaged or of another model.
            ConfigError: a configuration that this model cannot have.
        """
        from ssm_text.pretrained import load

        return load(source, dtype, device, revision)

    def save_pretrained(self, folder: str | Path, *, format: Format = "official") -> None:
        """Write config.json and model.safetensors; see `ssm_text.pretrained.save`.

        Raises:
            ConfigError: a model that the format cannot express.
        """
        from ssm_text.pretrained import save

        save(self, Path(folder), format)


def build_mamba_lm(config: MambaLMConfig, info: DataInfo) -> MambaLM:
    """A model for the vocabulary of a data set.

    Raises:
        ConfigError: `vocab_size` is given and too small for the data.
    """
    if config.vocab_size is None:
        config = replace(config, vocab_size=info.n_outputs)
    elif config.vocab_size < info.n_outputs:
        raise ConfigError(
            f"model.vocab_size is {config.vocab_size}, but the data have {info.n_outputs} tokens; "
            "leave it out or give at least these"
        )
    return MambaLM(config)
