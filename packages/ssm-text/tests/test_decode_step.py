"""Recording and replaying need a GPU; the buffers around them do not."""

from __future__ import annotations

import pytest
import torch

from ssm_text import Sampling
from ssm_text.decode_step import BufferedStep, decode_step
from ssm_text.generation import Ending, stream
from ssm_text.state_tree import leaves
from ssm_text.texts import Texts, evaluating

OPTIONS = {"mamba2": {"headdim": 4}, "s4": {"d_state": 8, "dt_min": 0.01}}


class Graph:
    """Runs while it records, as the warm-up on a GPU does, and knows how often it was replayed."""

    replays = 0

    def __call__(self, run):
        for _ in range(3):
            run()

        def replay():
            self.replays += 1
            run()

        return replay


def tokens(model, step, count=12, prompts=((1, 2, 3), (4, 5))) -> list[list[int]]:
    texts = Texts(model, 2)
    texts._step = step
    with evaluating(model):
        texts.read([torch.tensor(ids) for ids in prompts])
    return torch.stack(list(stream(texts, Sampling(2.0), Ending(count))), 1).tolist()


@pytest.mark.parametrize("mixer", ["mamba", "mamba2", "s4", "s4d", "s5", "rnn"])
def test_buffers_give_what_plain_steps_give(make_model, mixer):
    model = make_model(mixer=mixer, mixer_options=OPTIONS.get(mixer, {}))
    graph = Graph()
    step = BufferedStep(model, graph, 1)
    assert tokens(model, step) == tokens(model, model.step)
    assert graph.replays == 10  # 12 tokens, 11 of them read, the first of these by a plain step
    # another text of the same batch size: the same recording, from another state
    again = ((6, 6), (0, 1, 2, 3))
    assert tokens(model, step, 12, again) == tokens(model, model.step, 12, again)
    assert graph.replays == 21


@torch.inference_mode()
def test_buffers_stay_and_a_state_that_was_given_is_left_alone(make_model):
    model = make_model()
    step = BufferedStep(model, Graph(), 1)
    ids = torch.tensor([1, 2])
    given = model.step(ids, model.initial_state(2))[1]
    kept = [leaf.clone() for leaf in leaves(given)]
    step(ids, model.initial_state(2))
    logits, state = step(ids, given)
    places = [leaf.data_ptr() for leaf in [logits, *leaves(state)]]
    logits, state = step(ids, state)
    assert [leaf.data_ptr() for leaf in [logits, *leaves(state)]] == places
    assert all(torch.equal(a, b) for a, b in zip(leaves(given), kept, strict=True))


def test_another_batch_size_is_recorded_anew(make_model):
    model, graph = make_model(), Graph()
    step = BufferedStep(model, graph, 1)
    with torch.inference_mode():
        for batch in (2, 3, 3):
            ids, state = torch.arange(batch), model.initial_state(batch)
            expected = model.step(ids, state)[0]
            assert torch.equal(step(ids, state)[0], expected)
    assert graph.replays == 1


def test_a_state_that_grows_is_never_recorded(make_model):
    model, graph = make_model(mixer="attention"), Graph()
    assert tokens(model, BufferedStep(model, graph, 1)) == tokens(model, model.step)
    assert graph.replays == 0


def test_short_texts_are_not_recorded(make_model):
    model, graph = make_model(), Graph()
    step = BufferedStep(model, graph, 5)
    assert tokens(model, step, 5) == tokens(model, model.step, 5)  # 4 of them are read
    assert graph.replays == 0
    assert tokens(model, step, 5) == tokens(model, model.step, 5)
    assert graph.replays == 3


def test_where_recording_fails_steps_are_plain_after_one_warning(make_model):
    model, tries = make_model(), []

    def capture(run):
        tries.append(run)
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    with pytest.warns(RuntimeWarning, match="without a CUDA graph.*not permitted$") as seen:
        assert tokens(model, BufferedStep(model, capture, 1)) == tokens(model, model.step)
    assert len(seen) == len(tries) == 1


def test_on_the_cpu_steps_are_the_models(make_model):
    model = make_model()
    assert decode_step(model) == model.step


@pytest.mark.gpu
@pytest.mark.parametrize("mixer", ["mamba", "mamba2", "s4d"])
def test_a_cuda_graph_gives_what_plain_steps_give(make_model, mixer, monkeypatch):
    model = make_model(mixer=mixer, mixer_options=OPTIONS.get(mixer, {})).cuda()
    replays = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(
        torch.cuda.CUDAGraph, "replay", lambda graph: replays.append(1) or replay(graph)
    )
    assert tokens(model, decode_step(model), 40) == tokens(model, model.step, 40)
    assert len(replays) == 39 - 8
