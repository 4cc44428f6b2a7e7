from __future__ import annotations

import json
import sys

import datasets
import numpy as np
import pytest

from ssm_core.cli import main
from ssm_core.errors import ConfigError, DataError
from ssm_text.data.codec import codec_of
from ssm_text.data.huggingface_text import HuggingFaceTextConfig, build_huggingface_text
from ssm_text.data.token_folder import TokenFolder

ROWS = [f"document {i} of the sea\n" for i in range(20)]


@pytest.fixture(autouse=True)
def quiet_and_here(tmp_path, monkeypatch):
    """The library's own caches go into the test's folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def options(tmp_path, **values):
    defaults = {"context": 8, "tokenizer": "chars", "root": str(tmp_path / "root")}
    return HuggingFaceTextConfig(**defaults | {"path": str(tmp_path / "set")} | values)


def saved(tmp_path, rows=ROWS):
    datasets.Dataset.from_dict({"text": rows, "n": list(range(len(rows)))}).save_to_disk(
        tmp_path / "set"
    )


def decoded(folder: TokenFolder, split: str) -> str:
    return folder.codec.decode(np.fromfile(folder.file(split), folder.dtype).tolist())


def test_rows_are_documents_and_are_tokenized_once(tmp_path, monkeypatch):
    saved(tmp_path)
    config = options(tmp_path)
    bundle = build_huggingface_text(config)
    folder = TokenFolder.open(config.tokens_at())
    assert decoded(folder, "train") == "".join(row + "\n" for row in ROWS[:18])
    assert decoded(folder, "validation") == "".join(row + "\n" for row in ROWS[18:])
    assert bundle.info.labels == folder.codec.characters
    # from now on without the library
    monkeypatch.setitem(sys.modules, "datasets", None)
    again = build_huggingface_text(options(tmp_path, context=4))
    assert len(again.train) > len(bundle.train)
    with pytest.raises(ConfigError, match=r"needs datasets.* 'ssm-text\[huggingface\]'"):
        build_huggingface_text(options(tmp_path, train_frac=0.5))


def test_changed_data_is_tokenized_anew(tmp_path):
    saved(tmp_path)
    config = options(tmp_path)
    build_huggingface_text(config)
    before = config.tokens_at()
    saved(tmp_path, ROWS[:10])
    assert config.tokens_at() != before
    assert len(build_huggingface_text(config).evaluation) < 4


def test_splits_and_learnt_tokens(tmp_path):
    both = {"train": ROWS[:15], "test": ROWS[15:]}
    datasets.DatasetDict(
        {name: datasets.Dataset.from_dict({"story": rows}) for name, rows in both.items()}
    ).save_to_disk(tmp_path / "set")
    config = options(tmp_path, eval_split="test", column="story", tokenizer="bpe:270")
    info = build_huggingface_text(config).info
    folder = TokenFolder.open(config.tokens_at())
    assert info.n_outputs == len(folder.codec)
    assert info.labels == ()
    end = "<|endoftext|>"
    assert decoded(folder, "validation") == "".join(row + end for row in ROWS[15:])


def test_folder_of_json_files(tmp_path):
    (tmp_path / "set").mkdir()
    lines = [json.dumps({"text": row}) for row in ROWS]
    (tmp_path / "set" / "a.jsonl").write_text("\n".join(lines))
    config = options(tmp_path, train_split="train[:10]")
    build_huggingface_text(config)
    folder = TokenFolder.open(config.tokens_at())
    assert decoded(folder, "train") == "".join(row + "\n" for row in ROWS[:9])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"path": ""}, r"data\.path is empty"),
        ({"column": "txt"}, r"column 'txt': cannot be had .*txt.*--data\.column"),
        ({"column": "n"}, r"data\.column is 'n', which holds int, expected text"),
        ({"tokenizer": ""}, "tokenizer is empty, expected a tokenizer.json"),
        ({"context": 10_000}, "tokens to train on"),
    ],
)
def test_bad_options_are_one_line(tmp_path, values, message):
    saved(tmp_path)
    with pytest.raises((DataError, ConfigError), match=message) as caught:
        build_huggingface_text(options(tmp_path, **values))
    assert "\n" not in str(caught.value)


def test_missing_split_is_one_line(tmp_path):
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ROWS})}).save_to_disk(
        tmp_path / "set"
    )
    with pytest.raises(DataError, match=r"split 'dev'.*cannot be had \(KeyError: 'dev'\)"):
        build_huggingface_text(options(tmp_path, train_split="dev"))
    with pytest.raises(ConfigError, match=r"data\.train_frac is 2"):
        options(tmp_path, train_frac=2)


def test_a_run_takes_the_tokenizer_along(tmp_path):
    saved(tmp_path)
    words = f"""fit stdlib-mamba --out {tmp_path / "runs"} --model.d_model 8 --model.n_layers 1
        --loader.batch_size 2 --trainer.max_steps 1 --trainer.eval_every null
        --trainer.accelerator cpu --data huggingface-text --data.path {tmp_path / "set"}
        --data.tokenizer bpe:270 --data.context 8 --data.root {tmp_path / "root"}"""
    assert main(words.split()) == 0
    codec = codec_of(tmp_path / "runs" / "stdlib-mamba-001")
    assert codec.decode(codec.encode("the sea")) == "the sea"
