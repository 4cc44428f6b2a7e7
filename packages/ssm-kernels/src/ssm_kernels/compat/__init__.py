"""Stand-ins for mamba_ssm, causal_conv1d and the selective_scan_cuda extensions, on request.

    import ssm_kernels.compat

    ssm_kernels.compat.install()
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # this package's kernels

or, with a script that stays as it is:

    python -m ssm_kernels.compat train.py --epochs 3

After `install()` an `import` of `mamba_ssm`, `causal_conv1d`, `causal_conv1d_cuda`,
`selective_scan_cuda`, `selective_scan_cuda_core` or `selective_scan_cuda_oflex` finds modules with
the original paths, names and signatures (those of mamba-ssm 2.3.2 and causal-conv1d 1.7.0, beside
them the older path of the norms and the additions of the Vim fork), computed by the operators of
ssm-kernels on the CPU and on CUDA alike. `importlib.util.find_spec("mamba_ssm")` finds them too.

- Nothing happens without the call. A package of that name that is installed or imported already
  is an error unless `replace_installed=True`; `uninstall()` takes the stand-ins away again.
- The module classes (`mamba_ssm.Mamba`, `MambaLMHeadModel`, ...) come from ssm-core and ssm-text,
  found through the entry points of the group `ssm_kernels.compat` (see `providers`). Without them
  asking for such a class says what to install.
- A name the stand-ins lack raises ImportError or AttributeError with the list of what is there.
- Not covered: `importlib.metadata.version("mamba-ssm")`, as no distribution of that name gets
  installed; and processes that start afresh instead of by fork (`multiprocessing` with "spawn"),
  where `install()` must be called again.
"""

from __future__ import annotations

from .errors import ShadowError
from .installer import install, uninstall

__all__ = ["ShadowError", "install", "uninstall"]
