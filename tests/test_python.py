"""The Python interface: the public names, a plain Lightning Trainer, ``emolight.fit``, and the notebook of the docs."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest

import emolight
from emolight import EmotionClassifier, EmotionDataModule
from emolight.__main__ import run
from emolight.errors import EmolightError
from emolight.models.vision import ResNet18
from emolight.run.words import word_of
from tests.encoders import make_wav2vec
from tests.small import CONFIGS, options

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "start.ipynb"


def test_importing_the_package_imports_nothing_slow() -> None:
    code = "import sys, emolight; print(sorted({'torch', 'pandas', 'numpy', 'lightning'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_public_name_is_there() -> None:
    for name in emolight.__all__:
        assert getattr(emolight, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = emolight.nothing  # type: ignore[attr-defined]


def test_options_may_be_paths_and_numbers_of_numpy_but_no_objects() -> None:
    assert word_of("data.root", Path("a")) == "--data.root=a"
    assert word_of("data.root", [Path("a"), "b"]) == '--data.root=["a", "b"]'
    assert word_of("trainer.max_epochs", np.arange(4)[3]) == "--trainer.max_epochs=3"
    with pytest.raises(EmolightError, match=r"trainer\.callbacks has an object, <.*EarlyStopping.*\nName a class, as"):
        emolight.fit("mfcc", trainer__callbacks=[pl.callbacks.EarlyStopping("val/uar")])


def test_a_checkpoint_of_a_plain_trainer_is_a_model_like_any_other(corpus: Path, here: Path) -> None:
    data = EmotionDataModule(
        "Synthetic", str(corpus), duration=0.6, batch_size=16, cache_dir=str(corpus.parent / "cache")
    )
    trainer = pl.Trainer(
        max_epochs=1,
        limit_train_batches=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = EmotionClassifier(learning_rate=1e-3)
    trainer.fit(model, data)
    trainer.save_checkpoint("mine.ckpt")
    with pytest.warns(UserWarning, match="no checksum"):
        loaded = emolight.load("mine.ckpt")
    clip = next(iter(sorted(corpus.rglob("*.wav"))))
    said = loaded.predict_file(clip)
    assert sum(said.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert run(["predict", "mine.ckpt", str(clip), "--output", "said.csv"]) == 0
    assert run(["export", "mine.ckpt", "--output", "mine.onnx"]) == 0
    exported = emolight.load("mine.onnx").predict_file(clip)
    assert exported.probabilities == pytest.approx(said.probabilities, abs=1e-4)
    every = trainer.predict(model, data.predict_dataloader())
    assert every is not None
    assert sum(len(np.asarray(batch["index"])) for batch in every) == len(data.clips)


def test_two_processes_of_a_plain_trainer_score_every_clip_once(corpus: Path, here: Path) -> None:
    """Also with a network that is fitted in one step, which DDP itself would not take."""
    (here / "script.py").write_text(
        f"""if __name__ == "__main__":
    from pathlib import Path
    import lightning.pytorch as pl
    from emolight import EmotionClassifier, EmotionDataModule

    cache = {str(corpus.parent / "cache")!r}
    data = EmotionDataModule("Synthetic", {str(corpus)!r}, duration=0.6, cache_dir=cache)
    model = EmotionClassifier("Waveform", "Classical", augment=[], mixup=0)
    of = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, limit_train_batches=2)
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", devices=2, strategy="ddp", **of)
    trainer.fit(model, data)
    found = [len(data.subset("val")), len(model.predictions["index"])]
    trainer.test(model, data, verbose=False)
    found += [len(data.subset("test")), len(model.predictions["index"])]
    Path(f"{{trainer.global_rank}}.txt").write_text(str(found))
"""
    )
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [(here / f"{rank}.txt").read_text() for rank in range(2)] == ["[80, 80, 80, 80]"] * 2


def test_fit_returns_the_run(corpus: Path, here: Path) -> None:
    words = dict(option.removeprefix("--").split("=", 1) for option in options(corpus))
    told = {name.replace(".", "__"): value for name, value in words.items()}
    told |= {"name": "api", "protocol": "luna5"}
    fitted = emolight.fit(str(CONFIGS / "mfcc.yaml"), **told, trainer__enable_progress_bar=False)
    assert fitted.folder == Path("lightning_logs/api/version_0")
    assert fitted.split.label == "luna5 fold 0"
    assert set(fitted.metrics) >= {"uar", "accuracy", "macro_f1", "recall"}
    assert len(fitted.predictions("val")) == fitted.metrics["n"]
    assert fitted.test()["n"] == len(fitted.split.clips("test"))
    assert fitted.openings == 1
    assert fitted.report().is_file()


def test_a_script_is_run_once_however_many_processes_train(corpus: Path, here: Path) -> None:
    words = dict(option.removeprefix("--").split("=", 1) for option in options(corpus))
    told = {name.replace(".", "__"): value for name, value in words.items()}
    told |= {"trainer__devices": "2", "trainer__strategy": "ddp", "trainer__enable_progress_bar": "false"}
    code = f"import emolight; run = emolight.fit('classical', **{told}); run.test(); print('tested', run.openings)"
    (here / "script.py").write_text(code)
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("tested")] == ["tested 1"]


def test_a_class_of_the_script_is_refused_where_other_processes_would_miss_it(
    corpus: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "Own", type("Own", (ResNet18,), {"__module__": "__main__"}), False)
    words = dict(option.removeprefix("--").split("=", 1) for option in options(corpus))
    told = {name.replace(".", "__"): value for name, value in words.items()}
    told |= {"model__network": "__main__.Own", "trainer__devices": "2", "trainer__strategy": "ddp"}
    with pytest.raises(EmolightError, match=r"__main__\.Own is a class of your script"):
        emolight.fit("mfcc", **told)
    assert not Path("lightning_logs").exists()


def test_the_notebook_runs(corpus: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    installed = importlib.util.find_spec("transformers") is not None
    path = make_wav2vec(here / "encoder") if installed else "nowhere"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(f"EPOCHS, ENCODER = 1, {str(path)!r}"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shutil.copytree(corpus, here / "data" / "synthetic")  # else it makes one of twice the size
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(here)}}).execute()
    assert (here / "lightning_logs" / "notebook" / "version_0" / "report.html").is_file()
    said = "".join(str(output.get("text", "")) for output in notebook.cells[-1].outputs)
    assert ("'notebook_encoder': " if installed else "no encoder: ") in said
