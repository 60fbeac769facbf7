"""The command: from the YAML to the page, its resume, its signals, its mistakes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from emolight.__main__ import run
from emolight.errors import EmolightError
from emolight.sweep.processes import signals_wait
from emolight.sweep.storage import open_storage
from emolight.sweep.study import SlotStudy, counting, create_study, is_done
from emolight.sweep.sweep import main
from emolight.sweep.workers import run_workers
from tests.small import CONFIGS, options
from tests.sweep.trivial import GRACE, NAME

YAML = f"""
config: {CONFIGS / "mfcc.yaml"}
space:
  model.learning_rate: {{low: 3.0e-4, high: 5.0e-3, log: true}}
trials: 2
epochs: 1
pruner: none
"""


@pytest.fixture
def words(corpus: Path, here: Path) -> list[str]:
    (here / "small.yaml").write_text(YAML)
    given = [word for word in options(corpus) if not word.startswith("--trainer.max_epochs")]
    return ["--config", "small.yaml", *given]


def study() -> SlotStudy:
    return SlotStudy("small", open_storage("sqlite:///lightning_logs/small/study.db"))


def test_sweep_resume_and_retrain(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sweep", *words, "--trials", "1"]) == 0
    assert run(["sweep", *words]) == 0
    told = capsys.readouterr().out
    assert "trial 1: complete" in told
    assert [trial.state for trial in study().trials] == [TrialState.COMPLETE] * 2
    folder = Path("lightning_logs/small")
    for name in ("best.yaml", "trials.csv", "sweep.html", "trial_0001/version_0/config.yaml"):
        assert (folder / name).is_file(), name
    assert run(["sweep", *words, "--trials", "1"]) == 0  # nothing is left to do
    assert run(["sweep", "retrain", "--config", str(folder)]) == 0
    assert (folder / "retrained" / "version_0" / "checkpoints" / "best.ckpt").is_file()
    with pytest.raises(EmolightError, match=r"begun with another search: config\.trainer\.precision"):
        run(["sweep", *words, "--trainer.precision", "bf16-mixed"])
    Path("small.yaml").write_text(YAML.replace("high: 5.0e-3", "high: 0.01"))
    with pytest.raises(EmolightError, match=r"space\.model\.learning_rate\.high: 0\.005 -> 0\.01"):
        run(["sweep", "worker", *words, "--storage", "sqlite:///lightning_logs/small/study.db"])


def test_ctrl_c_says_how_to_go_on_and_nothing_is_left_running(words: list[str]) -> None:
    Path("small.yaml").write_text(YAML.replace("epochs: 1", "epochs: 10000"))  # no trial ends before the signal
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
    assert "stopped; 0 of 2 trials are finished and kept" in text
    assert f"-m emolight sweep {words[0]}" in text
    states = [trial.state for trial in study().trials]
    assert TrialState.RUNNING not in states
    assert states.count(TrialState.WAITING) == 2


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--data.rot", "x"], "data.rot"),
        (["--model.learning_rate", "0.1"], "--model.learning_rate cannot be given"),
        (["--seed_everything", "1"], "seeds: "),
    ],
)
def test_mistakes_before_the_first_trial(extra: list[str], message: str, words: list[str]) -> None:
    with pytest.raises(EmolightError) as caught:
        main([*words, *extra])
    assert message in str(caught.value)
    assert not Path("lightning_logs").exists()


def test_worker_without_a_study(words: list[str], here: Path) -> None:
    with pytest.raises(EmolightError, match="A worker needs the study's storage"):
        main(["worker", *words])
    with pytest.raises(EmolightError, match="The storage has no study 'small'"):
        main(["worker", *words, "--storage", f"sqlite:///{here}/other.db"])


def test_retrain_before_the_sweep(words: list[str]) -> None:
    with pytest.raises(EmolightError, match=r"has no best\.yaml"):
        main(["retrain", *words[:2]])


def trivial(folder: Path, trials: int) -> tuple[SlotStudy, str]:
    url = f"sqlite:///{folder}/study.db"
    return create_study(open_storage(url, 1, GRACE), NAME, ["maximize"], {"epochs": 2}, trials), url


def test_workers_that_get_nothing_done_stop_the_sweep(tmp_path: Path) -> None:
    study, _ = trivial(tmp_path, 2)
    with pytest.raises(EmolightError, match=r"4 workers in a row ended .* 1: so it goes"):
        run_workers(
            study, [sys.executable, "-c", "print('so it goes'); raise SystemExit(1)"], 1, tmp_path, poll=0.1
        )


def test_a_killed_worker_is_replaced_at_once(tmp_path: Path) -> None:
    study, url = trivial(tmp_path, 2)
    killed: list[int] = []

    def watch() -> None:
        running = [
            trial for trial in counting(study).values() if trial.state is TrialState.RUNNING and trial.params
        ]
        if running and not killed:
            killed.append(int(running[0].user_attrs["worker"].rpartition(":")[2]))
            os.kill(killed[0], signal.SIGKILL)

    command = [sys.executable, "-m", "tests.sweep.trivial", url, "3"]
    assert run_workers(study, command, 1, tmp_path, watch=watch, poll=0.1)
    assert killed
    assert is_done(study)
    assert not [trial for trial in study.trials if trial.state is TrialState.RUNNING]


def test_a_timeout_gives_the_slots_back(tmp_path: Path) -> None:
    study, url = trivial(tmp_path, 1)
    command = [sys.executable, "-m", "tests.sweep.trivial", url, "600"]
    assert not run_workers(study, command, 1, tmp_path, timeout=0.5, poll=0.1)
    assert not [trial for trial in study.trials if trial.state is TrialState.RUNNING]


def test_signals_wait() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with signals_wait():
            os.kill(os.getpid(), signal.SIGTERM)
            assert not seen
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
