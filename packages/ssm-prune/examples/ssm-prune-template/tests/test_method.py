from __future__ import annotations

from decayed_taylor import ssm_prune_methods

from ssm_prune.testing import conformance


def test_the_method_keeps_the_promises_of_the_host() -> None:
    (spec,) = ssm_prune_methods()
    assert spec.name == "decayed-taylor"
    conformance(spec)
