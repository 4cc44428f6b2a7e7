"""The recurrence of a diagonal plus low-rank model over a sequence, from states and to states.

Abar is not diagonal, so no element-wise scan will do. The sequence is cut into chunks of q steps:

    within a chunk      y = T u + G s            T the first q steps of K as a Toeplitz matrix
    to the next chunk   s' = Abar^q s + F u      F = Abar^(q-1-j) Bbar, G = C Abar^(j+1)

everything dense products per feature, with tables that `chunk_tables` makes by doubling.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ssm_core.layers.dplr import Discrete, as_column, as_row, from_column
from ssm_kernels.errors import SsmError

#: Steps per chunk at most. With the default 64 states all products of a chunk cost about the same.
LONGEST_CHUNK = 64
#: Chunks are walked one after the other up to this many, beyond it in groups of so many.
_GROUP = 16
#: Chunks in a traced graph at most: they are grouped once, with groups to spare.
_TRACED_CHUNKS = _GROUP * (_GROUP - 2)
_TRACED_STEPS = LONGEST_CHUNK * (_TRACED_CHUNKS - 1) - 1


class TracedLengthError(SsmError, RuntimeError):
    """More steps than a compiled graph can have."""


class ChunkTables(NamedTuple):
    """What a chunk of q steps needs, real."""

    toeplitz: Tensor
    """(h, c q, q): inputs to outputs."""
    outputs: Tensor
    """(h, c q, N): the state before the chunk to outputs."""
    inputs: Tensor
    """(h, N, q): inputs to the state after the chunk."""
    powers: list[Tensor]
    """Abar^(2^i) (h, N, N) for 2^i = 1, 2, .., q."""


def chunk_tables(model: Discrete, A: Tensor, C: Tensor, q: int, dtype: torch.dtype) -> ChunkTables:
    """Make the tables for chunks of q steps, q a power of two, in double precision; round to dtype.

    Args:
        A: (h, N, N) Abar.
        C: (c, h, n) the true C.
    Cost: O(h N^3 log q) time.
    """
    powers, columns, rows = [A], as_column(model.Bbar).unsqueeze(-1), as_row(C).movedim(0, 1)
    c = rows.shape[1]
    rows = (rows @ A).unsqueeze(2)  # (h, c, 1, N): C Abar
    first = (as_row(C).movedim(0, 1) @ columns).unsqueeze(2)  # (h, c, 1, 1): C Bbar
    while columns.shape[-1] < q:
        last = powers[-1]
        columns = torch.cat([columns, last @ columns], dim=-1)
        rows = torch.cat([rows, rows @ last.unsqueeze(1)], dim=2)
        powers.append(last @ last)
    kernel = torch.cat([first, rows[:, :, :-1] @ columns[:, None, :, :1]], dim=2).squeeze(-1)
    j = torch.arange(q, device=A.device)
    lag = j.unsqueeze(1) - j
    toeplitz = torch.where(lag >= 0, kernel[..., lag.clamp(min=0)], 0)
    return ChunkTables(
        toeplitz.reshape(-1, c * q, q).to(dtype),
        rows.reshape(rows.shape[0], c * q, -1).to(dtype),
        columns.flip(-1).to(dtype),
        [matrix.to(dtype) for matrix in powers],
    )


def chunk_length(l: int) -> int:
    """Return the steps per chunk for sequences of l steps."""
    if torch.compiler.is_compiling():
        return LONGEST_CHUNK
    return min(LONGEST_CHUNK, 2 ** l.bit_length())


def scan_chunks(
    tables: ChunkTables, u: Tensor, state: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Run u (b, l, h), of which the first `lengths` (b,) steps count, from the states (b, h, n).

    Returns:
        y (b, l, c, h), meaningless beyond the lengths, and the states (b, h, n) after them.

    Cost: O(b l h (q c + N c + N + N^2 / q)) time.
    """
    (b, l, h), q = u.shape, tables.inputs.shape[-1]
    # one step of padding at least, so that each sequence ends inside a chunk
    m = l // q + 1 + _spare()
    u = F.pad(u, (0, 0, 0, m * q - l)).unflatten(1, (m, q))
    chunks = u.permute(3, 2, 0, 1).reshape(h, q, b * m)
    arriving = (tables.inputs @ chunks).unflatten(-1, (b, m))  # (h, N, b, m)
    column = as_column(state).permute(1, 2, 0)  # (h, N, b)
    before = _states_before(tables.powers[-1], arriving, column, _levels(m))  # (h, N, b, m)
    y = tables.toeplitz @ chunks + tables.outputs @ before.flatten(2)  # (h, c q, b m)
    y = y.unflatten(-1, (b, m)).unflatten(1, (-1, q))  # (h, c, q, b, m)
    y = y.permute(3, 4, 2, 1, 0).flatten(1, 2)[:, :l]
    final = _after_the_last_chunk(tables, u, before, lengths)
    return y, from_column(final.permute(2, 0, 1))


