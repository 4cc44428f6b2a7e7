"""The modules of mamba_ssm and its vision forks on the layers of this package, under their names.

`ssm_kernels.compat` makes `import mamba_ssm` find them; nothing here does so by itself.
"""

from __future__ import annotations

from ssm_core.compat.block import Block, MixerBlock
from ssm_core.compat.cache import InferenceParams
from ssm_core.compat.mamba import Mamba
from ssm_core.compat.mamba2 import Mamba2
from ssm_core.compat.mamba2_simple import Mamba2Simple
from ssm_core.compat.mamba3 import Mamba3
from ssm_kernels.compat.layer_norm import RMSNorm, layer_norm_fn, rms_norm_fn

__all__ = ["compat_modules"]


def compat_modules() -> dict[str, dict[str, object]]:
    """Return original module path -> name there -> what stands for it."""
    # modules of the original have these too, and public code takes them from there
    norms = {"RMSNorm": RMSNorm, "layer_norm_fn": layer_norm_fn, "rms_norm_fn": rms_norm_fn}
    return {
        "mamba_ssm": {"Mamba": Mamba, "Mamba2": Mamba2, "Mamba3": Mamba3},
        # the forks of hustvl/Vim and others are those of 1.x, with the block beside the mixer
        "mamba_ssm.modules.mamba_simple": {"Mamba": Mamba, "Block": MixerBlock, **norms},
        "mamba_ssm.modules.mamba2": {"Mamba2": Mamba2},
        "mamba_ssm.modules.mamba2_simple": {"Mamba2Simple": Mamba2Simple},
        "mamba_ssm.modules.mamba3": {"Mamba3": Mamba3},
        "mamba_ssm.modules.block": {"Block": Block, **norms},
        "mamba_ssm.utils.generation": {"InferenceParams": InferenceParams},
    }
