"""The methods that come with ssm-prune, offered like anybody's."""

from __future__ import annotations

from ssm_prune.hookspecs import hookimpl
from ssm_prune.methods.dynamic import DynamicCosine, DynamicOptions
from ssm_prune.methods.early_bird import EarlyBird, EarlyBirdOptions
from ssm_prune.methods.gradient import Gradient, GradientOptions
from ssm_prune.methods.imp import Imp, ImpOptions
from ssm_prune.methods.magnitude import Magnitude
from ssm_prune.methods.n_m import NM, NMOptions
from ssm_prune.methods.random import Random
from ssm_prune.options import OneShotOptions, RampedOptions
from ssm_prune.pruner import MethodSpec


@hookimpl
def ssm_prune_methods() -> list[MethodSpec]:
    return [
        MethodSpec(
            "dynamic-cosine",
            DynamicCosine,
            "remove the smallest weights along a cosine ramp, with or without regrowth",
            DynamicOptions,
        ),
        MethodSpec(
            "gradient",
            Gradient,
            "remove the weights of the smallest |w g| (or |g|, fisher, snip, movement)",
            GradientOptions,
        ),
        MethodSpec(
            "early-bird",
            EarlyBird,
            "remove what would be pruned as soon as that no longer changes",
            EarlyBirdOptions,
        ),
        MethodSpec(
            "imp",
            Imp,
            "in levels, remove the smallest weights and train the rest from an early step again",
            ImpOptions,
        ),
        MethodSpec(
            "magnitude", Magnitude, "remove the smallest weights once, at one time", OneShotOptions
        ),
        MethodSpec(
            "n:m", NM, "keep n of every m consecutive inputs (2:4), from one time on", NMOptions
        ),
        MethodSpec(
            "random", Random, "remove weights at random along a ramp: the control", RampedOptions
        ),
    ]
