"""2:4 sparsity: two zeros in every four consecutive inputs, which sparse tensor cores skip.

PyTorch multiplies with such matrices on CUDA devices of compute capability 8.0 or newer, in half
precision, after `torch.sparse.to_sparse_semi_structured`; see its documentation for the formats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ssm_core.errors import SsmError
from ssm_prune.errors import PruneError
from ssm_prune.policy import Verdict

GROUP, KEPT = 4, 2
#: (rows, columns) must be multiples of these in float16 and bfloat16, with CUTLASS
ROWS, COLUMNS = 32, 64
CAPABILITY = (8, 0)
NOTE = (
    "masked: the file is dense and takes as long. On a CUDA device of compute capability 8.0 or "
    "newer convert the matrices with torch.sparse.to_sparse_semi_structured in float16 or bfloat16 "
    "after loading, and keep what you measured to be faster."
)


def eligible(model: nn.Module, verdicts: Mapping[str, Verdict]) -> list[str]:
    """The matrices (out, in) that can have the pattern: 4 divides `in`, half may be removed."""
    return [
        name
        for name, p in model.named_parameters()
        if p.ndim == 2 and p.shape[1] % GROUP == 0 and verdicts[name].limit(2) >= 1
    ]


def check_pattern(model: nn.Module, matrices: Sequence[str]) -> None:
    """Check that every group of four consecutive inputs has two zeros at least.

    Raises:
        PruneError: there is no such matrix, or some lack the pattern; names them.
    """
    if not matrices:
        raise PruneError("the model has no matrix that can be 2:4 sparse")
    lacking = []
    for name in matrices:
        groups = model.get_parameter(name).detach().unflatten(1, (-1, GROUP))
        wrong = int((groups.count_nonzero(dim=2) > KEPT).sum())
        if wrong:
            lacking.append(f"{name} ({wrong} of {groups.shape[0] * groups.shape[1]} groups)")
    if lacking:
        raise PruneError(
            f"not 2:4 sparse: {', '.join(lacking[:4])}{', ...' if len(lacking) > 4 else ''}; "
            "expected at most 2 of 4 consecutive inputs: train with --prune n:m"
        )


def fit(weight: Tensor) -> str:
    """Whether PyTorch's format takes a matrix of this shape."""
    if weight.shape[0] % ROWS or weight.shape[1] % COLUMNS:
        return f"stays dense: shape is no multiple of {ROWS}x{COLUMNS}"
    return "can be converted"


def require_device() -> None:
    """Check that this machine and this PyTorch can convert.

    Raises:
        PruneError: says what is missing.
    """
    needs = "conversion to 2:4 needs a CUDA device of compute capability 8.0 or newer"
    if not torch.cuda.is_available():
        raise PruneError(f"{needs}, this machine has none: leave out --convert")
    if torch.cuda.get_device_capability() < CAPABILITY:
        found = ".".join(map(str, torch.cuda.get_device_capability()))
        raise PruneError(f"{needs}, this one has {found}: leave out --convert")
    if not hasattr(torch.sparse, "to_sparse_semi_structured"):
        raise SsmError(f"PyTorch {torch.__version__} has no 2:4 sparse tensors: use 2.6 or newer")


def conversion(weight: Tensor) -> str:
    """Convert a matrix to bfloat16 2:4 on the CUDA device and compare its product; tells how."""
    if weight.shape[0] % ROWS or weight.shape[1] % COLUMNS:
        return fit(weight)
    dense = weight.to("cuda", torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(COLUMNS, weight.shape[1], generator=generator).to(dense)
    try:
        sparse = torch.sparse.to_sparse_semi_structured(dense)
        found = nn.functional.linear(x, sparse).float()
    except (RuntimeError, NotImplementedError, ValueError) as error:
        return f"stays dense: {' '.join(str(error).split())[:80]}"
    expected = nn.functional.linear(x, dense).float()
    error_size = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
    return f"converted, largest error of a product {error_size:.1e} of the largest value"
