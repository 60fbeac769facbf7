"""The first ten minutes of somebody with a folder of recordings and a spreadsheet."""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

import emolight
from emolight.__main__ import main
from emolight.models.features import Waveform
from emolight.models.networks import WaveCNN
from emolight.run.words import shipped

pytestmark = pytest.mark.drawn

SMALL = ["--data.duration=0.6", "--data.batch_size=8", "--data.cache_dir=cache", "--trainer.max_epochs=1"]
SMALL += ["--trainer.limit_train_batches=1", "--trainer.accelerator=cpu"]
MINE = ["fit", "--config", "mfcc", "--data.corpus", "mine.csv", *SMALL]
RUN = "lightning_logs/mfcc/version_0"
Type = Callable[..., str]


@pytest.fixture(scope="module")
def desk(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The newcomer's folder: 80 recordings of ten people, and their spreadsheet."""
    place = tmp_path_factory.mktemp("desk")
    (place / "recordings").mkdir()
    rows = []
    for clip in sorted(corpus.rglob("03-01-0[34]-*-*-01-*.wav")):
        emotion, actor = {"03": "happy", "04": "sad"}[clip.stem[6:8]], int(clip.stem[-2:])
        if actor <= 10:
            name = f"recordings/{emotion}_{actor}_{clip.stem[9:14]}.wav"
            shutil.copy(clip, place / name)
            rows.append({"path": name, "emotion": emotion, "speaker": f"Jörg {actor}", "mood": "good"})
    pd.DataFrame(rows).to_csv(place / "mine.csv", index=False)
    voices = [soundfile.read(path)[0] for path in sorted((place / "recordings").iterdir())[:12]]
    soundfile.write(place / "talk.wav", np.concatenate(voices), 16000)
    soundfile.write(place / "cd.flac", np.stack([voices[0], voices[0]], axis=1), 44100)
    (place / "notes.docx").write_text("no sound")
    return place


@pytest.fixture
def types(desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """Types a command in that folder; gives what it said, on both streams."""
    monkeypatch.chdir(desk)

    def typed(*words: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as end:
            main(list(words))
        said = "".join(capsys.readouterr())
        assert end.value.code == code, said
        if code == 2:
            assert said.count("\n") <= 3
            assert "Traceback" not in said
        return said

    return typed


@pytest.fixture
def trained(desk: Path, types: Type) -> str:
    """A run on these recordings, made when it is first needed."""
    return (desk / "said.txt").read_text() if (desk / RUN).exists() else _train(desk, types)


def _train(desk: Path, types: Type) -> str:
    said = types(*MINE)
    (desk / "said.txt").write_text(said)
    return said


def test_nothing_typed_shows_the_commands(types: Type) -> None:
    assert "fit --config demo" in types()


def test_my_own_table_in_one_line(trained: str) -> None:
    for text in (
        "48 training clips of 6 speakers",
        "speaker-independent",
        "UAR",
        "recall sad",
        "next:",
        f"predict {RUN}",
    ):
        assert text in trained


def test_a_spreadsheet_with_semicolons_in_utf16(desk: Path, types: Type) -> None:
    table = pd.read_csv(desk / "mine.csv").rename(columns={"path": "file", "emotion": "label", "speaker": "actor"})
    table.to_csv(desk / "excel.csv", index=False, sep=";", encoding="utf-16")
    data = emolight.EmotionDataModule("excel.csv", duration=0.6, cache_dir="cache")
    data.setup()
    assert (data.classes, len(data.clips), data.split.label) == (["happy", "sad"], 80, "speakers5 fold 1 seed 0")


def test_an_old_spreadsheet_in_latin1_with_tabs(desk: Path, types: Type) -> None:
    pd.read_csv(desk / "mine.csv").to_csv(desk / "old.csv", index=False, sep="\t", encoding="latin-1")
    assert "Jörg 3" in set(emolight.Table("old.csv").find(desk).table["speaker"])


def test_a_table_without_speakers(desk: Path, types: Type) -> None:
    pd.read_csv(desk / "mine.csv").drop(columns="speaker").to_csv(desk / "nobody.csv", index=False)
    assert "--data.speakers unknown" in types("fit", "--data.corpus", "nobody.csv", *SMALL, code=2)


def test_a_table_with_a_recording_that_is_gone(desk: Path, types: Type) -> None:
    table = pd.read_csv(desk / "mine.csv")
    table.loc[3, "path"] = "recordings/gone.wav"
    table.to_csv(desk / "hole.csv", index=False)
    said = types("fit", "--data.corpus", "hole.csv", *SMALL, code=2)
    assert "hole.csv, line 5" in said
    assert "gone.wav" in said


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("train", "Did you mean 'fit'?"),
        ("fit --config mfc", "Did you mean 'mfcc'?"),
        ("fit --config features", "python -m emolight sweep --config features"),
        ("sweep --config mel", "python -m emolight fit --config mel"),
        ("fit mfcc.yaml", "--config mfcc.yaml"),
        ("fit --epochs 3", "Did you mean '--trainer.max_epochs'?"),
        ("fit --lr 0.1", "Did you mean '--model.learning_rate'?"),
        ("fit --ckpt_path lightning_logs", "fit --resume RUN"),
        ("fit -config mfcc", "Did you mean '--config'?"),
        ("fit --model.features.help MFC", "Did you mean 'MFCC'?"),
        ("fit --data.corpus gone.csv", "gone.csv"),
        ("fit --data.corpus mine.cvs", "Did you mean 'mine.csv'?"),
        ("crossval --config mfcc --nested mfc", "Did you mean 'mfcc'?"),
        ("crossval --config mfcc --data.corpus mine.csv --nested sweeps/mfcc.yaml --folds 9", "no fold 9"),
        ("crossval --config mfcc --seed 1", "Did you mean '--seeds'?"),
        ("crossval transfer --config mfcc --train-on mine.csv", "--train-on CORPUS --test-on OTHER"),
        ("fit --data.corpus mine.csv --data.emotions [hapy,sad]", "Did you mean 'happy'?"),
        ("fit --data.corpus mine.csv --data.protocol emobox6", "speakers5"),
        ("fit --data.corpus mine.csv --data.fold 9", "from 1 to 5"),
        ("fit --data.corpus mine.csv --trainer.precision fp16", "Did you mean '16-mixed'?"),
        ("fit --data.corpus mine.csv --model.network resnet18", "Did you mean 'ResNet18'?"),
        ("predict recordings talk.wav", "lightning_logs/NAME/version_N"),
        ("predict gone.ckpt talk.wav", "gone.ckpt"),
        ("test", "--ckpt_path lightning_logs/NAME/version_N"),
        ("audit recordings", "--corpus mine.csv"),
    ],
)
def test_what_is_mistyped_is_answered_with_what_was_meant(words: str, hint: str, types: Type) -> None:
    assert hint in types(*words.split(), code=2)


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed(package: str, types: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        __import__(package)
    except ImportError:
        assert f"pip install {package}" in types(*MINE, "--config", package, "--name", package, code=2)
    else:
        monkeypatch.setenv("WANDB_MODE", "offline")
        monkeypatch.setenv("WANDB_SILENT", "true")
        types(*MINE, "--config", package, "--name", package)
        (kept,) = Path().glob("wandb/offline-run-*/*.wandb" if package == "wandb" else "mlruns.db")
        assert package == "mlflow" or b"val/uar" in kept.read_bytes()
        assert Path("lightning_logs", package, "version_0", "metrics.csv").is_file()


@pytest.mark.parametrize(
    ("words", "module", "extra"),
    [("demo {run}", "gradio", "demo"), ("export {run}", "onnx", "export")],
)
def test_a_part_that_is_not_installed(
    words: str, module: str, extra: str, trained: str, types: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(f"emolight.inference.{extra}.find_spec", lambda name: None)
    assert f"emolight[{extra}]" in types(*words.format(run=RUN).split(), code=2)


def test_recipes_are_copied_edited_and_found_first(desk: Path, types: Type) -> None:
    assert "configs/mel.yaml" in types("recipes")
    copied = desk / "copied"
    types("recipes", "copied")
    assert (copied / "sweeps" / "demo.yaml").read_text() == (shipped("sweeps") / "demo.yaml").read_text()
    (copied / "configs" / "mel.yaml").write_text("name: changed\n")
    assert "stays as it is" in types("recipes", "copied")
    os.chdir(copied)
    assert yaml.safe_load(types("fit", "--config", "mel", "--print_config"))["name"] == "changed"
    assert (
        yaml.safe_load(types("fit", "--config", "mfcc", "--config", "full", "--print_config"))["data"]["task"] == "full"
    )


def test_splits_lie_beside_the_runs_where_there_are_no_recipes(desk: Path, trained: str) -> None:
    assert list((desk / "lightning_logs" / "splits").glob("mine-*.csv"))
    assert not (desk / "configs").exists()


def test_the_test_speakers(trained: str, types: Type) -> None:
    said = types("test", "--ckpt_path", RUN)
    assert "test: 16 clips of 2 speakers" in said
    assert "UAR of the control: majority class" in said


def test_a_folder_a_checkpoint_and_python_say_the_same(trained: str, types: Type) -> None:
    clip = "recordings/sad_1_01-01.wav"
    types("predict", RUN, clip, "--output", "one.json")
    types("predict", f"{RUN}/checkpoints/best.ckpt", clip, "--output", "other.json")
    one, other = (json.loads(Path(name).read_text())[0]["probabilities"] for name in ("one.json", "other.json"))
    assert one == other
    assert emolight.load(RUN).predict_file(clip).probabilities["sad"] == pytest.approx(one["sad"], abs=1e-5)


def test_a_long_recording_becomes_a_time_line(trained: str, types: Type) -> None:
    said = types("predict", RUN, "talk.wav", "--output", "talk.csv")
    assert "talk.csv" in said
    assert len(pd.read_csv("talk.csv")) > 5


def test_stereo_of_another_rate_and_a_folder(trained: str, types: Type) -> None:
    assert "cd.flac" in types("predict", RUN, "cd.flac")
    assert types("predict", RUN, "recordings").count("recordings/") == 80


def test_a_file_that_is_no_sound_and_an_output_that_is_no_format(trained: str, types: Type) -> None:
    assert "notes.docx" in types("predict", RUN, "notes.docx", code=1)
    assert ".csv, .jsonl, .json, .txt" in types("predict", RUN, "talk.wav", "--output", "talk.xlsx", code=2)


def test_a_finished_fit_is_asked_to_go_on(trained: str, types: Type) -> None:
    assert "UAR" in types("fit", "--resume", RUN)


def test_a_page_and_a_ranking(trained: str, types: Type) -> None:
    assert "report.html" in types("report", RUN)
    assert "mfcc version_0" in types("compare", "lightning_logs")


def test_a_plain_trainer(desk: Path, types: Type) -> None:
    data = emolight.EmotionDataModule("mine.csv", duration=0.6, batch_size=8, cache_dir="cache")
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=1, accelerator="cpu", **quiet)
    trainer.fit(emolight.EmotionClassifier(Waveform, WaveCNN), data)
    trainer.save_checkpoint("plain.ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert "talk.wav" in types("predict", "plain.ckpt", "talk.wav")


def test_the_notebook_is_there_and_begins_with_the_import() -> None:
    notebook = json.loads((Path(__file__).resolve().parents[1] / "docs" / "start.ipynb").read_text(encoding="utf-8"))
    code = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    assert "".join(code["source"]).startswith("import emolight")
