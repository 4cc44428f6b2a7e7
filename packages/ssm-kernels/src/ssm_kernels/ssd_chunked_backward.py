"""Gradients of the chunked SSD scan: the states are computed again, then carried back.

Notation as in `ssd_chunked`; `g_` is the gradient of what follows, `G` the products of two steps'
inputs and gradients, step[j] x[j] . g_y[i].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .checks import compute_dtype
from .ssd_chunked import (
    Times,
    carry,
    chunk_states,
    columns,
    decays,
    finish,
    first_states,
    from_states,
    heads_first,
    inner_products,
    make_chunks,
    make_times,
    outputs,
    per_head,
    step_sizes,
)

if TYPE_CHECKING:
    from .ssd_scan_autograd import SsdOptions

Gradients = tuple[Tensor | None, ...]


def backward(
    grad_y: Tensor,
    grad_final_state: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial_state: Tensor | None,
    *,
    options: SsdOptions,
    lengths: list[int] | None,
) -> Gradients:
    """Return the gradients of x, dt, A, B, C, D, z, dt_bias and the initial state."""
    dtype, h = compute_dtype(x), x.shape[2]
    count = x.shape[0] if lengths is None else len(lengths)
    g_state = first_states(x, B, grad_final_state, count)
    if x.shape[0] * x.shape[1] * h == 0:
        zeros = (
            None if m is None else torch.zeros_like(m) for m in (x, dt, A, B, C, D, z, dt_bias)
        )
        return *zeros, g_state

    chunks = make_chunks(x, lengths, options)
    raw, step = step_sizes(dt, dt_bias, options)
    times = make_times(chunks.split(step, dtype), A)
    X, B_, C_ = (chunks.split(m, dtype) for m in (x, B, C))
    states = chunk_states(X, times.step * times.to_end, B_)
    state = first_states(x, B, initial_state, count)
    carry(chunks, states, times.whole, state, back=False)

    g_y = grad_y.to(dtype)
    grad_z = None
    if z is not None:
        wide = z.to(dtype)
        gate = torch.sigmoid(wide)
        plain = outputs(chunks, X, times, B_, C_, states)
        plain = finish(chunks.join(plain), x.to(dtype), D, None)
        grad_z = plain.mul_(g_y).mul_(gate * (1 + wide * (1 - gate))).to(z.dtype)
        g_y = g_y * (wide * gate)

    G_y = chunks.split(g_y, dtype)
    g_states = chunk_states(G_y, times.since_start, C_)
    carry(chunks, g_states, times.whole, g_state, back=True)
    found = [
        _part(
            Inputs(X[s], B_[s], C_[s], states[s], G_y[s], g_states[s]),
            Times(*(t[s] for t in times)),
        )
        for s in chunks.parts(h)
    ]
    g_x, g_B, g_C, g_step, g_log = (torch.cat(column) for column in zip(*found, strict=True))

    grad_x = chunks.join(g_x)
    grad_D = None
    if D is not None:
        skip = D if D.dim() == 2 else D.unsqueeze(-1)
        grad_x = grad_x.addcmul_(skip, g_y)
        grad_D = (g_y * x.to(dtype)).sum((0, 1) if D.dim() == 2 else (0, 1, 3))
    grad_step = chunks.join((g_step + g_log * A.unsqueeze(-1)).transpose(1, 2))
    grad_raw = through_limits(grad_step, raw, options)
    return (
        grad_x.to(x.dtype).contiguous(),
        grad_raw.to(dt.dtype).contiguous(),
        (g_log * times.step).sum((0, 2)),
        chunks.join(g_B).to(B.dtype).contiguous(),
        chunks.join(g_C).to(C.dtype).contiguous(),
        grad_D,
        grad_z,
        None if dt_bias is None else grad_raw.sum((0, 1)),
        g_state,
    )


class Inputs(NamedTuple):
    """Of some chunks: (c, q, h, p), (c, q, g, n) twice, (c, h, p, n), and two gradients."""

    X: Tensor
    B: Tensor
    C: Tensor
    states: Tensor  # before the chunk
    g_y: Tensor
    g_states: Tensor  # after the chunk


def _part(inputs: Inputs, times: Times) -> tuple[Tensor, ...]:
    """Gradients of x, B, C (c, q, ...), and of step sizes and logarithms of decays (c, h, q)."""
    X, B, C, states, g_y, g_states = inputs
    g = B.shape[2]
    L = decays(times.log)  # [j, i], as all that follow
    heads_g_y = g_y.transpose(1, 2).contiguous()  # (c, h, q, p)
    L_CB = (per_head(L, g) * inner_products(B, C)).flatten(1, 2)
    G = heads_first(X, times.step) @ heads_g_y.transpose(-1, -2)
    later = from_states(g_states, B) * columns(times.to_end)  # x -> state -> later chunks
    g_driven = (L_CB @ heads_g_y).transpose(1, 2) + later  # of step x
    g_x = g_driven * columns(times.step)

    groups = _over_heads(L.mul_(G), g)
    g_C = (groups.transpose(-1, -2) @ B.transpose(1, 2)).transpose(1, 2) + _state_sums(
        states, g_y, times.since_start, C
    )
    weights = times.to_end * times.step
    g_B = (groups @ C.transpose(1, 2)).transpose(1, 2) + _state_sums(g_states, X, weights, B)

    # A decay at step k is on the way from every earlier step (or state) to every later one: sums
    # over i >= k, by cumsum from the end, of j < k.
    E = L_CB.mul_(G).flip(-1).cumsum_(-1)
    earlier = torch.ones_like(E[0, 0], dtype=torch.bool).triu(1).flip(-1)  # [j, q - 1 - k]
    crossing = E.masked_fill_(~earlier, 0.0).sum(-2).flip(-1)
    from_before = (from_states(states, C) * g_y).sum(-1).transpose(1, 2) * times.since_start
    to_after = (later * X).sum(-1).transpose(1, 2) * times.step
    through = (states * g_states).sum((-1, -2)) * times.whole
    g_log = (
        crossing
        + from_before.flip(-1).cumsum(-1).flip(-1)
        + F.pad(to_after, (1, 0))[..., :-1].cumsum(-1)
        + through.unsqueeze(-1)
    )
    g_step = (g_driven * X).sum(-1).transpose(1, 2)
    return g_x, g_B, g_C, g_step, g_log


def _over_heads(M: Tensor, g: int) -> Tensor:
    """The sum over the heads of each group: (c, h, ...) -> (c, g, ...)."""
    return M if M.shape[1] == g else M.unflatten(1, (g, -1)).sum(2)


def _state_sums(S: Tensor, X: Tensor, weights: Tensor, like: Tensor) -> Tensor:
    """The sum over p and the heads of a group of weights x S: (c, q, g, n)."""
    c, q, h, p = X.shape
    g, n = like.shape[2:]
    rows = (X * columns(weights)).reshape(c, q, g, (h // g) * p).transpose(1, 2)
    return (rows @ S.view(c, g, (h // g) * p, n)).transpose(1, 2)


def through_limits(grad_step: Tensor, raw: Tensor, options: SsdOptions) -> Tensor:
    """The gradient of what the softplus is taken of, of that of the step sizes, (b, l, h) each."""
    step = F.softplus(raw) if options.dt_softplus else raw
    outside = (step < options.dt_min) | (step > options.dt_max)
    grad = grad_step.masked_fill(outside, 0.0)
    if not options.dt_softplus:
        return grad
    return torch.where(raw > 20, grad, grad * torch.sigmoid(raw))
