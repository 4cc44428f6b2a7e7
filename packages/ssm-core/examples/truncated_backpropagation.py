"""Train on long streams piece by piece: truncated backpropagation through time.

    python truncated_backpropagation.py [MIXER]        any causal layer of `ssm-train list mixers`

A stream of random signs is summed up, s[t] = 0.99 s[t-1] + 0.1 x[t]: half of a sum is older than
69 steps (0.99^69 = 1/2), and a piece has 32. Each piece continues from the state of the one before
it, cut from its graph by `detach_state`, so that the graph does not grow with the stream.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ssm_core import build_mixer, detach_state

WIDTH, BATCH, PIECES, STEPS = 32, 16, 16, 32


def stream() -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the pieces of new streams: inputs and targets (b, l, 1)."""
    total = torch.zeros(BATCH, 1)
    for _ in range(PIECES):
        x = torch.randint(2, (BATCH, STEPS, 1)) * 2.0 - 1
        sums = []
        for x_t in x.unbind(1):
            total = 0.99 * total + 0.1 * x_t
            sums.append(total)
        yield x, torch.stack(sums, dim=1)


class Summation(nn.Module):
    """One layer of the package between two linear maps."""

    def __init__(self, mixer: str) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(1, WIDTH), nn.Linear(WIDTH, 1)
        self.mixer = build_mixer(mixer, WIDTH)

    def forward(self, x: Tensor, state: object) -> tuple[Tensor, object]:
        """Return the sums (b, l, 1) and the state to go on from; None starts anew."""
        y, state = self.mixer(self.encode(x), state, return_state=True)
        return self.decode(y), state


@torch.no_grad()
def evaluate(model: Summation, carry: bool) -> float:
    """Mean squared error on new streams, with or without the state of the piece before."""
    state, losses = None, []
    for x, target in stream():
        y, state = model(x, state if carry else None)
        losses.append((y - target).square().mean())
    return torch.stack(losses).mean().item()


def main(arguments: list[str] | None = None) -> tuple[float, float]:
    """Train; print and return the errors with and without carried states."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("mixer", nargs="?", default="s5")
    parser.add_argument("--rounds", type=int, default=30, help="streams to train on")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    model = Summation(options.mixer)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for i in range(options.rounds):
        state, losses = None, []
        for x, target in stream():
            y, state = model(x, state)
            loss = (y - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            state = detach_state(state)  # its value goes on, its graph ends
            losses.append(loss.item())
        if i % 5 == 0 or i == options.rounds - 1:
            print(f"stream {i:3}  mean squared error {sum(losses) / PIECES:.4f}")
    carried, forgotten = evaluate(model, carry=True), evaluate(model, carry=False)
    print(f"on new streams: {carried:.4f} with the state carried on, {forgotten:.4f} without")
    return carried, forgotten


if __name__ == "__main__":
    main()
