"""The SSD scan as products of matrices, a chunk of steps at a time, in plain PyTorch.

Inside a chunk, y = (L * C B^T) dt x with L[i, j] the decay from step j to step i; between chunks
the state is carried. All decays are exponentials of sums of terms of one sign, never of a
difference of two sums, which would lose digits.

The steps of all sequences are laid out as chunks (c, q, ...) in the order of time, the last chunk
of a sequence filled up with steps that do nothing (step size 0). Shapes in comments: c chunks of q
steps, h heads in g groups, p channels, n states.

Source: Dao & Gu 2024, arXiv:2405.21060, Section 6 and Listing 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .checks import compute_dtype

if TYPE_CHECKING:
    from .ssd_scan_autograd import SsdOptions

CHUNK = 64
#: Numbers in the (q, q) matrices that exist at one time: few enough for the caches.
_NUMBERS_AT_ONCE = 1 << 18


#: rows of a tensor: a slice, which copies nothing, where they lie at equal distances
Places = Tensor | slice


@dataclass(frozen=True)
class Chunks:
    """Where the steps of all sequences lie in their chunks.

    Attributes:
        shape: (b, l) of the steps.
        count, size: c and q.
        slots: (b l,) place of each step among the c q places; None if they are the same.
        rounds: (sequences, chunks) that can be carried at the same time, one after another.
    """

    shape: tuple[int, int]
    count: int
    size: int
    slots: Tensor | None
    rounds: list[tuple[Places, Places]]

    def split(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """(b, l, ...) as (c, q, ...), zeros where there is no step."""
        rows = x.to(dtype).flatten(0, 1)
        if self.slots is not None:
            places = rows.new_zeros(self.count * self.size, *rows.shape[1:])
            rows = places.index_copy_(0, self.slots, rows)
        return rows.view(self.count, self.size, *rows.shape[1:])

    def join(self, x: Tensor) -> Tensor:
        """(c, q, ...) as (b, l, ...)."""
        rows = x.flatten(0, 1)
        if self.slots is not None:
            rows = rows.index_select(0, self.slots)
        return rows.view(*self.shape, *rows.shape[1:])

    def parts(self, heads: int) -> list[slice]:
        """Chunks to work on at one time."""
        together = max(1, _NUMBERS_AT_ONCE // max(1, heads * self.size * self.size))
        return [slice(i, i + together) for i in range(0, self.count, together)]


def make_chunks(x: Tensor, lengths: list[int] | None, options: SsdOptions) -> Chunks:
    """Lay out the steps of x (b, l, ...), with `lengths` those of packed sequences."""
    b, l = x.shape[:2]
    sequences = [l] * b if lengths is None else lengths
    q = min(options.chunk_size or CHUNK, max(1, *sequences)) if sequences else 1
    lengths_, device = torch.tensor(sequences, dtype=torch.int64), x.device
    chunks = (lengths_ + q - 1) // q
    first = chunks.cumsum(0) - chunks  # of each sequence
    most = int(chunks.max()) if sequences else 0
    rounds: list[tuple[Places, Places]] = []
    for k in range(most):
        alive = (chunks > k).nonzero().squeeze(1)
        rounds.append((alive.to(device), (first[alive] + k).to(device)))
    if bool((chunks == most).all()):
        rounds = [(slice(None), slice(k, None, most)) for k in range(most)]

    slots = None
    if options.reverse or not bool((lengths_ % q == 0).all()):
        starts = (lengths_.cumsum(0) - lengths_).repeat_interleave(lengths_)
        within = torch.arange(b * l) - starts  # its sequence
        if options.reverse:
            within = lengths_.repeat_interleave(lengths_) - 1 - within
        slots = (first.repeat_interleave(lengths_) * q + within).to(device)
    return Chunks((b, l), int(chunks.sum()), q, slots, rounds)


class Times(NamedTuple):
    """Step sizes and what they make of a state, (c, h, q) each."""

    step: Tensor
    log: Tensor  # of the decay of one step
    since_start: Tensor  # decay from the start of the chunk to after the step
    to_end: Tensor  # decay from after the step to the end of the chunk

    @property
    def whole(self) -> Tensor:
        """The decay of the chunk, (c, h)."""
        return self.since_start[..., -1]


def step_sizes(dt: Tensor, dt_bias: Tensor | None, options: SsdOptions) -> tuple[Tensor, Tensor]:
    """Return what the softplus is taken of and the step sizes, (b, l, h) in the compute type."""
    raw = dt.to(compute_dtype(dt))
    if dt_bias is not None:
        raw = raw + dt_bias
    step = F.softplus(raw) if options.dt_softplus else raw
    return raw, step.clamp(options.dt_min, options.dt_max)


def make_times(step: Tensor, A: Tensor) -> Times:
    """Take the step sizes (c, q, h) and A (h,)."""
    step = step.transpose(1, 2).contiguous()
    log = step * A.unsqueeze(-1)
    after = F.pad(log[..., 1:], (0, 1)).flip(-1).cumsum(-1).flip(-1)
    return Times(step, log, log.cumsum(-1).exp(), after.exp())


def decays(log: Tensor) -> Tensor:
    """Decays (c, h, j, i) from step j to step i, 0 for i < j, of logarithms per step (c, h, q)."""
    q = log.shape[-1]
    later = torch.ones(q, q, dtype=torch.bool, device=log.device).triu(1)  # i > j
    sums = torch.where(later, log.unsqueeze(-2), log.new_zeros(())).cumsum_(-1)
    return sums.masked_fill_(later.t(), float("-inf")).exp_()


def chunk_states(X: Tensor, weights: Tensor, B: Tensor) -> Tensor:
    """Sum weights (c, h, q) times X (c, q, h, p) B^T (c, q, g, n) over steps: (c, h, p, n)."""
    c, q, h, p = X.shape
    g, n = B.shape[2:]
    scaled = X * columns(weights)
    rows = scaled.reshape(c, q, g, (h // g) * p).permute(0, 2, 3, 1)
    return (rows @ B.transpose(1, 2)).view(c, h, p, n)


def from_states(S: Tensor, C: Tensor) -> Tensor:
    """S C of every step: (c, h, p, n), (c, q, g, n) -> (c, q, h, p)."""
    c, h, p, n = S.shape
    q, g = C.shape[1:3]
    rows = S.view(c, g, (h // g) * p, n).transpose(-1, -2)
    return (C.transpose(1, 2) @ rows).transpose(1, 2).reshape(c, q, h, p)


def carry(chunks: Chunks, added: Tensor, whole: Tensor, state: Tensor, *, back: bool) -> Tensor:
    """Carry the state of each sequence through its chunks: state = whole state + added.

    `added` (c, h, p, n) is replaced by the state before each chunk. Returns the last states, in the
    memory of `state` (sequences, h, p, n). `back`: from the last chunk to the first.
    """
    for sequences, places in reversed(chunks.rounds) if back else chunks.rounds:
        before = state[sequences]
        after = torch.addcmul(added[places], whole[places][..., None, None], before)
        added[places] = before
        state[sequences] = after
    return state


def first_states(x: Tensor, B: Tensor, initial_state: Tensor | None, count: int) -> Tensor:
    """A fresh tensor (sequences, h, p, n) of the states before the first step."""
    if initial_state is not None:
        return initial_state.clone(memory_format=torch.contiguous_format)
    return x.new_zeros((count, *x.shape[2:], B.shape[3]), dtype=compute_dtype(x))


def forward(
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
) -> tuple[Tensor, Tensor]:
    """Return y and the final state; `lengths` are those of packed sequences."""
    count = x.shape[0] if lengths is None else len(lengths)
    state = first_states(x, B, initial_state, count)
    if x.shape[0] * x.shape[1] * x.shape[2] == 0:
        return x.new_empty(x.shape), state
    dtype = compute_dtype(x)
    chunks = make_chunks(x, lengths, options)
    times = make_times(chunks.split(step_sizes(dt, dt_bias, options)[1], dtype), A)
    X, B_, C_ = (chunks.split(m, dtype) for m in (x, B, C))
    states = chunk_states(X, times.step * times.to_end, B_)
    carry(chunks, states, times.whole, state, back=False)
    y = outputs(chunks, X, times, B_, C_, states)
    y = finish(chunks.join(y), x.to(dtype), D, None if z is None else z.to(dtype))
    return y.to(x.dtype).contiguous(), state


def outputs(
    chunks: Chunks, X: Tensor, times: Times, B: Tensor, C: Tensor, states: Tensor
) -> Tensor:
    """What the steps give, (c, q, h, p): from inside of their chunk and from the state before."""
    y = torch.empty_like(X, memory_format=torch.contiguous_format)
    for part in chunks.parts(X.shape[2]):
        step, log, since_start, _ = (t[part] for t in times)
        weights = decays(log)
        per_head(weights, B.shape[2]).mul_(inner_products(B[part], C[part]))
        inputs = heads_first(X[part], step)
        before = from_states(states[part], C[part]).mul_(columns(since_start))
        torch.add(before, (weights.transpose(-1, -2) @ inputs).transpose(1, 2), out=y[part])
    return y


def inner_products(B: Tensor, C: Tensor) -> Tensor:
    """B[j] . C[i] of the steps of a chunk, to multiply with `per_head`: (c, g, 1, j, i)."""
    return (B.transpose(1, 2) @ C.permute(0, 2, 3, 1)).unsqueeze(2)


def per_head(M: Tensor, g: int) -> Tensor:
    """A view of (c, h, q, q) by groups: (c, g, h/g, q, q)."""
    return M.unflatten(1, (g, M.shape[1] // g))


def heads_first(X: Tensor, weights: Tensor) -> Tensor:
    """X (c, q, h, p) times weights (c, h, q), contiguous as (c, h, q, p)."""
    c, q, h, p = X.shape
    return torch.mul(X.transpose(1, 2), weights.unsqueeze(-1), out=X.new_empty(c, h, q, p))


def columns(weights: Tensor) -> Tensor:
    """(c, h, q) -> (c, q, h, 1)."""
    return weights.transpose(1, 2).unsqueeze(-1)


def finish(y: Tensor, x: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    """Add the skip and apply the gate, in place."""
    if D is not None:
        y = y.addcmul_(D if D.dim() == 2 else D.unsqueeze(-1), x)
    return y if z is None else y.mul_(F.silu(z))