def _spare() -> int:
    """Return how many chunks or groups to add: compilers take an axis of 1 for a special case."""
    return 1 if torch.compiler.is_compiling() else 0


def _levels(m: int) -> int:
    """Return how often m chunks are grouped; a traced graph has one answer for all m."""
    if torch.compiler.is_compiling():
        if m > _TRACED_CHUNKS:
            raise TracedLengthError(
                f"S4: more than {_TRACED_STEPS} steps in a compiled graph with states, expected at "
                "most so many; run a longer sequence in pieces"
            )
        return 1
    levels = 0
    while m > 2 * _GROUP:
        m, levels = -(-m // _GROUP), levels + 1
    return levels


def _states_before(A: Tensor, arriving: Tensor, start: Tensor, levels: int) -> Tensor:
    """Return s[0..m-1] (h, N, b, m) of s[k+1] = A s[k] + arriving[k] with s[0] = start (h, N, b).

    Many chunks are taken in groups: first what arrives in each from zero, then (this function
    again) the states before each group, and last those in all groups at once.
    """
    m = arriving.shape[-1]
    if levels == 0:
        if torch.compiler.is_compiling():  # a loop needs to know how often
            arriving = F.pad(arriving, (0, _GROUP - m))
        return torch.stack(_walk(A, arriving, start)[:-1], dim=-1)[..., :m]
    b, groups = arriving.shape[2], -(-m // _GROUP) + _spare()
    grouped = F.pad(arriving, (0, groups * _GROUP - m)).unflatten(-1, (groups, _GROUP))
    grouped = grouped.flatten(2, 3)  # (h, N, b groups, 16)
    ends = _walk(A, grouped, torch.zeros_like(grouped[..., 0]))[-1].unflatten(2, (b, groups))
    A_group = A
    for _ in range(_GROUP.bit_length() - 1):
        A_group = A_group @ A_group
    starts = _states_before(A_group, ends, start, levels - 1).flatten(2)
    states = torch.stack(_walk(A, grouped, starts)[:-1], dim=-1)
    return states.unflatten(2, (b, groups)).flatten(3)[..., :m]


def _walk(A: Tensor, arriving: Tensor, state: Tensor) -> list[Tensor]:
    """Return the states (h, N, b) before each of the steps and after the last."""
    states = [state]
    for one in arriving.unbind(-1):
        states.append(torch.baddbmm(one, A, states[-1]))
    return states


def _after_the_last_chunk(
    tables: ChunkTables, u: Tensor, before: Tensor, lengths: Tensor
) -> Tensor:
    """Return the states (h, N, b) after `lengths` (b,) steps of u (b, m, q, h)."""
    q = u.shape[2]
    sequence = torch.arange(u.shape[0], device=u.device)
    chunk, rest = lengths // q, lengths % q
    state = before[:, :, sequence, chunk]  # (h, N, b)
    for i, matrix in enumerate(tables.powers[:-1]):  # Abar^rest
        taken = (rest >> i) & 1
        state = torch.where(taken.bool(), matrix @ state, state)
    # the last `rest` inputs, moved to the end of the chunk
    source = torch.arange(q, device=u.device) + rest.unsqueeze(1) - q  # (b, q)
    last = u[sequence.unsqueeze(1), chunk.unsqueeze(1), source.clamp(min=0)]  # (b, q, h)
    last = torch.where(source.unsqueeze(-1) >= 0, last, 0)
    return state + tables.inputs @ last.permute(2, 1, 0)
