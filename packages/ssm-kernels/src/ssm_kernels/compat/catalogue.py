"""Which original module holds which names, and where they are implemented."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

VERSIONS = {"mamba_ssm": "2.3.2.post1", "causal_conv1d": "1.7.0"}
"""Whose names, signatures and behaviour are followed."""

_SELECTIVE_SCAN = ("SelectiveScanFn", "selective_scan_fn", "selective_scan_ref")
_INNER = ("mamba_inner_fn", "mamba_inner_fn_no_out_proj", "mamba_inner_ref")
_BOTH_WAYS = ("bimamba_inner_fn", "bimamba_inner_ref")
_CONV = ("causal_conv1d_fn", "causal_conv1d_ref")
_CONV_UPDATE = ("causal_conv1d_update", "causal_conv1d_update_ref")
_NORMS = ("RMSNorm", "layer_norm_fn", "layer_norm_linear_fn", "rms_norm_fn")

FUNCTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "mamba_ssm": {
        "selective_scan": ("selective_scan_fn",),
        "mamba_inner": ("mamba_inner_fn",),
        "bimamba_inner": ("bimamba_inner_fn",),  # exported at the top by the Vim fork
    },
    "mamba_ssm.ops.selective_scan_interface": {
        "selective_scan": _SELECTIVE_SCAN,
        "mamba_inner": _INNER,
        "bimamba_inner": _BOTH_WAYS,
        "conv_interface": ("causal_conv1d_fn",),
    },
    "mamba_ssm.ops.triton.selective_state_update": {
        "state_update": ("selective_state_update", "selective_state_update_ref"),
    },
    "mamba_ssm.ops.triton.ssd_combined": {
        "ssd_combined": (
            "mamba_chunk_scan",
            "mamba_chunk_scan_combined",
            "ssd_chunk_scan_combined_ref",
        ),
        "ssd_split": ("mamba_split_conv1d_scan_combined",),
        # private there, but other projects build Functions of their own from them
        "ssd_raw": ("_mamba_chunk_scan_combined_bwd", "_mamba_chunk_scan_combined_fwd"),
    },
    "mamba_ssm.modules.ssd_minimal": {
        "ssd_minimal": ("segsum", "segsum_unstable", "ssd_minimal_discrete"),
    },
    "mamba_ssm.ops.triton.layer_norm": {
        "layer_norm": _NORMS,
        "layer_norm_raw": ("_layer_norm_fwd",),
    },
    "mamba_ssm.ops.triton.layernorm": {"layernorm": _NORMS},
    "mamba_ssm.ops.triton.layernorm_gated": {
        "layernorm_gated": ("LayerNorm", "RMSNorm", "layernorm_fn", "rmsnorm_fn"),
        "layernorm_gated_raw": ("_layer_norm_bwd", "_layer_norm_fwd", "rms_norm_ref"),
    },
    "mamba_ssm.utils.torch": {"utils_torch": ("custom_bwd", "custom_fwd")},
    "mamba_ssm.distributed.tensor_parallel": {
        "distributed": ("ColumnParallelLinear", "RowParallelLinear"),
    },
    "mamba_ssm.distributed.distributed_utils": {"distributed": ("all_reduce", "reduce_scatter")},
    "causal_conv1d": {
        "conv_interface": ("causal_conv1d_fn",),
        "conv_update": ("causal_conv1d_update",),
    },
    "causal_conv1d.causal_conv1d_interface": {
        "conv_interface": _CONV,
        "conv_update": _CONV_UPDATE,
    },
    "causal_conv1d.causal_conv1d_varlen": {
        "conv_varlen": ("causal_conv1d_varlen_states", "causal_conv1d_varlen_states_ref"),
    },
    "causal_conv1d.cpp_functions": {
        "conv_functions": (
            "causal_conv1d_bwd_function",
            "causal_conv1d_fwd_function",
            "causal_conv1d_update_function",
        ),
    },
    "causal_conv1d_cuda": {
        "causal_conv1d_cuda": ("causal_conv1d_bwd", "causal_conv1d_fwd", "causal_conv1d_update"),
    },
    "selective_scan_cuda": {"selective_scan_cuda": ("bwd", "fwd")},
    "selective_scan_cuda_core": {"selective_scan_cuda_core": ("bwd", "fwd")},
    "selective_scan_cuda_oflex": {"selective_scan_cuda_oflex": ("bwd", "fwd")},
}
"""Original module -> module of this package -> names. A name is the same in both."""

_CORE: dict[str, tuple[str, ...]] = {
    "mamba_ssm": ("Mamba", "Mamba2", "Mamba3"),
    "mamba_ssm.modules.block": ("Block",),
    "mamba_ssm.modules.mamba2": ("Mamba2",),
    "mamba_ssm.modules.mamba2_simple": ("Mamba2Simple",),
    "mamba_ssm.modules.mamba3": ("Mamba3",),
    "mamba_ssm.modules.mamba_simple": ("Block", "Mamba"),
    "mamba_ssm.utils.generation": ("InferenceParams",),
}
_TEXT: dict[str, tuple[str, ...]] = {
    "mamba_ssm": ("MambaLMHeadModel",),
    "mamba_ssm.models.config_mamba": ("MambaConfig",),
    "mamba_ssm.models.mixer_seq_simple": ("MambaLMHeadModel", "MixerModel", "create_block"),
    "mamba_ssm.modules.mha": ("MHA",),
    "mamba_ssm.modules.mlp": ("GatedMLP",),
    "mamba_ssm.utils.generation": ("GenerationMixin", "decode", "sample", "update_graph_cache"),
    "mamba_ssm.utils.hf": ("load_config_hf", "load_state_dict_hf"),
}

ELSEWHERE: dict[tuple[str, str], str] = {
    (module, name): distribution
    for distribution, modules in (("ssm-core", _CORE), ("ssm-text", _TEXT))
    for module, names in modules.items()
    for name in names
}
"""Original module and name -> distribution that provides it through an entry point."""


def roots() -> tuple[str, ...]:
    """Return the top-level modules that the stand-ins cover, in alphabetical order."""
    return tuple(sorted({path.partition(".")[0] for path in FUNCTIONS}))


def root_version(root: str) -> str:
    """Return what `__version__` of a stand-in says: whose interface, and that it is not that one.

    The part after the plus is a local version by the rules of PEP 440: it compares as greater than
    the version alone, so checks for a least version pass.
    """
    return f"{VERSIONS.get(root, VERSIONS['mamba_ssm'])}+ssm_kernels.{version('ssm-kernels')}"


def who_provides(module: str, name: str) -> str | None:
    """Say where a name that belongs to another distribution comes from; None for other names."""
    distribution = ELSEWHERE.get((module, name))
    if distribution is None:
        return None
    try:
        installed = version(distribution)
    except PackageNotFoundError:
        return f"{module}.{name} needs {distribution}: pip install {distribution}"
    return (
        f"{module}.{name} should come from {distribution}, but the installed {installed} does not "
        f"provide it: pip install --upgrade {distribution}"
    )
