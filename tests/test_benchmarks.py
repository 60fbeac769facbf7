"""The benchmarks run: each prints its help, the parts that they share do what they say, and a failure is no end."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
CONFIGS = BENCHMARKS.parent / "configs"


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem != "common"))
def test_every_script_says_its_command(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = importlib.import_module(name)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 0
    assert f"python benchmarks/{name}.py" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["mfcc", "mel", "spectrogram"])
def test_the_notebook_way_makes_the_same_features(mode: str, corpus: Path) -> None:
    common = importlib.import_module("common")
    import librosa

    file = next(corpus.rglob("*.wav"))
    like = common.shipped(mode)
    image, label = common.Notebook([str(file)], [3], like)[0]
    wave = librosa.util.fix_length(librosa.effects.trim(librosa.load(file, sr=16000)[0], top_db=30)[0], size=36000)
    with torch.no_grad():
        ours = like(torch.from_numpy(wave)[None])[0]
    assert label == 3
    assert ours.shape == image.shape
    assert float((ours - image).abs().mean()) < 0.02 * float(image.std())


def test_clocks_and_bare_steps(here: Path, corpus: Path) -> None:
    common = importlib.import_module("common")
    steps: list[float] = []
    network = common.torchvision_network()
    step = common.stepper(network, network.parameters(), "bf16-mixed")
    images, labels = torch.randn(4, 1, 40, 19), torch.arange(4)
    folder = here / "lightning_logs" / "one"
    words = ["--config", str(CONFIGS / "mfcc.yaml"), "--data.corpus=Synthetic", f"--data.root={corpus}", "--name=one"]
    words += [f"--data.cache_dir={corpus.parent / 'cache'}", "--data.duration=0.6", "--data.splits_dir=splits"]
    words += ["--trainer.accelerator=cpu", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=2"]
    words += ["--trainer.max_epochs=2", "--model.network=MobileNetV3"]
    clock = common.EpochClock(lambda: steps.append(float(step(images, labels))))
    common.cli.main(["fit", *words], callbacks=[clock])
    assert len(steps) == len(clock.bare) == len(clock.training) == len(clock.whole) == len(clock.losses) == 2
    assert steps[1] != steps[0]
    assert all(0 < training < whole for training, whole in zip(clock.training, clock.whole, strict=True))
    common.timed_fold(str(folder), words)
    found = json.loads((folder / "clock.json").read_text(encoding="utf-8"))
    assert found["epochs"] == 2
    assert 0 < found["epochs_cpu"] < found["cpu"]
    # What nobody looks at is not drawn, and the tables are there.
    assert (folder / "version_1" / "predictions_test.csv").is_file()
    assert not (folder / "version_1" / "plots").exists()
    assert (folder / "version_0" / "plots" / "val_confusion.png").is_file()


def test_the_best_round_of_each_side_counts() -> None:
    compare = importlib.import_module("compare")
    rounds = [{"40×71 float32": {"emolight": 3.0, "other": 1.0}}, {"40×71 float32": {"emolight": 2.0, "other": 4.0}}]
    assert compare.best(rounds) == {"40×71 float32": {"emolight": 3.0, "other": 4.0}}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there it measures")
def test_the_gpu_script_is_a_smoke_test_without_a_gpu(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu: Any = importlib.import_module("gpu")

    def broken(bench: Any) -> str:
        raise RuntimeError("the driver is tired")

    sections = {"First": broken, "Waveforms": gpu.residence, "Maps": gpu.small_maps, "Parts": gpu.parts}
    monkeypatch.setattr(gpu, "SECTIONS", sections)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--folder", str(here / "out")])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 1
    text = (here / "out" / "gpu.md").read_text(encoding="utf-8")
    assert "the driver is tired" in text
    assert text.count("not measured") > 20
    assert "1 sections failed: First" in capsys.readouterr().out
    # On the CPU both roads give the same layer.
    far = [float(line.split("|")[-2]) for line in text.splitlines() if "channels" in line]
    assert len(far) == 8
    assert np.max(far) < 2e-2


def test_every_table_of_the_results_has_its_marks_and_its_rows_in_order(here: Path) -> None:
    results = importlib.import_module("results")
    rows = list(results.rows_of(Path("encoders"), Path("nemo")))
    made: set[str] = set()
    for row in rows:
        if row.command[0] == "ensemble":
            members = row.command[1 : row.command.index("--name")]
            assert {Path(one).relative_to(results.LOGS).as_posix() for one in members} <= made, row
        made.add(row.folder)
    assert len({(row.folder, row.clips) for row in rows}) == len({(row.table, row.label) for row in rows}) == len(rows)
    page = (BENCHMARKS.parent / "docs" / "results.md").read_text(encoding="utf-8")
    for name in {row.table for row in rows} | {"robustness", "time"}:
        assert f"<!-- {name} -->\n" in page


def test_tables_are_written_between_their_marks_and_nowhere_else(here: Path) -> None:
    results = importlib.import_module("results")
    page = here / "page.md"
    text = "before\n<!-- a -->\nold\n<!-- end -->\nbetween\n<!-- b -->\nkept\n<!-- end -->\n"
    page.write_text(text, encoding="utf-8")
    results.write(page, {"a": "new\n", "c": "nowhere\n"})
    assert page.read_text(encoding="utf-8") == text.replace("old", "new")


def test_a_table_of_which_nothing_was_run_stays(here: Path) -> None:
    results = importlib.import_module("results")
    assert results.tables([results.Row("a", "mine", "mine/crossval_x", ("crossval",))]) == {}


def test_a_row_that_is_not_run_here_stays_as_it_stands(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = importlib.import_module("results")
    cells = ["mine", "**66.1**", "60 to 70", "61 to 69", "66.1", "66.0", "5179", "a98d2ad"]
    head = ["system", "UAR %", "by speaker", "by clip", "accuracy", "F1", "wall s", "commit"]
    page = f"<!-- a -->\n{results.markdown(head, [cells])}<!-- end -->\n"
    assert results.standing(page, "a") == {"system": head, "---": ["---"] * 8, "mine": cells}
    rows = [results.Row("a", name, name, ("crossval", name)) for name in ("mine", "yours", "theirs")]
    monkeypatch.setattr(results.Row, "result", property(lambda row: row.label == "yours"))
    monkeypatch.setattr(results, "line", lambda row: [row.label, *cells[1:6], "3600", "new"])
    written = results.tables(rows, page)
    assert f"| {' | '.join(cells)} |" in written["a"]
    assert "| yours | **66.1** |" in written["a"]
    assert "Not run: 1 more rows" in written["a"]
    assert written["time"] == "2 of 3 rows; 2.4 hours of trainings, two at a time.\n"
