"""The configuration of the toy recipe."""

import pytest

from ssm_core.train.resolve import read_yaml, resolve


@pytest.fixture
def config(host):
    def make(*words):
        base = read_yaml(host.get("recipes", "points-net").path)
        return resolve(host, "points-net", base, arguments=words)

    return make
