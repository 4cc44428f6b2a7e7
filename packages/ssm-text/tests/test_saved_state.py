from __future__ import annotations

import pytest
import torch

from ssm_core.errors import CheckpointError
from ssm_core.train import checkpoint
from ssm_text import CharLM, CharLMConfig, Sampling
from ssm_text.generation import Ending, stream
from ssm_text.saved_state import load_state, save_state
from ssm_text.texts import Texts

MIXERS = {"mamba2": {"headdim": 4}, "s4": {"d_state": 8, "dt_min": 0.01}}
PROMPTS = [torch.tensor([1, 2, 3]), torch.tensor([4])]
WARM = Sampling(1.5, seed=7, top_p=0.9, repetition_penalty=1.1)


def started(model, sampling=WARM) -> Texts:
    texts = Texts(model, 2, sampling)
    texts.read(PROMPTS)
    return texts


def tokens(texts: Texts, count: int, sampling=WARM) -> list[list[int]]:
    return [ids.tolist() for ids in stream(texts, sampling, Ending(count))]


@pytest.mark.parametrize("mixer", ["mamba", "mamba2", "s4", "s4d", "s5", "rnn", "attention"])
@pytest.mark.parametrize("sampling", [Sampling(0), WARM], ids=["greedy", "sampled"])
def test_a_saved_text_goes_on_identically(make_model, tmp_path, mixer, sampling):
    model = make_model(mixer=mixer, mixer_options=MIXERS.get(mixer, {}), dtype=torch.float32)
    whole = started(model, sampling)
    expected = tokens(whole, 30, sampling)
    whole.settle()
    texts = started(model, sampling)
    found = tokens(texts, 11, sampling)
    for part in (1, 0, 18):  # a state that was loaded can be saved again
        save_state(tmp_path / "state", texts)
        texts = load_state(tmp_path / "state", model)
        found += tokens(texts, part, sampling)
    assert found == expected
    texts.settle()
    assert torch.equal(texts.logits, whole.logits)  # bit for bit
    assert texts.lengths == whole.lengths == [33, 31]


def test_without_its_generators_it_would_go_on_differently(make_model, tmp_path):
    model = make_model()
    texts = started(model)
    tokens(texts, 5)
    save_state(tmp_path / "state", texts)
    assert tokens(load_state(tmp_path / "state", model), 20) == tokens(texts, 20)
    other = load_state(tmp_path / "state", model)
    other.generators = Texts(model, 2, WARM).generators
    assert tokens(other, 20) != tokens(load_state(tmp_path / "state", model), 20)


@pytest.mark.parametrize("count", range(1, 12))
def test_a_model_with_a_context_goes_on_too(toy_model, tmp_path, count):
    """Saved just before, at and after the token that does not fit."""
    model = toy_model(6)
    expected = tokens(started(model), 25)
    texts = started(model)
    found = tokens(texts, count)
    save_state(tmp_path / "state", texts)
    assert found + tokens(load_state(tmp_path / "state", model), 25 - count) == expected


def test_saving_in_the_middle_of_a_stream_disturbs_nothing(make_model, tmp_path):
    model = make_model()
    expected = tokens(started(model), 12)
    texts, found = started(model), []
    for i, ids in enumerate(stream(texts, WARM, Ending(12))):
        found.append(ids.tolist())
        save_state(tmp_path / str(i), texts)
    assert found == expected
    for i in (0, 5):
        rest = tokens(load_state(tmp_path / str(i), model), 11 - i)
        assert found[: i + 1] + rest == expected


def test_more_can_be_read_after_loading(make_model, tmp_path):
    model, more = make_model(), [torch.tensor([5, 6]), torch.tensor([2])]
    texts = started(model)
    tokens(texts, 4)
    save_state(tmp_path / "state", texts)
    again = load_state(tmp_path / "state", model)
    texts.read(more)
    again.read(more)
    assert tokens(again, 9) == tokens(texts, 9)


def test_nothing_to_save_and_nowhere_to_save(make_model, tmp_path):
    with pytest.raises(CheckpointError, match="nothing to save"):
        save_state(tmp_path / "state", Texts(make_model()))
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_state(tmp_path / "file" / "state", started(make_model()))


def test_an_interrupted_save_leaves_the_old_state(make_model, tmp_path, monkeypatch):
    model, path = make_model(), tmp_path / "state"
    texts = started(model)
    save_state(path, texts)
    old = path.read_bytes()
    tokens(texts, 3)

    def broken(tensors, part, metadata):
        part.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "save_file", broken)
    with pytest.raises(CheckpointError, match="cannot be written: disk full"):
        save_state(path, texts)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def saved(path, model):
    save_state(path, started(model))
    return path


def one_line(match: str, path, model) -> None:
    with pytest.raises(CheckpointError, match=match) as error:
        load_state(path, model)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_missing_and_damaged_files_are_one_line(make_model, tmp_path):
    model = make_model()
    one_line("no such file", tmp_path / "none", model)
    path = saved(tmp_path / "state", model)
    whole = path.read_bytes()
    for part in (b"", b"junk" * 10, whole[: len(whole) // 2]):
        path.write_bytes(part)
        one_line("damaged or not a safetensors file", path, model)
    checkpoint.save_weights(path, model, {})
    one_line("not a training state", path, model)
    checkpoint.save_state(path, {"step": 3})
    one_line("not a saved text", path, model)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("state", []),
        ("state", 3),
        ("lengths", [1]),
        ("logits", torch.zeros(1, 7)),
        ("seen", torch.zeros(3, 9)),
        ("generators", [torch.zeros(3, dtype=torch.uint8)] * 2),
        ("generators", []),
        ("vocab_size", 99),
    ],
)
def test_content_that_does_not_fit_is_one_line(make_model, tmp_path, key, value):
    model = make_model()
    path = saved(tmp_path / "state", model)
    checkpoint.save_state(path, checkpoint.load_state(path) | {key: value})
    one_line("damaged, its content does not fit", path, model)


def test_missing_content_is_one_line(make_model, tmp_path):
    model = make_model()
    path = saved(tmp_path / "state", model)
    content = checkpoint.load_state(path)
    del content["logits"]
    checkpoint.save_state(path, content)
    one_line("damaged", path, model)


def test_the_state_of_another_model_is_one_line(make_model, toy_model, tmp_path):
    path = saved(tmp_path / "state", make_model())
    one_line("another model.*class CharLM, this one has Toy", path, toy_model(None))
    one_line("another model.*configuration", path, make_model(n_layers=1))
    one_line("another model.*vocabulary 7, this one has 8", path, make_model(vocab_size=8))
    trained = make_model()
    with torch.no_grad():
        trained.tower.layers[1].mixer.D[0] += 0.01
    one_line("another model.*other weights", path, trained)
    one_line("another model.*other weights", path, make_model(dtype=torch.float32))
    torch.manual_seed(1)
    fresh = CharLM(7, CharLMConfig(d_model=8, n_layers=2, tie_embeddings=False)).double()
    one_line("another model.*other weights", path, fresh)
