from __future__ import annotations

import pytest

from ssm_core.errors import ConfigError, DataError
from ssm_text.data.text_file import TextFileConfig, build_text_file


def test_one_file(tmp_path):
    (tmp_path / "a.md").write_text("hello world\n" * 10, encoding="utf-8")
    bundle = build_text_file(TextFileConfig(context=4, path=str(tmp_path / "a.md")))
    assert "".join(bundle.info.labels) == "\n dehlorw"
    ids, targets = bundle.train[0]
    assert "".join(bundle.info.labels[i] for i in ids) == "hell"
    assert "".join(bundle.info.labels[i] for i in targets) == "ello"
    assert len(bundle.train) == (108 - 1) // 4
    assert len(bundle.evaluation) == 3


def test_folder_is_joined_in_order(tmp_path):
    (tmp_path / "sub").mkdir()
    for name, text in (("b.txt", "bbbbbb"), ("a.txt", "aaaaaa"), ("sub/c.txt", "cccccc")):
        (tmp_path / name).write_text(text)
    (tmp_path / "z.md").write_text("not a text file")
    config = TextFileConfig(context=4, path=str(tmp_path), train_frac=0.5)
    bundle = build_text_file(config)
    assert bundle.info.labels == ("\n", "a", "b", "c")
    shown = "".join(bundle.info.labels[i] for w in range(2) for i in bundle.train[w][0])
    assert shown == "aaaaaa\nb"


def test_line_ends_and_byte_order_mark_are_dropped(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffäb\r\n".encode() * 1 + b"ab\r\n" * 20)
    bundle = build_text_file(TextFileConfig(context=4, path=str(tmp_path)))
    assert bundle.info.labels == ("\n", "a", "b", "ä")


def test_missing_data_is_one_clear_line(tmp_path):
    with pytest.raises(DataError, match=r"data\.path is empty"):
        build_text_file(TextFileConfig())
    with pytest.raises(DataError, match=r"nowhere\.txt: no such file or folder; choose"):
        build_text_file(TextFileConfig(path=str(tmp_path / "nowhere.txt")))
    with pytest.raises(DataError, match=r"no file matches '\*\*/\*\.txt'; choose"):
        build_text_file(TextFileConfig(path=str(tmp_path)))
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match="the text is empty"):
        build_text_file(TextFileConfig(path=str(tmp_path)))
    (tmp_path / "image.txt").write_bytes(b"\x89PNG\xff")
    with pytest.raises(DataError, match=r"image\.txt: not UTF-8 text \(byte 0\)"):
        build_text_file(TextFileConfig(path=str(tmp_path / "image.txt")))
    (tmp_path / "short.txt").write_text("short")
    with pytest.raises(DataError, match="4 characters to train on"):
        build_text_file(TextFileConfig(path=str(tmp_path / "short.txt")))


def test_absolute_pattern_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"pattern '/x/\*' cannot be used"):
        build_text_file(TextFileConfig(path=str(tmp_path), pattern="/x/*"))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_fraction_is_checked(fraction):
    with pytest.raises(ConfigError, match=r"data\.train_frac"):
        TextFileConfig(train_frac=fraction)
