"""The command: from the YAML to the page, its resume, its signals, its workers that die."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import TrialState

from emolight.__main__ import run
from emolight.errors import EmolightError
from emolight.sweep import workers
from emolight.sweep.space import read_sweep
from emolight.sweep.storage import open_storage, sqlite_url
from emolight.sweep.study import SlotStudy, create_study, finished
from emolight.sweep.sweep import main
from emolight.sweep.trial import check_sweep
from tests.sweep import trivial


def study() -> SlotStudy:
    return SlotStudy("small", open_storage("sqlite:///lightning_logs/small/study.db"))


def test_sweep_resume_and_retrain(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sweep", *words, "--trials", "1"]) == 0
    assert run(["sweep", *words, "--workers", "2"]) == 0
    told = capsys.readouterr().out
    assert "trial 1: complete" in told
    assert "optuna-dashboard sqlite:////" in told
    assert [trial.state for trial in study().trials] == [TrialState.COMPLETE] * 2
    folder = Path("lightning_logs/small")
    for name in ("trials.csv", "sweep.html", "trial_0000", "trial_0001"):
        assert (folder / name).exists()
    best = max(study().trials, key=lambda trial: trial.values[0])
    config = yaml.safe_load((folder / "best.yaml").read_text())
    assert config["model"]["learning_rate"] == pytest.approx(best.params["model.learning_rate"])
    assert config["trainer"]["devices"] == "auto"
    kept = {path.parts[2] for path in folder.glob("trial_*/*/checkpoints")}
    assert f"trial_{best.number:04d}" in kept
    assert run(["sweep", "retrain", "--config", str(folder)]) == 0
    assert (folder / "retrained" / "version_0" / "checkpoints" / "best.ckpt").is_file()
    crossval = ["--protocol", "emobox6", "--workers", "2", "--folds", "1", "--seeds", "0"]
    assert run(["sweep", "retrain", "--config", "small.yaml", *crossval]) == 0
    assert (folder / "retrained" / "crossval_emobox6" / "crossval.json").is_file()
    with pytest.raises(EmolightError, match=r"small/trial_0000 is of another study than that in sqlite:///other\.db"):
        run(["sweep", *words, "--storage", "sqlite:///other.db"])
    with pytest.raises(EmolightError, match=r"begun with another search: trainer\.precision"):
        run(["sweep", *words, "--trainer.precision", "bf16-mixed"])
    path = Path("small.yaml")
    path.write_text(path.read_text().replace("high: 5.0e-3", "high: 0.01"))
    with pytest.raises(EmolightError, match=r"space\.model\.learning_rate\.high: 0\.005 -> 0\.01"):
        run(["sweep", "worker", *words, "--storage", "sqlite:///lightning_logs/small/study.db"])


def test_ctrl_c_leaves_nothing_running(words: list[str]) -> None:
    path = Path("small.yaml")
    path.write_text(path.read_text().replace("epochs: 1", "epochs: 10000"))  # no trial ends before the signal
    process = subprocess.Popen(
        [sys.executable, "-m", "emolight", "sweep", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Where the tests run in the background, Ctrl-C is ignored, and so it would be here.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for _ in range(1200):
        if process.poll() is not None or list(Path("lightning_logs").glob("small/trial_0000/version_0/split.csv")):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 130, text
    assert "the same command goes on" in text
    states = [trial.state for trial in study().trials]
    assert TrialState.RUNNING not in states
    assert states.count(TrialState.WAITING) == 2


def test_a_worker_needs_a_study(words: list[str], here: Path) -> None:
    with pytest.raises(EmolightError, match="A worker needs the study's storage"):
        main(["worker", *words])
    open_storage(f"sqlite:///{here}/other.db", True)
    with pytest.raises(EmolightError, match="The storage has no study 'small'"):
        main(["worker", *words, "--storage", f"sqlite:///{here}/other.db"])


def test_a_worker_makes_the_trials_that_the_sweep_would_make(
    words: list[str], corpus: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, moved, begun = Path(words[1]), here / "moved", list[Any]()
    plan, url, text = check_sweep(read_sweep(path), words[2:]), "sqlite:///my.db", path.read_text()
    create_study(open_storage(url, True), "small", plan.sweep.objectives, plan.definition, 40)
    monkeypatch.setattr(workers, "work", lambda study, *_: begun.append(study.make_sampler(0)))
    shutil.copytree(corpus, moved)
    first, *_ = sorted(moved.rglob("*.wav"))
    first.write_bytes(first.read_bytes()[:-2] + b"12")

    def told(changed: str, root: Path = corpus) -> str:
        path.write_text(text.replace("pruner: none", changed))
        try:
            main(["worker", *words, "--storage", url, f"--data.root={root}"])
        except EmolightError as error:
            return str(error).replace("The study 'small' was begun with another search: ", "")
        return ""

    problems = [told("pruner: none")]
    plan.folder.mkdir(parents=True)
    problems += [told("pruner: median"), told("pruner: none\nsampler: random"), told("pruner: none", moved)]
    starts = ["The sweep's folder lightning_logs/small is not", 'pruner: "', 'sampler: "', 'clips: "480 (']
    assert [one[: len(start)] for one, start in zip(problems, starts, strict=True)] == starts
    assert [told("pruner: none"), begun[0]._n_startup_trials] == ["", 10]  # of a budget of 40, not of the YAML's two


def test_retrain_before_the_sweep(words: list[str]) -> None:
    with pytest.raises(EmolightError, match=r"There is no lightning_logs/small/best\.yaml"):
        main(["retrain", *words[:2]])


def test_a_name_beside_the_folder_of_a_sweep_is_of_the_new_runs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[str]] = []
    monkeypatch.setattr("emolight.run.cli.main", told.append)
    for name in ("lightning_logs/small", "lightning_logs/mine/small", "copied"):
        (here / name).mkdir(parents=True)
        (here / name / "best.yaml").touch()
        for more in ([], ["--name", "longer"]):
            main(["retrain", "--config", name, *more])
    with contextlib.chdir("lightning_logs/small"):
        main(["retrain", "--config", "."])
    names = ["small/retrained", "longer", "mine/small/retrained", "longer", "copied/retrained", "longer"]
    assert [words[4] for words in told] == [*names, "small/retrained"]


def die(*_: Any) -> None:
    print("so it goes", flush=True)
    os._exit(1)


def test_workers_that_get_nothing_done_stop_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "run_worker", die)
    url = sqlite_url(tmp_path / "study.db")
    with pytest.raises(EmolightError, match=r"worker 0 ended with 1: so it goes"):
        workers.run_workers(trivial.make(url, 2), trivial.plan(tmp_path), url, 1, lambda: None)


def test_a_killed_worker_is_replaced_and_a_timeout_gives_the_slots_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    monkeypatch.setattr(workers, "run_worker", trivial.run_worker)
    url = sqlite_url(tmp_path / "study.db")
    made, killed = trivial.make(url, 2), list[int]()

    def watch() -> None:
        if (running := trivial.begun(made)) and not killed:
            killed.append(running[0].user_attrs["process"])
            os.kill(killed[0], signal.SIGKILL)

    assert workers.run_workers(made, trivial.plan(tmp_path, 2), url, 1, watch)
    assert killed
    assert trivial.states(made) == {"COMPLETE": 2, "FAIL": 1}
    made, seen = trivial.make(url, 3), list[int]()

    def end() -> None:
        seen.append(len(trivial.begun(made)))
        if seen[-1] or len(seen) == 180:
            clock.append(601.0)

    assert not workers.run_workers(made, trivial.plan(tmp_path, 600, timeout=600), url, 1, end)
    assert seen[-1] == 1
    assert finished(made) == 2
    assert TrialState.RUNNING not in [trial.state for trial in made.trials]
