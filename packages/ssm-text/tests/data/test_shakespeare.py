from __future__ import annotations

import hashlib
import io
import urllib.error

import pytest
import torch

from ssm_core.errors import ConfigError, DataError
from ssm_text.data import shakespeare
from ssm_text.data.shakespeare import ShakespeareConfig, build_shakespeare

TEXT = b"First Citizen:\nBefore we proceed any further, hear me speak.\n" * 10


@pytest.fixture
def _small_file(monkeypatch):
    """Let the small text above pass as the real one."""
    monkeypatch.setattr(shakespeare, "SHA256", hashlib.sha256(TEXT).hexdigest())


def test_published_split(data_root):
    bundle = build_shakespeare(ShakespeareConfig(root=str(data_root), context=256, stride=1))
    assert bundle.info.n_outputs == 65
    assert len(bundle.train) == 1_003_854 - 256
    assert len(bundle.evaluation) == -(-(111_540 - 1) // 256)
    counted = sum(int((bundle.evaluation[i][1] >= 0).sum()) for i in range(len(bundle.evaluation)))
    assert counted == 111_540 - 1
    start = "".join(bundle.info.labels[i] for i in bundle.train[0][0][:14])
    assert start == "First Citizen:"


@pytest.mark.usefixtures("_small_file")
def test_a_part_of_the_training_text(tmp_path):
    path = tmp_path / "tinyshakespeare" / "input.txt"
    path.parent.mkdir()
    path.write_bytes(TEXT)

    def build(characters):
        config = ShakespeareConfig(root=str(tmp_path), context=16, train_characters=characters)
        return build_shakespeare(config)

    whole, part = build(None), build(100)
    assert len(whole.train) == (len(TEXT) * 9 // 10 - 1) // 16
    assert len(part.train) == 6
    assert all(
        torch.equal(a, b)
        for i in range(6)
        for a, b in zip(part.train[i], whole.train[i], strict=True)
    )
    assert len(part.evaluation) == len(whole.evaluation)
    assert part.info == whole.info  # the characters are those of the whole text


def test_too_small_a_part_is_refused():
    with pytest.raises(ConfigError, match=r"data\.train_characters is 16, expected null or more"):
        ShakespeareConfig(context=16, train_characters=16)


@pytest.mark.usefixtures("_small_file")
def test_a_text_shorter_than_the_context_is_one_line(tmp_path):
    path = tmp_path / "tinyshakespeare" / "input.txt"
    path.parent.mkdir()
    path.write_bytes(TEXT)
    with pytest.raises(DataError, match=r"expected at least 1001 and 2; use a longer") as caught:
        build_shakespeare(ShakespeareConfig(root=str(tmp_path), context=1000))
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("_small_file")
def test_download_is_kept(tmp_path, monkeypatch):
    calls = []

    def urlopen(url, timeout):
        calls.append((url, timeout))
        return io.BytesIO(TEXT)

    monkeypatch.setattr(shakespeare.urllib.request, "urlopen", urlopen)
    config = ShakespeareConfig(root=str(tmp_path / "new"), context=16)
    first = build_shakespeare(config)
    second = build_shakespeare(config)
    assert calls == [(shakespeare.URL, shakespeare.TIMEOUT_S)]
    assert (tmp_path / "new" / "tinyshakespeare" / "input.txt").read_bytes() == TEXT
    assert first.info == second.info


def test_no_network_says_where_and_how(tmp_path, monkeypatch):
    def urlopen(url, timeout):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(shakespeare.urllib.request, "urlopen", urlopen)
    with pytest.raises(DataError) as caught:
        build_shakespeare(ShakespeareConfig(root=str(tmp_path)))
    message = str(caught.value)
    assert str(tmp_path / "tinyshakespeare" / "input.txt") in message
    assert "no route to host" in message
    assert "--data.root" in message
    assert "curl" in message
    assert "\n" not in message
    assert not (tmp_path / "tinyshakespeare").exists()


def test_wrong_download_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(
        shakespeare.urllib.request, "urlopen", lambda url, timeout: io.BytesIO(b"<html>")
    )
    with pytest.raises(DataError, match="unexpected content"):
        build_shakespeare(ShakespeareConfig(root=str(tmp_path)))
    assert not (tmp_path / "tinyshakespeare" / "input.txt").exists()


def test_download_can_be_forbidden(tmp_path):
    with pytest.raises(DataError, match=r"input\.txt: no such file; set --data\.root"):
        build_shakespeare(ShakespeareConfig(root=str(tmp_path), download=False))


def test_another_local_file_is_refused(tmp_path):
    folder = tmp_path / "tinyshakespeare"
    folder.mkdir()
    (folder / "input.txt").write_bytes(TEXT)
    with pytest.raises(DataError, match=r"its SHA-256 differs.*--data text-file"):
        build_shakespeare(ShakespeareConfig(root=str(tmp_path)))
    assert (folder / "input.txt").read_bytes() == TEXT
