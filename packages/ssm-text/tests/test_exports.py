"""Language models for other programs: what the graphs compute, and texts made with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ssm_core.errors import ConfigError
from ssm_core.export import Graph, export_onnx, export_program, onnx_outputs
from ssm_text import exports
from ssm_text.causal_lm import CausalLM
from ssm_text.char_lm import CharLM, CharLMConfig
from ssm_text.mamba_lm import MambaLM
from ssm_text.mamba_lm_config import MambaLMConfig

VOCAB = 24


def char_lm(mixer: str, positions: int = 0) -> CharLM:
    return CharLM(VOCAB, CharLMConfig(8, 1, mixer, positions=positions)).eval()


def mamba_lm(mixer: str, attention: tuple[int, ...] = (), n_layers: int = 1) -> MambaLM:
    options = {} if mixer == "mamba" else {"headdim": 8}
    config = MambaLMConfig(
        d_model=16,
        n_layers=n_layers,
        vocab_size=VOCAB,
        mixer=mixer,  # type: ignore[arg-type]
        mixer_options=options,
        attention_layers=attention,
        attention_options={"n_heads": 2} if attention else {},
    )
    return MambaLM(config).eval()


MODELS: dict[str, Callable[[], CausalLM]] = {
    "char-lm of s4d": lambda: char_lm("s4d"),
    "char-lm of s5": lambda: char_lm("s5"),
    "char-lm of attention": lambda: char_lm("attention", positions=32),
    "mamba": lambda: mamba_lm("mamba"),
    "mamba2": lambda: mamba_lm("mamba2"),
    "mamba3 and attention": lambda: mamba_lm("mamba3", (1,), n_layers=2),
}
#: with real states, and with complex ones, which are pairs in the files
IN_ONNX = {
    **{name: MODELS[name] for name in ("mamba", "mamba2", "char-lm of s4d", "char-lm of s5")},
    "char-lm of s4": lambda: char_lm("s4"),
}


def graphs_of(model: nn.Module) -> dict[str, Graph]:
    return {graph.name: graph for graph in exports.graphs(model) or []}


@pytest.mark.parametrize("name", ["prefill", "step"])
@pytest.mark.parametrize("model", MODELS)
def test_programs_for_any_batch_and_length(model: str, name: str) -> None:
    graph = graphs_of(MODELS[model]())[name]
    program = export_program(graph).module()
    arguments = graph.example_to_check()
    assert [x.shape for x in arguments] != [x.shape for x in graph.example_to_trace()]
    with torch.no_grad():
        got, expected = program(*arguments), graph.module(*arguments)
    assert len(got) == len(expected) == len(graph.outputs)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_step_continues_the_prefill() -> None:
    model = mamba_lm("mamba2")
    graphs = graphs_of(model)
    ids = torch.randint(VOCAB, (3, 9))
    with torch.no_grad():
        _, *state = graphs["prefill"].module(ids[:, :-1])
        logits, *after = graphs["step"].module(ids[:, -1], *state)
        torch.testing.assert_close(logits, model(ids)[:, -1])
    assert list(graphs["step"].inputs) == ["token", "state.0.conv", "state.0.ssm"]
    assert graphs["step"].outputs == ["logits", "new_state.0.conv", "new_state.0.ssm"]
    assert all(a is not b for a, b in zip(after, state, strict=True))


@pytest.mark.parametrize("name", IN_ONNX)
def test_onnxruntime_writes_the_same_text(name: str, tmp_path: Path) -> None:
    model = IN_ONNX[name]()
    graphs = graphs_of(model)
    for graph in graphs.values():
        export_onnx(graph, tmp_path / f"{graph.name}.onnx")
    ids, new = torch.randint(VOCAB, (2, 11)), 8
    texts = model.generate(ids, max_new_tokens=new, temperature=0.0)

    outputs = onnx_outputs(tmp_path / "prefill.onnx", {"ids": ids})
    got = ids
    for _ in range(new):
        logits, *state = outputs
        with torch.no_grad():
            torch.testing.assert_close(logits, model(got)[:, -1], rtol=1e-4, atol=1e-4)
        token = logits.argmax(-1)
        got = torch.cat([got, token.unsqueeze(1)], dim=1)
        inputs: dict[str, Tensor] = dict(zip(graphs["step"].inputs, [token, *state], strict=True))
        outputs = onnx_outputs(tmp_path / "step.onnx", inputs)
    assert got.tolist() == texts.tolist()


@pytest.mark.filterwarnings("ignore:.*assigned during export")  # torch.nn.RNN keeps a list
def test_a_loop_over_the_steps_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="prefill: cannot be exported for any batch, length:"):
        export_program(graphs_of(char_lm("rnn"))["prefill"])


def test_published_models_by_folder(tmp_path: Path) -> None:
    model = mamba_lm("mamba")
    model.save_pretrained(tmp_path / "published")
    loaded = exports.load(str(tmp_path / "published"), None)
    assert isinstance(loaded, MambaLM)
    torch.testing.assert_close(loaded.lm_head.weight, model.lm_head.weight)
    with pytest.raises(ConfigError, match="--checkpoint is for models without weights"):
        exports.load(str(tmp_path / "published"), "weights.safetensors")


def test_what_is_no_language_model_is_left_to_others(tmp_path: Path) -> None:
    assert exports.load("vim_tiny", None) is None
    assert exports.load(str(tmp_path), None) is None
    assert exports.graphs(nn.Linear(2, 2)) is None
