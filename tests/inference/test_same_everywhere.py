"""One clip, five ways to a prediction, one answer."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

import emolight
from emolight.__main__ import run
from emolight.data.corpora import Synthetic
from emolight.inference.ensemble import Mean
from emolight.inference.prediction import Prediction
from emolight.inference.recognizer import Recognizer
from emolight.run.folder import Run
from tests.small import CONFIGS, options


def test_test_predict_python_onnx_and_demo_agree(corpus: Path, here: Path) -> None:
    pytest.importorskip("onnxruntime")
    demo = pytest.importorskip("emolight.inference.demo", exc_type=ImportError)
    run(["fit", "--config", str(CONFIGS / "mfcc.yaml"), *options(corpus)])
    folder = here / "lightning_logs/mfcc/version_0"
    run(["test", "--ckpt_path", str(folder / "checkpoints/best.ckpt")])
    run(["export", str(folder), "--bundle", "bundle"])
    onnx = "bundle/model.onnx"
    head = yaml.safe_load(Path("bundle/README.md").read_text(encoding="utf-8").split("---\n")[1])
    (result,) = head["model-index"][0]["results"]
    assert result["dataset"]["split"].endswith("test clips")
    assert result["metrics"][0]["value"] == pytest.approx(Run.open(folder).metrics["uar"], abs=1e-4)

    def table(path: Path, key: str, *more: str) -> dict[str, list[float]]:
        columns = [*(f"prob_{name}" for name in classes), *more]
        with path.open(newline="") as stream:
            return {Path(row[key]).stem: [float(row[name]) for name in columns] for row in csv.DictReader(stream)}

    def plain(said: Prediction) -> list[float]:
        assert said.ood_score is not None
        assert (said.ood_score > 1) == any("out-of-distribution" in text for text in said.warnings)
        return [*said.probabilities.values(), said.ood_score]

    model, exported = emolight.load(folder), emolight.load(onnx)
    classes = model.classes
    assert exported.contract == model.contract
    tested = table(folder / "predictions_test.csv", "clip_id")
    clips = Synthetic().table(corpus)
    paths = {row.clip_id: corpus / row.path for row in clips.itertuples() if row.clip_id in tested}
    some = list(paths)[::16]
    for name, source in (("predicted", folder), ("exported", onnx)):
        run(["predict", str(source), *(str(paths[clip]) for clip in some), "--output", f"{name}.csv"])
    predicted, by_onnx = (table(here / f"{name}.csv", "path", "ood_score") for name in ("predicted", "exported"))
    assert len({tuple(tested[clip]) for clip in some}) == len(some) >= 4
    for clip in some:
        wave, rate = soundfile.read(paths[clip])
        for found in (
            predicted[clip],
            by_onnx[clip],
            plain(model.predict(wave, rate)),
            plain(exported.predict(wave, rate)),
            plain(demo.judge(model, paths[clip])[0]),
        ):
            assert np.abs(np.array(found[:-1]) - tested[clip]).max() < 1e-4
            assert found[-1] == pytest.approx(predicted[clip][-1], rel=1e-3)
    ensemble = Mean([((model.contract, model.network), weight) for weight in (0.25, 0.75)])
    assert plain(Recognizer(model.contract, ensemble).predict(wave, rate)) == pytest.approx(
        plain(model.predict(wave, rate))
    )
    of_val = [clips.set_index("clip_id").loc[name, "path"] for name in Run.open(folder).split.clips("val")]
    unfamiliar = [plain(model.predict_file(corpus / path))[-1] > 1 for path in of_val]
    assert np.mean(unfamiliar) == pytest.approx(0.05, abs=1.1 / len(unfamiliar))
    said = model.predict(np.random.default_rng(0).standard_normal(3 * rate) / 10, rate)
    assert len(said.windows) > 1
    assert plain(said)[-1] == pytest.approx(np.mean([plain(one)[-1] for one in said.windows]), rel=1e-4)
    trained = next(path for path in (corpus / row.path for row in clips.itertuples()) if path.stem not in tested)
    assert any("very recording" in text for text in exported.predict_file(trained).warnings)
