"""What ssm-core itself offers, registered through the same hooks as anybody's plugin."""

from __future__ import annotations

from ssm_core.hookspecs import hookimpl
from ssm_core.layers.attention import Attention, AttentionConfig
from ssm_core.layers.bimamba import BiMamba, BiMambaConfig
from ssm_core.layers.mamba import Mamba, MambaConfig
from ssm_core.layers.mamba2 import Mamba2
from ssm_core.layers.mamba2_config import Mamba2Config
from ssm_core.layers.mamba3 import Mamba3
from ssm_core.layers.mamba3_config import Mamba3Config
from ssm_core.layers.rnn import RNN, RNNConfig
from ssm_core.layers.s4 import S4, S4Config
from ssm_core.layers.s4d import S4D, S4DConfig
from ssm_core.layers.s5 import S5
from ssm_core.layers.s5_config import S5Config
from ssm_core.specs import MixerSpec


@hookimpl
def ssm_register_mixers() -> list[MixerSpec]:
    return [
        MixerSpec("mamba", MambaConfig, Mamba, "Mamba (S6), causal"),
        MixerSpec("bimamba", BiMambaConfig, BiMamba, "Mamba in both directions"),
        MixerSpec("s4", S4Config, S4, "S4, diagonal plus low rank, with a convolution mode"),
        MixerSpec("s4d", S4DConfig, S4D, "S4D, a diagonal S4 with a convolution mode"),
        MixerSpec("mamba2", Mamba2Config, Mamba2, "Mamba-2 (SSD), causal"),
        MixerSpec("mamba3", Mamba3Config, Mamba3, "Mamba-3 (SISO), causal"),
        MixerSpec("s5", S5Config, S5, "S5, one diagonal model for all channels, causal or not"),
        MixerSpec("rnn", RNNConfig, RNN, "Elman RNN (torch.nn.RNN), the classic baseline"),
        MixerSpec("attention", AttentionConfig, Attention, "multi-head self-attention (SDPA)"),
        MixerSpec("transformer", AttentionConfig, Attention, "another name of attention"),
    ]
