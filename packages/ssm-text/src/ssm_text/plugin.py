"""What ssm-text offers to the host; the only file here that knows about hooks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ssm_core import (
    BenchmarkSpec,
    CommandSpec,
    DataInfo,
    DatasetSpec,
    ExportSpec,
    ModelSpec,
    RecipeSpec,
    TaskSpec,
    hookimpl,
    recipes_in,
)
from ssm_core.errors import ConfigError
from ssm_core.specs import NoOptions
from ssm_text import command, perplexity_command, tokenize_command
from ssm_text.benchmark import BENCHMARK
from ssm_text.char_lm import CharLM, CharLMConfig
from ssm_text.data.huggingface_text import HuggingFaceTextConfig, build_huggingface_text
from ssm_text.data.python_stdlib import PythonStdlibConfig, build_python_stdlib
from ssm_text.data.shakespeare import ShakespeareConfig, build_shakespeare
from ssm_text.data.synthetic import (
    CopyingConfig,
    SyntheticConfig,
    build_copying,
    build_induction_heads,
    build_selective_copying,
)
from ssm_text.data.text_file import TextFileConfig, build_text_file
from ssm_text.data.token_file import TokenFileConfig, build_token_file, keep_tokenizer
from ssm_text.exports import EXPORT
from ssm_text.mamba_lm import build_mamba_lm
from ssm_text.mamba_lm_config import MambaLMConfig
from ssm_text.task import LanguageModel

if TYPE_CHECKING:
    from ssm_core.train.run import Run


@hookimpl
def ssm_register_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name="char-lm",
            config=CharLMConfig,
            build=_build_char_lm,
            summary="character language model on a causal tower",
        ),
        ModelSpec(
            name="mamba-lm",
            config=MambaLMConfig,
            build=build_mamba_lm,
            summary="Mamba, Mamba-2 or Mamba-3 language model, as published",
            source="https://arxiv.org/abs/2312.00752",
        ),
    ]


@hookimpl
def ssm_register_datasets() -> list[DatasetSpec]:
    return [
        DatasetSpec(
            name="python-stdlib",
            config=PythonStdlibConfig,
            build=build_python_stdlib,
            summary="source files of this Python's standard library, always there",
        ),
        DatasetSpec(
            name="shakespeare",
            config=ShakespeareConfig,
            build=build_shakespeare,
            summary="tiny Shakespeare, 1.1 million characters, local or downloaded",
        ),
        DatasetSpec(
            name="text-file",
            config=TextFileConfig,
            build=build_text_file,
            summary="a UTF-8 file or folder of your own (--data.path)",
        ),
        DatasetSpec(
            name="copying",
            config=CopyingConfig,
            build=build_copying,
            summary="repeat tokens after a fixed distance; made from a seed",
        ),
        DatasetSpec(
            name="selective-copying",
            config=CopyingConfig,
            build=build_selective_copying,
            summary="repeat tokens that stand anywhere among noise; made from a seed",
        ),
        DatasetSpec(
            name="induction-heads",
            config=SyntheticConfig,
            build=build_induction_heads,
            summary="say what followed a marker when it appeared before; made from a seed",
        ),
        DatasetSpec(
            name="huggingface-text",
            config=HuggingFaceTextConfig,
            build=build_huggingface_text,
            summary="a text column of a Hugging Face data set, tokenized once (--data.path)",
        ),
        DatasetSpec(
            name="token-file",
            config=TokenFileConfig,
            build=build_token_file,
            summary="tokens on disk, of any size (--data.path), from ssm-train tokenize",
        ),
    ]


@hookimpl
def ssm_register_tasks() -> list[TaskSpec]:
    return [
        TaskSpec(
            name="language-model",
            config=NoOptions,
            build=_build_task,
            summary="predict the next token; nats and bits per token, accuracy",
        )
    ]


@hookimpl
def ssm_register_recipes() -> list[RecipeSpec]:
    return recipes_in(Path(__file__).parent / "recipes")


@hookimpl
def ssm_register_benchmarks() -> list[BenchmarkSpec]:
    return [BENCHMARK]


@hookimpl
def ssm_register_exports() -> list[ExportSpec]:
    return [EXPORT]


@hookimpl
def ssm_register_commands() -> list[CommandSpec]:
    return [
        CommandSpec(
            name="generate",
            summary="continue a prompt with a trained or a published language model",
            configure=command.configure,
            run=command.run,
        ),
        CommandSpec(
            name="perplexity",
            summary="how well a language model predicts a text: perplexity, bits per byte",
            configure=perplexity_command.configure,
            run=perplexity_command.run,
        ),
        CommandSpec(
            name="tokenize",
            summary="turn text files into token files, which may be larger than the memory",
            configure=tokenize_command.configure,
            run=tokenize_command.run,
        ),
    ]


@hookimpl
def ssm_run_start(run: Run) -> None:
    data = run.config.typed["data"]
    if isinstance(data, (TokenFileConfig, HuggingFaceTextConfig)) and run.fabric.is_global_zero:
        keep_tokenizer(data.tokens_at(), run.folder)


def _build_char_lm(config: CharLMConfig, info: DataInfo) -> CharLM:
    length = info.input_shape[0]
    if 0 < config.positions < length:
        raise ConfigError(
            f"model.positions is {config.positions} for examples of {length} tokens, expected at "
            "least as many, or 0 for none"
        )
    return CharLM(info.n_outputs, config)


def _build_task(config: NoOptions, info: DataInfo) -> LanguageModel:
    return LanguageModel()
