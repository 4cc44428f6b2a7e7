"""When masks change and how many weights are gone by then.

A ramp maps u in [0, 1], the time since `begin` as a fraction of the ramp's length, to the fraction
of the way from the initial sparsity (0 unless told) to the target. "Cosine" means two things in the
literature; both are here under own names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ssm_core.errors import ConfigError, UnknownNameError
from ssm_prune.options import PruneOptions, RampedOptions
from ssm_prune.steps import RunLength, parse_time

Ramp = Callable[[float], float]


def cosine(u: float) -> float:
    """Half a cosine wave, slow at both ends: (1 - cos(pi u)) / 2."""
    return (1 - math.cos(math.pi * u)) / 2


def cosine_quarter(u: float) -> float:
    """A quarter of a cosine wave, slow at the start: 1 - cos(pi u / 2)."""
    return 1 - math.cos(math.pi * u / 2)


def cubic(u: float) -> float:
    """Fast at the start, slow at the end: 1 - (1 - u)^3 (Zhu and Gupta 2017, equation 1)."""
    return 1 - (1 - u) ** 3


RAMPS: Mapping[str, Ramp] = {"cosine": cosine, "cosine-quarter": cosine_quarter, "cubic": cubic}


@dataclass(frozen=True)
class Schedule:
    """The mask updates of one run, in completed optimizer steps.

    Updates happen at `begin`, `begin + every`, ... before `end`, and at `end`.
    """

    begin: int
    end: int
    every: int
    sparsity: float
    ramp: Ramp
    initial: float = 0.0

    def progress(self, step: int) -> float:
        """The part of the ramp that is over after `step` steps, from 0 to 1."""
        if step >= self.end:
            return 1.0
        return max(0.0, (step - self.begin) / (self.end - self.begin))

    def due(self, step: int) -> bool:
        """Whether masks change after `step` completed steps."""
        if not self.begin <= step <= self.end:
            return False
        return step == self.end or (step - self.begin) % self.every == 0

    def target(self, step: int) -> float:
        """The sparsity that the ramp asks for after `step` steps; exact at its end.

        Raises:
            ConfigError: the ramp (a plugin's) leaves [0, 1].
        """
        if step >= self.end:
            return self.sparsity
        if step <= self.begin:
            return self.initial if step == self.begin else 0.0
        fraction = self.ramp(self.progress(step))
        if not 0 <= fraction <= 1:
            raise ConfigError(f"the ramp returned {fraction!r} at step {step}, expected 0 to 1")
        return self.initial + (self.sparsity - self.initial) * fraction


def make_schedule(options: PruneOptions, length: RunLength, ramps: Mapping[str, Ramp]) -> Schedule:
    """Resolve the times and the ramp's name for a run of this length.

    Raises:
        ConfigError: a time is unreadable, or they are not 0 <= begin <= end <= length.
        UnknownNameError: no such ramp.
    """
    if options.ramp not in ramps:
        raise UnknownNameError.of("prune.ramp", options.ramp, ramps)
    begin = parse_time(options.begin, length, "prune.begin")
    end = parse_time(options.end, length, "prune.end")
    # a percentage of a very short run may round to 0, but masks first change after a step
    end = max(end, 1)
    initial = options.initial_sparsity if isinstance(options, RampedOptions) else 0.0
    if initial:
        begin = max(begin, 1)
    if begin > end:
        raise ConfigError(
            f"prune.begin is {options.begin} = step {begin}, expected at most prune.end "
            f"({options.end} = step {end})"
        )
    if end > length.total_steps:
        key = "prune.begin" if options.end == options.begin else "prune.end"
        raise ConfigError(
            f"{key} is {options.end} = step {end}, but the run has {length.total_steps} steps: "
            "choose an earlier time, or train longer"
        )
    if options.every is None:
        every = min(100, max(1, (end - begin) // 20))
    else:
        every = parse_time(options.every, length, "prune.every")
        if every < 1:
            raise ConfigError(f"prune.every is {options.every} = {every} steps, expected 1 or more")
    return Schedule(begin, end, every, options.sparsity, ramps[options.ramp], initial)
