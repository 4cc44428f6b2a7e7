"""What one iteration of a kernel's main loop does, for the limits of instructions per state step.

The main loop is the one without another inside that has the most exponentials, and among equals the
most arithmetic; a state step is one update of one state of one channel. Unrolling has to be written
out (`#pragma unroll 8`): what the compiler chooses is unknown.
"""

from __future__ import annotations

from collections.abc import Callable


def state_steps(kernel: str) -> float | None:
    """State steps of one iteration; None for a kernel that is not listed."""
    name, arguments = template_arguments(kernel)
    steps = STATE_STEPS.get(name)
    return None if steps is None else steps(arguments)


def template_arguments(kernel: str) -> tuple[str, list[str]]:
    """The parts of a name: `scan<16, pair<1, 2>>` has the arguments `16` and `pair<1, 2>`."""
    name, _, rest = kernel.partition("<")
    arguments, depth = [""], 0
    for letter in rest.removesuffix(">"):
        depth += (letter in "<(") - (letter in ">)")
        if letter == "," and depth == 0:
            arguments.append("")
        else:
            arguments[-1] += letter
    return name, [argument.strip() for argument in arguments if argument.strip()]


def _tiled(arguments: list[str]) -> float | None:
    """Forward scan, TiledShape<lanes, states of a lane>: 8 steps of a lane's states."""
    _, (_, states) = template_arguments(arguments[0])
    return 8 * int(states) if int(states) > 1 else None


def _backward_lanes(arguments: list[str]) -> float:
    """Backward scan: 8 steps of 2 channels with 2 states each."""
    return 8 * 4


#: Name of a kernel -> state steps that one thread makes in one iteration, from the kernel's
#: template arguments, which are given as they are printed: "16", "true", "float". None: the loop
#: is so short that another one is taken for it.
STATE_STEPS: dict[str, Callable[[list[str]], float | None]] = {
    "scan_backward_lanes": _backward_lanes,
    "scan_tiled": _tiled,
    # One state of one time step or node; it counts once per channel.
    "vandermonde_forward_kernel": lambda a: 4 * 8 * int(a[1]) / 2,
    "vandermonde_backward_kernel": lambda a: 4 * 2 * int(a[1]),
    "cauchy_forward_kernel": lambda a: 2 * int(a[1]) * int(a[2]),
    "cauchy_node_kernel": lambda a: 2 * int(a[1]),
    "cauchy_pole_kernel": lambda a: 2 * int(a[1]),
}
