"""One step of the selective scan: ours, mamba-ssm's Triton kernel, PyTorch."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ssm_kernels import selective_state_update, selective_state_update_reference

from ..report import OURS
from . import floors
from .cases import Step
from .subject import Problem, Results, Subject, in_place

TRITON, PYTORCH = "mamba-ssm, Triton", "PyTorch"
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}


def problem(name: str, case: Step, dtype: torch.dtype, device: torch.device) -> Problem:
    b, d, n = case.b, case.d, case.n
    random = partial(torch.randn, device=device)
    x, dt, z = random(b, d).to(dtype), (0.5 * random(b, d)).to(dtype), random(b, d).to(dtype)
    A = -torch.arange(1.0, n + 1, device=device).repeat(d, 1)
    B, C = random(b, n).to(dtype), random(b, n).to(dtype)
    D, dt_bias = random(d), random(d) - 4
    state = random(b, d, n)

    def exact() -> Results:
        fresh = state.double()
        wide = (t.double() for t in (x, dt, A, B, C, D, z, dt_bias))
        y: Tensor = partial(selective_state_update_reference, dt_softplus=True)(fresh, *wide)
        return {"y": y, "state": fresh}

    def ours(state: Tensor) -> Tensor:
        return selective_state_update(state, x, dt, A, B, C, D, z, dt_bias, True)

    def pytorch(state: Tensor) -> Tensor:
        return selective_state_update_reference(state, x, dt, A, B, C, D, z, dt_bias, True)

    def triton() -> Subject:
        from mamba_ssm.ops.triton.selective_state_update import selective_state_update as update

        return in_place(
            TRITON, state, lambda s: update(s, x, dt, A, B, C, D, z, dt_bias, dt_softplus=True)
        )

    return Problem(
        name,
        exact,
        {
            OURS: lambda: in_place(OURS, state, ours),
            TRITON: triton,
            PYTORCH: lambda: in_place(PYTORCH, state, pytorch),
        },
        floors.step(case, dtype.itemsize),
        case.elements * n,
        TOLERANCE[dtype],
    )
