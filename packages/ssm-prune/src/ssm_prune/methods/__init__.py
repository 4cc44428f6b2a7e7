"""The methods that come with ssm-prune, offered like anybody's."""

from __future__ import annotations

from ssm_prune.hookspecs import hookimpl
from ssm_prune.methods.dynamic import DynamicCosine
from ssm_prune.pruner import MethodSpec


@hookimpl
def ssm_prune_methods() -> list[MethodSpec]:
    return [
        MethodSpec(
            "dynamic-cosine",
            DynamicCosine,
            "remove the smallest weights along a cosine ramp while training",
        )
    ]
