"""State space layers, plugin host and training engine.

Importing this package imports torch and the layers, never the training engine's libraries.
"""

from __future__ import annotations

from ssm_core.config import make_config
from ssm_core.errors import SsmError
from ssm_core.hookspecs import hookimpl, hookspec
from ssm_core.layers.attention import Attention, AttentionConfig
from ssm_core.layers.bimamba import BiMamba, BiMambaConfig
from ssm_core.layers.mamba import Mamba, MambaConfig
from ssm_core.layers.mamba2 import Mamba2
from ssm_core.layers.mamba2_config import Mamba2Config
from ssm_core.layers.mamba3 import Mamba3
from ssm_core.layers.mamba3_config import Mamba3Config
from ssm_core.layers.protocol import SequenceLayer, detach_state
from ssm_core.layers.rnn import RNN, RNNConfig
from ssm_core.layers.s4 import S4, S4Config
from ssm_core.layers.s4d import S4D, S4DConfig
from ssm_core.layers.s5 import S5
from ssm_core.layers.s5_config import S5Config
from ssm_core.mixers import build_mixer
from ssm_core.official import from_official
from ssm_core.plugins import PluginHost, plugin_host
from ssm_core.specs import (
    BenchmarkSpec,
    CommandSpec,
    DataBundle,
    DataInfo,
    DatasetSpec,
    ExportSpec,
    ExtensionSpec,
    MixerSpec,
    ModelSpec,
    Picture,
    RecipeSpec,
    Remark,
    TaskSpec,
    recipes_in,
)
from ssm_core.task import Task
from ssm_core.tower import Tower, TowerConfig

__version__ = "0.1.0"

__all__ = [
    "RNN",
    "S4",
    "S4D",
    "S5",
    "Attention",
    "AttentionConfig",
    "BenchmarkSpec",
    "BiMamba",
    "BiMambaConfig",
    "CommandSpec",
    "DataBundle",
    "DataInfo",
    "DatasetSpec",
    "ExportSpec",
    "ExtensionSpec",
    "Mamba",
    "Mamba2",
    "Mamba2Config",
    "Mamba3",
    "Mamba3Config",
    "MambaConfig",
    "MixerSpec",
    "ModelSpec",
    "Picture",
    "PluginHost",
    "RNNConfig",
    "RecipeSpec",
    "Remark",
    "S4Config",
    "S4DConfig",
    "S5Config",
    "SequenceLayer",
    "SsmError",
    "Task",
    "TaskSpec",
    "Tower",
    "TowerConfig",
    "build_mixer",
    "detach_state",
    "from_official",
    "hookimpl",
    "hookspec",
    "make_config",
    "plugin_host",
    "recipes_in",
]
