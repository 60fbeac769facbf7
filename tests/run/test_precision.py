"""The precision that a fit takes by itself, and who else has a word in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from emolight.__main__ import run
from emolight.run.cli import full_config
from emolight.run.precision import fast_precision, processor
from tests.conftest import pytest_report_header

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
Machine = Any


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    def make(
        cuda: list[tuple[int, int]] | None = None, mps: bool = False, avx: bool = False, amx: bool = False
    ) -> None:
        cards = cuda or []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cards))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: cards[number])
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)

    return make


@pytest.mark.parametrize(
    ("there", "accelerator", "precision"),
    [
        ({"cuda": [(8, 0)]}, "auto", "bf16-mixed"),
        ({"cuda": [(9, 0), (10, 0)]}, "gpu", "bf16-mixed"),
        ({"cuda": [(7, 5)]}, "auto", "32-true"),
        ({"cuda": [(9, 0), (7, 0)]}, "cuda", "32-true"),
        ({"cuda": [(7, 5)], "avx": True}, "auto", "32-true"),
        ({"cuda": [(9, 0)]}, "cpu", "32-true"),
        ({"mps": True, "avx": True}, "auto", "32-true"),
        ({"mps": True, "avx": True}, "cpu", "bf16-mixed"),
        ({"avx": True}, "auto", "bf16-mixed"),
        ({"amx": True}, "cpu", "bf16-mixed"),
        ({}, "auto", "32-true"),
        ({"avx": True}, "tpu", "32-true"),
    ],
)
def test_a_device_takes_what_it_is_fast_at(
    machine: Machine, there: dict[str, Any], accelerator: str, precision: str
) -> None:
    machine(**there)
    assert fast_precision(accelerator) == precision


def test_a_pytorch_that_does_not_know_the_units_takes_float32(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine()
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name)
    assert fast_precision("auto") == "32-true"


def test_fit_says_and_keeps_its_precision(
    machine: Machine, corpus: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", str(CONFIGS / "mfcc.yaml"), "--data.corpus=Synthetic", f"--data.root={corpus}"]
    words += [f"--data.cache_dir={corpus.parent / 'cache'}", "--data.duration=0.6", "--data.splits_dir=splits"]
    words += ["--trainer.accelerator=cpu", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]
    words += ["--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--model.network=MobileNetV3"]
    own = here / "own.yaml"
    own.write_text("trainer: {precision: 32-true}\n", encoding="utf-8")
    for number, (given, expected) in enumerate((([], "bf16-mixed"), (["--config", str(own)], "32-true"))):
        machine(avx=True)
        assert run(["fit", *words, *given]) == 0
        folder = here / "lightning_logs" / "mfcc" / f"version_{number}"
        assert f"device: cpu, precision {expected}" in capsys.readouterr().out.splitlines()[3]
        assert json.loads((folder / "environment.json").read_text(encoding="utf-8"))["precision"] == expected
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        assert config["trainer"]["precision"] == expected
    # On another machine it goes on as it began.
    machine()
    assert run(["fit", "--resume", "lightning_logs/mfcc/version_0"]) == 0
    assert "precision bf16-mixed" in capsys.readouterr().out


def test_the_overlay_is_still_one() -> None:
    both = ["--config", str(CONFIGS / "mfcc.yaml"), "--config", str(CONFIGS / "overlays" / "bf16.yaml")]
    assert full_config(both)["trainer"]["precision"] == "bf16-mixed"
    assert full_config(both[:2])["trainer"]["precision"] is None


def test_a_log_says_which_cpu_it_is_from(machine: Machine) -> None:
    machine(avx=True)
    assert processor().endswith(" (bfloat16: avx512_bf16)")
    assert pytest_report_header().startswith(f"cpu: {processor()}, torch {torch.__version__}")
    machine(avx=True, amx=True)
    assert processor().endswith(" (bfloat16: amx_bf16, avx512_bf16)")
    machine()
    assert processor().endswith(" (bfloat16: none)")
