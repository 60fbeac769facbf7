"""Checkpoint files: whole, checked, and never executed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emolight.errors import EmolightError
from emolight.models.checkpoint import read_checkpoint, save_checkpoint, weights_only_state
from emolight.models.loading import load_classifier

CONTENT: dict[str, Any] = {
    "state_dict": {"weight": torch.arange(5000.0)},
    "hyper_parameters": {"classes": ["calm"], "features": {}, "network": {}},
    "training": {},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_checkpoint(CONTENT, tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


def test_it_reads_what_was_written_and_so_does_pytorch(path: Path) -> None:
    for found in (read_checkpoint(path), torch.load(path, weights_only=True)):
        assert torch.equal(found["state_dict"]["weight"], CONTENT["state_dict"]["weight"])


@pytest.mark.filterwarnings("ignore:.*has no checksum")
def test_flipped_bits_are_caught(path: Path) -> None:
    """Or they lie in the words beside the checksum, and the content is whole."""
    whole = bytearray(path.read_bytes())
    random = np.random.default_rng(0)
    places = [*random.integers(len(whole), size=40), *range(len(whole) - 102, len(whole), 5)]
    for place, bit in zip(places, random.integers(8, size=len(places)), strict=True):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        if len(whole) - 80 <= place < len(whole) - 64:
            assert torch.equal(read_checkpoint(path)["state_dict"]["weight"], CONTENT["state_dict"]["weight"])
            continue
        with pytest.raises(EmolightError, match=r"model\.ckpt (is damaged|is cut off|is no checkpoint)"):
            read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "is no checkpoint: it begins with b'<!DOCTYPE html><'"),
        (b"PK\x03\x04 cut", "is cut off"),
    ],
)
def test_what_is_no_checkpoint_is_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(content)
    with pytest.raises(EmolightError) as caught:
        load_classifier(tmp_path / "model.ckpt")
    assert str(caught.value).startswith(f"{tmp_path / 'model.ckpt'} {message}")
    assert len(str(caught.value).splitlines()) <= 3


def test_a_cut_file_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) - 80, len(whole) // 2, 100):
        path.write_bytes(whole[:length])
        with pytest.raises(EmolightError, match="is cut off"):
            read_checkpoint(path)


def test_the_weights_alone_go_without_the_training() -> None:
    whole = {**CONTENT, "optimizer_states": [1], "loops": {}, "callbacks": {}, "epoch": 3}
    assert weights_only_state(whole) == {**CONTENT, "epoch": 3}


def test_another_projects_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    save_checkpoint({"state_dict": {}}, path)
    with pytest.raises(EmolightError, match="not a Lightning checkpoint"):
        read_checkpoint(path)
    hyper_parameters: list[Any] = [{}, [1, 2], None]
    for trained in hyper_parameters:
        save_checkpoint({"hyper_parameters": trained, "state_dict": {}, "training": {}}, path)
        with pytest.raises(EmolightError, match="not a checkpoint of emolight"):
            read_checkpoint(path)
    with pytest.raises(EmolightError, match="There is no checkpoint"):
        read_checkpoint(tmp_path / "none.ckpt")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint({**CONTENT, "more": 1}, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_what_would_execute_is_refused_even_with_a_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "executed"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {marker}",)

    save_checkpoint({**CONTENT, "extra": Hostile()}, tmp_path / "model.ckpt")
    with pytest.raises(EmolightError, match="nothing in it was executed") as caught:
        read_checkpoint(tmp_path / "model.ckpt")
    assert not marker.exists()
    assert "weights_only" not in str(caught.value)  # PyTorch's advice is to execute what stands in the file
