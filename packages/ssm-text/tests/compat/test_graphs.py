"""What decoding loops that were copied from mamba_ssm take from its generation module."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from ssm_core.compat.cache import InferenceParams
from ssm_kernels.errors import ShapeError
from ssm_text.compat import compat_modules
from ssm_text.compat.config import MambaConfig
from ssm_text.compat.graphs import _update_kv_cache
from ssm_text.compat.lm_head import MambaLMHeadModel

THERE = SimpleNamespace(**compat_modules()["mamba_ssm.utils.generation"])


def test_a_copied_loop_decodes_like_generate() -> None:
    torch.manual_seed(0)
    model = MambaLMHeadModel(MambaConfig(d_model=16, n_layer=2, vocab_size=40))
    prompt = torch.randint(40, (2, 5))
    cache = None
    for length in (7, 11):
        cache = THERE.update_graph_cache(model, cache, 2, 5, length)
        params = cache.inference_params
        params.reset(length, 2)
        ids, sequences = prompt, [prompt]
        with torch.inference_mode():
            while params.seqlen_offset < length - 1:
                if params.seqlen_offset == 0:
                    logits = model(ids, inference_params=params, num_last_tokens=1).logits
                else:
                    places = torch.full_like(ids, params.seqlen_offset)
                    logits = cache.run(ids, places, params.seqlen_offset)
                    assert (params.lengths_per_sample == params.seqlen_offset).all()
                params.seqlen_offset += ids.shape[1]
                ids = logits.squeeze(1).argmax(dim=-1, keepdim=True)
                sequences.append(ids)
        assert torch.equal(torch.cat(sequences, 1), model.generate(prompt, length))


def test_the_cache_stays_while_it_is_large_enough() -> None:
    model = MambaLMHeadModel(MambaConfig(d_model=16, n_layer=1, vocab_size=40))
    cache = THERE.update_graph_cache(model, None, 2, 5, 9)
    kept = cache.inference_params
    assert THERE.update_graph_cache(model, cache, 1, 4, 9).inference_params is kept
    assert (cache.max_batch_size, cache.max_seqlen, cache.dtype) == (2, 9, torch.float32)
    assert THERE.update_graph_cache(model, cache, 3, 5, 9).inference_params is not kept
    assert THERE.DecodingCGCache().callables == {}


def test_filters_act_in_place() -> None:
    values = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.7, 0.1, 0.1, 0.1]]).log()
    logits = values.clone()
    THERE.modify_logits_for_top_k_filtering(logits, 2)
    assert logits[0].isinf().tolist() == [True, False, True, False]
    logits = values.clone()
    THERE.modify_logits_for_top_p_filtering(logits, 0.65)
    assert logits.isinf().tolist() == [[True, False, True, False], [False, True, True, True]]
    torch.testing.assert_close(logits[~logits.isinf()], values[~logits.isinf()])
    logits = values.clone()
    THERE.modify_logits_for_min_p_filtering(logits.exp_(), 0.25)
    assert logits.isinf().tolist() == [[True, False, True, False], [False, True, True, True]]
    for unused in (0.0, 1.0):
        logits = values.clone()
        THERE.modify_logits_for_top_p_filtering(logits, unused)
        THERE.modify_logits_for_min_p_filtering(logits, unused)
        assert torch.equal(logits, values)


def test_repetition_penalty() -> None:
    logits = torch.tensor([[2.0, -2.0, 1.0, -1.0]])
    seen = torch.tensor([[0, 1, 1]])
    penalised = THERE.modify_logit_for_repetition_penalty(logits, seen, 4.0)
    assert penalised is logits
    assert logits.tolist() == [[0.5, -8.0, 1.0, -1.0]]
    assert THERE.modify_logit_for_repetition_penalty(logits, seen)[0, 0] == 0.5


def test_keys_and_values_are_written_behind_one_another() -> None:
    cache = torch.zeros(3, 5, 2, 1, 4)
    params = InferenceParams(5, 3, batch_size_offset=1, key_value_memory_dict={7: (cache, None)})
    first, second = torch.randn(2, 3, 2, 1, 4), torch.randn(2, 2, 2, 1, 4)
    assert torch.equal(_update_kv_cache(first, params, 7), first)
    params.seqlen_offset = 3
    assert torch.equal(_update_kv_cache(second, params, 7), torch.cat([first, second], 1))
    assert torch.equal(cache[1:], torch.cat([first, second], 1))
    assert not cache[0].any()
    with pytest.raises(ShapeError, match="allocate a larger one"):
        _update_kv_cache(first, params, 7)


def test_star_imports_bring_what_the_original_imports() -> None:
    """Public models write `from mamba_ssm.utils.generation import *`, then `@dataclass`."""
    own: dict[str, object] = dict(vars(THERE))
    code = "@dataclass\nclass Config:\n    sizes: Optional[list] = field(default_factory=list)\n"
    code += "Output = namedtuple('Output', 'logits')\n"
    exec(code + "made, zero = Config(), F.relu(torch.tensor(-1.0))", own)
    assert own["made"].sizes == []
    assert own["zero"] == 0 < math.inf
