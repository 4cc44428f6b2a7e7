from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
import torch

from ssm_core.errors import ConfigError, DataError
from ssm_text.data.python_stdlib import (
    CHARACTERS,
    VOCABULARY,
    PythonStdlibConfig,
    build_python_stdlib,
    source_files,
)
from ssm_text.data.vocabulary import REPLACEMENT

STDLIB = Path(sysconfig.get_path("stdlib"))


def test_characters_are_printable_ascii_and_white_space():
    assert "".join(CHARACTERS) == "\t\n" + "".join(map(chr, range(32, 127)))
    assert VOCABULARY.characters == (*CHARACTERS, REPLACEMENT)


def test_files_are_sorted_capped_and_without_tests():
    files = source_files(STDLIB, 8_000_000)
    names = [file.relative_to(STDLIB).as_posix() for file in files]
    assert names == sorted(names)
    assert {"abc.py", "json/decoder.py", "asyncio/events.py"} <= set(names)
    for folder in ("test/", "idlelib/", "site-packages/", "unittest/test/", "encodings/"):
        assert not any(name.startswith(folder) for name in names)
    assert sum(file.stat().st_size for file in files) <= 8_000_000
    fewer = source_files(STDLIB, 500_000)
    assert fewer == files[: len(fewer)]
    assert 300_000 < sum(file.stat().st_size for file in fewer) <= 500_000


def test_build_is_deterministic_and_holds_out_a_tenth():
    config = PythonStdlibConfig(max_bytes=1_000_000)
    bundle, again = build_python_stdlib(config), build_python_stdlib(config)
    assert torch.equal(bundle.train[7][0], again.train[7][0])
    assert bundle.info.n_outputs == 98
    assert bundle.info.input_shape == (128,)
    held_out = len(bundle.evaluation) / (len(bundle.train) + len(bundle.evaluation))
    assert 0.03 < held_out < 0.3
    start = VOCABULARY.decode(bundle.train[0][0])
    assert (STDLIB / "__future__.py").read_text().startswith(start)


def test_split_is_by_files(tmp_path):
    for i in range(20):
        (tmp_path / f"{i:02d}.py").write_text(chr(ord("a") + i) * 10)
    config = PythonStdlibConfig(root=str(tmp_path), context=5)
    bundle = build_python_stdlib(config)
    seen = {
        VOCABULARY.decode(w[1][w[1] >= 0]) for w in map(bundle.evaluation.__getitem__, range(4))
    }
    assert seen == {"jjjjj", "jjjj\n", "ttttt"[:5], "ttttt"}
    trained = "".join(VOCABULARY.decode(bundle.train[i][0]) for i in range(len(bundle.train)))
    assert not {"j", "t"} & set(trained)
    assert set("abcdefghiklmnopqrs") <= set(trained)


def test_foreign_characters_are_replaced(tmp_path):
    for i in range(10):
        (tmp_path / f"{i}.py").write_bytes(b"# caf\xe9 \xc3\xa9\x0c\r\n" * 3)
    bundle = build_python_stdlib(PythonStdlibConfig(root=str(tmp_path), context=10))
    assert VOCABULARY.decode(bundle.train[0][0]) == f"# caf{REPLACEMENT} {REPLACEMENT * 2}\n"


def test_missing_files_are_one_clear_line(tmp_path):
    with pytest.raises(DataError, match=r"no Python files.*--data\.root"):
        build_python_stdlib(PythonStdlibConfig(root=str(tmp_path)))
    with pytest.raises(DataError, match=r"no Python files of at most 1 bytes"):
        build_python_stdlib(PythonStdlibConfig(max_bytes=1))
    (tmp_path / "one.py").write_text("x = 1\n" * 100)
    with pytest.raises(DataError, match="0 held out"):
        build_python_stdlib(PythonStdlibConfig(root=str(tmp_path)))


def test_max_bytes_is_checked():
    with pytest.raises(ConfigError, match=r"data\.max_bytes is 0"):
        PythonStdlibConfig(max_bytes=0)
