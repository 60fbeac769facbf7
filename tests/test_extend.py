"""A foreign corpus, a front-end and a network, each one file outside of the package, through every command.

``docs/extend.md`` is this test as a tutorial.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import emolight
from emolight.__main__ import run
from emolight.run.folder import Run

CORPUS = '''
from emolight.data.corpus import Corpus


class Mine(Corpus):
    """Files such as anna_happy_3.wav."""

    name = "friends"
    about = "sentences of four friends"

    def parse(self, stem):
        words = stem.split("_")
        if len(words) != 3:
            return None
        return {"clip_id": stem, "emotion": words[1], "speaker": words[0], "sex": "female"}
'''
FEATURES = '''
import torch

from emolight.models.features import FeatureAxis, Features


class Bands(Features):
    """The level of a few frequency bands of equal width, in dB."""

    mode, unit = "bands", "dB"

    def __init__(self, sample_rate: int, bands: int = 24, hop_length: int = 256) -> None:
        super().__init__(sample_rate)
        self.rows, self.hop_length = bands, hop_length

    @property
    def axis(self) -> FeatureAxis:
        return FeatureAxis("frequency", "Hz", "linear", 0.0, self.sample_rate / 2)

    def compute(self, waveform: torch.Tensor) -> torch.Tensor:
        frames = torch.nn.functional.pad(waveform, (256, 256)).unfold(-1, 512, self.hop_length)
        power = torch.fft.rfft(frames)[..., 1:].abs().square()
        bands = power.unflatten(-1, (self.rows, -1)).mean(dim=-1)
        return 10 * bands.clamp(min=1e-10).log10().transpose(1, 2).unsqueeze(1)
'''
NETWORK = '''
from torch import nn

from emolight.models.networks import Network


class Small(Network):
    """Two convolutions."""

    def __init__(self, in_channels: int, num_classes: int, width: int = 8) -> None:
        super().__init__(in_channels, num_classes)
        self.first = nn.Conv2d(in_channels, width, 3, stride=2, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.last = nn.Linear(2 * width, num_classes)

    def forward(self, image):
        maps = self.second(self.first(image).relu()).relu()
        return self.last(maps.mean(dim=(2, 3)))
'''


@pytest.fixture(scope="module")
def place(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the three files and some recordings; it is the working folder."""
    folder = tmp_path_factory.mktemp("mine")
    for name, text in (("my_corpus", CORPUS), ("my_features", FEATURES), ("my_network", NETWORK)):
        (folder / f"{name}.py").write_text(text)
    (folder / "recordings").mkdir()
    names = {"01": "anna", "02": "ben", "03": "cleo", "04": "dora", "05": "emil", "06": "fay"}
    for path in sorted(corpus.rglob("*.wav")):
        fields = emolight.RAVDESS().parse(path.stem) or {}
        if fields["speaker"] in names and fields["emotion"] in ("happy", "sad"):
            copy = f"{names[str(fields['speaker'])]}_{fields['emotion']}_{path.stem[9:17]}.wav"
            (folder / "recordings" / copy).symlink_to(path)
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOLIGHT_IMPORTS", "my_corpus,my_features,my_network")
        yield folder
    for name in ("my_corpus", "my_features", "my_network"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def fitted(place: Path) -> Run:
    """A run of the three."""
    words = [
        "--data.corpus=my_corpus.Mine",
        "--data.root=recordings",
        "--data.protocol=speakers5",
        "--data.duration=0.6",
    ]
    words += ["--model.features=my_features.Bands", "--model.features.bands=16", "--model.network=my_network.Small"]
    words += ["--model.network.width=6", "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.batch_size=8"]
    words += ["--data.cache_dir=cache", "--name=mine"]
    assert run(["fit", *words]) == 0
    return Run.open("lightning_logs/mine/version_0")


def test_fit_and_test_know_them(fitted: Run) -> None:
    model = fitted.config["model"]
    assert model["features"] == {"class_path": "my_features.Bands", "init_args": {"bands": 16, "hop_length": 256}}
    assert model["network"]["init_args"] == {"width": 6}
    assert fitted.environment["corpus"] == "friends"
    assert run(["test", "--ckpt_path", str(fitted.folder)]) == 0
    assert set(fitted.predictions("test")["label"]) == {"happy", "sad"}
    card = (fitted.folder / "MODEL_CARD.md").read_text()
    assert "sentences of four friends" in card
    assert "RAVDESS" not in card


def test_predict_explain_and_python_know_them(fitted: Run, place: Path) -> None:
    clip = next(iter(sorted((place / "recordings").iterdir())))
    words = ["predict", str(fitted.folder), str(clip), "--output", "said.csv", "--explain", "pictures"]
    assert run(words) == 0
    said = pd.read_csv("said.csv")
    assert said["prediction"][0] in ("happy", "sad")
    assert len(list(Path("pictures").glob("*.png"))) == 1
    assert emolight.load(fitted.folder).predict_file(clip).probabilities["sad"] == pytest.approx(
        said["prob_sad"][0], abs=1e-4
    )


def test_export_knows_them(fitted: Run, place: Path) -> None:
    assert run(["export", str(fitted.folder), "--output", "mine.onnx"]) == 0
    clip = next(iter(sorted((place / "recordings").iterdir())))
    exported, own = (emolight.load(path).predict_file(clip) for path in ("mine.onnx", fitted.best))
    assert exported.probabilities == pytest.approx(own.probabilities, abs=1e-4)


def test_report_knows_them(fitted: Run) -> None:
    assert run(["report", str(fitted.folder)]) == 0
    page = (fitted.folder / "report.html").read_text()
    assert "sentences of four friends" in page


def test_sweep_knows_them(fitted: Run, place: Path) -> None:
    Path("sweep.yaml").write_text(
        "name: mine_sweep\n"
        f"config: {fitted.folder / 'config.yaml'}\n"
        "space:\n  model.features.bands: {choices: [8, 16]}\n"
        "trials: 2\nepochs: 1\nfolds: [1]\npruner: none\n"
    )
    assert run(["sweep", "--config", "sweep.yaml"]) == 0
    assert Path("lightning_logs/mine_sweep/best.yaml").is_file()


def test_the_page_s_augmentation_changes_clips_in_training_alone() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "extend.md").read_text(encoding="utf-8")
    code = page.partition("`my_augment.py`:\n\n```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)
    telephone, clips = names["Telephone"](), torch.rand(2, 50)
    assert torch.equal(telephone.eval()(clips), clips)
    assert len(torch.unique(telephone.train()(clips) * 128 % 1)) == 1
