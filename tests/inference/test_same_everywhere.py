"""One clip, five ways to hear it, one answer."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

import emolight
from emolight.__main__ import run
from emolight.data.ravdess import discover

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "mfcc.yaml"


def test_test_predict_python_onnx_and_demo_agree(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    demo = pytest.importorskip("emolight.inference.demo", exc_type=ImportError)
    monkeypatch.chdir(tmp_path)
    small = ["--data.channels=[speech]", "--data.duration=0.6", "--data.batch_size=16", "--data.splits_dir=splits"]
    small += ["--trainer.max_epochs=1", "--trainer.limit_train_batches=4", "--trainer.accelerator=cpu"]
    run(["fit", "--config", str(CONFIG), f"--data.root={corpus}", "--data.cache_dir=cache", *small])
    checkpoint = tmp_path / "lightning_logs/mfcc/version_0/checkpoints/best.ckpt"
    run(["test", "--ckpt_path", str(checkpoint)])
    run(["export", str(checkpoint), "--output", "model.onnx"])

    def table(path: Path, key: str) -> dict[str, list[float]]:
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        return {Path(row[key]).stem: [float(row[f"prob_{name}"]) for name in classes] for row in rows}

    model, exported = emolight.load(checkpoint), emolight.load("model.onnx")
    classes = model.classes
    tested = table(checkpoint.parents[1] / "predictions_test.csv", "clip_id")
    paths = {row.clip_id: corpus / row.path for row in discover(corpus).table.itertuples() if row.clip_id in tested}
    some = list(paths)[::16]
    for name, source in (("predicted", checkpoint), ("exported", "model.onnx")):
        run(["predict", str(source), *(str(paths[clip]) for clip in some), "--output", f"{name}.csv"])
    predicted, by_onnx = (table(tmp_path / f"{name}.csv", "path") for name in ("predicted", "exported"))
    assert len(some) == 5
    assert len({tuple(tested[clip]) for clip in some}) == 5
    for clip in some:
        wave, rate = soundfile.read(paths[clip])
        for told in (
            predicted[clip],
            by_onnx[clip],
            list(model.predict(wave, rate).probabilities.values()),
            list(exported.predict(wave, rate).probabilities.values()),
            list(demo.hear(model, paths[clip]).probabilities.values()),
        ):
            assert np.abs(np.array(told) - tested[clip]).max() < 1e-4
