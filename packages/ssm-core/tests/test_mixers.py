import pytest

from ssm_core import Mamba, build_mixer
from ssm_core.errors import UnknownNameError


def test_build_mixer_by_name():
    layer = build_mixer("mamba", 16, {"d_state": 4})
    assert isinstance(layer, Mamba)
    assert layer.A_log.shape == (32, 4)


def test_build_mixer_unknown_name_and_key():
    with pytest.raises(UnknownNameError, match="unknown mixer 'mambo': did you mean 'mamba'"):
        build_mixer("mambo", 16)
    with pytest.raises(UnknownNameError, match=r"mixer_options \(mamba\)\.d_stat"):
        build_mixer("mamba", 16, {"d_stat": 4})
