"""The least time a GPU needs: bytes through its memory, exponentials, products of matrices.

Bytes count every tensor once, in its type; what a kernel keeps between its passes is not counted.
Exponentials count everything that runs on the special function units: per number of u one for each
state, two for the softplus, two for the gate. The floor of a pass is the slowest of the three; that
of forward and backward is the sum of both floors.
"""

from __future__ import annotations

from dataclasses import dataclass

from .cases import Conv, Diagonal, Scan, Ssd, Step

CHUNK = 128  # of SSD: shorter chunks have fewer exponentials and products, longer ones fewer states
BACKWARD_PRODUCTS = 2.5  # of SSD, in products of the forward pass


@dataclass(frozen=True)
class Rates:
    """What the GPU reaches, per second; `how` says where each figure is from."""

    bandwidth: float  # bytes read and written
    exponentials: float
    products: float  # floating-point operations in products of 16-bit matrices
    how: str


#: of one H200, for what cannot be measured: copy; 16 per clock and multiprocessor at 1.83 GHz
ASSUMED = Rates(4.3e12, 3.86e12, 4.0e14, "assumed of an H200")


@dataclass(frozen=True)
class Work:
    """What one pass cannot avoid."""

    moved_bytes: float
    exponentials: float = 0.0
    operations: float = 0.0

    def seconds(self, rates: Rates) -> float:
        return max(
            self.moved_bytes / rates.bandwidth,
            self.exponentials / rates.exponentials,
            self.operations / rates.products,
        )


#: pass -> work; for forward+backward the floors are added
Works = dict[str, Work]


def floor_s(works: Works, what: str, rates: Rates) -> float:
    return sum(works[part].seconds(rates) for part in what.split("+"))


def moved_bytes(works: Works, what: str) -> float:
    return sum(works[part].moved_bytes for part in what.split("+"))


def scan(case: Scan, itemsize: int) -> Works:
    """With a gate y is moved twice, before it and after: the backward pass wants both."""
    e, coefficients = case.elements, 2 * case.n * case.groups * case.b * case.l
    gate = 2 if case.gate else 0
    return {
        "forward": Work(itemsize * (e * (3 + gate) + coefficients), e * (case.n + 2 + gate)),
        "backward": Work(
            itemsize * (e * (8 if case.gate else 5) + 3 * coefficients), e * (case.n + 4 + gate)
        ),
    }


def conv(case: Conv, itemsize: int) -> Works:
    e = case.elements
    return {"forward": Work(itemsize * 2 * e, 2 * e), "backward": Work(itemsize * 3 * e, 2 * e)}


def conv_step(case: Conv, itemsize: int) -> Works:
    """The state of k - 1 samples is read and written."""
    e = case.elements
    return {"forward": Work(itemsize * e * (2 + 2 * (case.k - 1)), 2 * e)}


def ssd(case: Ssd, itemsize: int) -> Works:
    """Per number of x two products with the state, n long, and two with a chunk of steps."""
    e = case.elements
    coefficients = 2 * case.b * case.l * case.groups * case.n
    steps = 4 * case.b * case.l * case.h  # dt is float32
    exponentials, operations = e * CHUNK / case.p, e * (4 * case.n + 2 * CHUNK)
    return {
        "forward": Work(itemsize * (2 * e + coefficients) + steps, exponentials, operations),
        "backward": Work(
            itemsize * (3 * e + 2 * coefficients) + 2 * steps,
            2 * exponentials,
            BACKWARD_PRODUCTS * operations,
        ),
    }


def diagonal(case: Diagonal, itemsize: int) -> Works:
    """Forward a, u and h; backward a, h and three gradients."""
    e = case.elements
    return {"forward": Work(itemsize * 3 * e), "backward": Work(itemsize * 5 * e)}


def step(case: Step, itemsize: int) -> Works:
    """The float32 state is read and written, x, dt, z and y moved; A is shared by the batch."""
    e = case.elements
    moved = 8 * e * case.n + itemsize * 4 * e + 4 * case.d * case.n
    return {"forward": Work(moved, e * (case.n + 4))}
