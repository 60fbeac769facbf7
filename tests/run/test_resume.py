"""A stopped fit that goes on is the fit that was never stopped: to the bit, in the same folder."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from emolight.__main__ import main, run
from emolight.errors import EmolightError
from emolight.files import remove_left_overs
from emolight.models.checkpoint import read_checkpoint, save_checkpoint
from emolight.models.classifier import EmotionClassifier
from emolight.run.folder import Run
from emolight.run.options import insert_run
from emolight.run.recorder import StopOnSignal
from tests.small import CONFIGS, LIGHT, options

EPOCHS = 4


def fit_options(corpus: Path, workers: int = 0, **changed: Any) -> list[str]:
    """Augmentation and mixup are on, as shipped, and weights are averaged by a callback of Lightning."""
    average = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.9}}
    callbacks = f"--trainer.callbacks={json.dumps([average])}"
    words = ["--config", str(CONFIGS / "mfcc.yaml"), f"--data.num_workers={workers}", callbacks]
    return [*words, *options(corpus, **{"trainer.max_epochs": EPOCHS, "trainer.limit_train_batches": 3, **changed})]


@contextmanager
def stopped_at(epoch: int, batch: int, how: BaseException) -> Iterator[None]:
    """A fit in this process is stopped as by a signal in the middle of a batch."""
    whole = EmotionClassifier.training_step

    def step(self: EmotionClassifier, batch_: Any, batch_idx: int) -> Any:
        if self.current_epoch == epoch and batch_idx == batch:
            raise how
        return whole(self, batch_, batch_idx)

    EmotionClassifier.training_step = step  # type: ignore[method-assign]
    try:
        yield
    finally:
        EmotionClassifier.training_step = whole  # type: ignore[method-assign]


def version(folder: Path, number: int = 0) -> Path:
    return folder / "lightning_logs" / "mfcc" / f"version_{number}"


def weights(run_folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    content = torch.load(run_folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    found: dict[str, torch.Tensor] = content["state_dict"]
    return found


@pytest.fixture(scope="module")
def straight(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that was never stopped."""
    folder = tmp_path_factory.mktemp("straight")
    with contextlib.chdir(folder):
        run(["fit", *fit_options(corpus)])
    return version(folder)


@pytest.fixture(scope="module")
def stopped(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped in its third epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    with contextlib.chdir(folder), stopped_at(2, 1, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        run(["fit", *fit_options(corpus)])
    return version(folder)


def same_run(one: Path, other: Path) -> None:
    for name in ("last", "best"):
        first, second = weights(one, name), weights(other, name)
        assert first.keys() == second.keys()
        assert [key for key in first if not torch.equal(first[key], second[key])] == []
    for name in ("predictions_val.csv", "split.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    pd.testing.assert_frame_equal(pd.read_csv(one / "metrics.csv"), pd.read_csv(other / "metrics.csv"))


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_equals_straight_to_the_bit(
    workers: int, straight: Path, stopped: Path, corpus: Path, here: Path
) -> None:
    """Stopped in the middle of the third epoch and named by its folder; at the start of the second, by a checkpoint."""
    if workers:
        with stopped_at(1, 0, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
            run(["fit", *fit_options(corpus, workers)])
    else:
        shutil.copytree(stopped, version(here))
    assert run(["fit", "--resume", str(version(here) / ("checkpoints/last.ckpt" if workers else ""))]) == 0
    same_run(straight, version(here))
    assert not version(here, 1).exists()
    environment = Run.open(version(here)).environment
    assert (environment["resumed"], environment["finished"]) == (1, True)
    assert environment["best_metrics"] == Run.open(straight).environment["best_metrics"]
    curves = []
    for folder in (version(here), straight):
        events = EventAccumulator(str(folder))
        events.Reload()
        curves.append([(one.step, one.value) for one in events.Scalars("val/uar")])
    assert curves[0] == curves[1]
    assert len(curves[0]) == EPOCHS


def changed(damage: str, content: dict[str, Any]) -> dict[str, Any]:
    """A whole checkpoint with its checksum, which this run must not go on from."""
    trained, weight = content["hyper_parameters"], content["state_dict"]
    match damage:
        case "another model":
            trained["features"]["init_args"]["n_mels"] = 80
        case "another size":
            weight["network.network.fc.weight"] = weight["network.network.fc.weight"][:-1]
        case "an older version":
            del content["training"]
        case "a newer version":
            trained["dropout"] = 0.5
        case "weights only":
            del content["loops"], content["optimizer_states"]
        case "mid-epoch":
            content["loops"]["fit_loop"]["epoch_progress"]["current"]["ready"] += 1
    return content


OTHERS = {
    "another model": "was trained with model.features.n_mels 80, received 64",
    "another size": "does not fit this version of emolight",
    "an older version": "is not a checkpoint of emolight",
    "a newer version": "does not fit this version of emolight",
    "weights only": "holds no training to go on with: no loops, optimizer_states",
    "mid-epoch": "is of the middle of an epoch",
}


@pytest.mark.parametrize("damage", OTHERS)
def test_a_checkpoint_of_another_model_or_version_is_refused(damage: str, stopped: Path, here: Path) -> None:
    shutil.copytree(stopped, here / "copy")
    last = here / "copy" / "checkpoints" / "last.ckpt"
    save_checkpoint(changed(damage, torch.load(last, weights_only=True)), last)
    with pytest.raises(EmolightError) as caught:
        run(["fit", "--resume", "copy"])
    assert OTHERS[damage] in str(caught.value)


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "html", "other"])
def test_a_damaged_checkpoint_is_named(damage: str, stopped: Path, here: Path) -> None:
    shutil.copytree(stopped, here / "copy")
    last = here / "copy" / "checkpoints" / "last.ckpt"
    whole = last.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    torch.save({"state_dict": {}, "epoch": 3}, here / "other.ckpt")
    last.write_bytes(
        {
            "empty": b"",
            "cut": whole[: len(whole) // 2],
            "flipped": bytes(flipped),
            "html": b"<html>404</html>",
            "other": (here / "other.ckpt").read_bytes(),
        }[damage]
    )
    with pytest.raises(EmolightError, match=r"copy/checkpoints/last\.ckpt"):
        run(["fit", "--resume", "copy"])


def test_a_run_does_not_go_on_from_its_best_checkpoint(stopped: Path) -> None:
    with pytest.raises(EmolightError, match=r"best\.ckpt holds no training to go on with"):
        run(["fit", "--resume", str(stopped / "checkpoints" / "best.ckpt")])


def test_without_a_checkpoint_nothing_starts_over(stopped: Path, here: Path) -> None:
    shutil.copytree(stopped, here / "copy")
    for path in (here / "copy" / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(EmolightError, match="There is no checkpoint"):
        run(["fit", "--resume", "copy"])
    with pytest.raises(EmolightError, match="There is no run 'nowhere'"):
        run(["fit", "--resume", "nowhere"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.learning_rate=0.5"], "model.learning_rate 0.001, received 0.5"),
        (["--trainer.max_epochs=9"], "trainer.max_epochs 4, received 9"),
        (["--data.fold=2"], "data.fold None, received 2"),
        (["--data.label=sex"], "data.label None, received sex"),
        (["--data.corpus=other.csv"], "is not of data.corpus other.csv"),
        (["--data.batch_size=8"], "data.batch_size 16, received 8"),
        (["--trainer.limit_train_batches=2"], "begun for 12 steps, and with these options it would have 8"),
        (["--trainer.accumulate_grad_batches=3"], "begun for 12 steps, and with these options it would have 4"),
        (["--trainer.limit_val_batches=1"], "trainer.limit_val_batches None, received 1"),
        (["--seed_everything=7"], "seed_everything 0, received 7"),
    ],
)
def test_flags_that_change_the_run_are_refused(words: list[str], message: str, stopped: Path, here: Path) -> None:
    with pytest.raises(EmolightError) as caught:
        run(["fit", "--resume", str(stopped), *words])
    assert message in str(caught.value)


def test_a_run_is_tested_before_it_goes_on(stopped: Path, here: Path) -> None:
    shutil.copytree(stopped, here / "copy")
    assert run(["test", "--ckpt_path", "copy"]) == 0
    assert "- Epoch: ?, best epoch by validation UAR." in (here / "copy" / "MODEL_CARD.md").read_text()


SWA = {"class_path": "StochasticWeightAveraging", "init_args": {"swa_lrs": 0.01, "swa_epoch_start": 2}}


@pytest.mark.parametrize("own", ["--trainer.max_steps=8", f"--trainer.callbacks={json.dumps([SWA])}"], ids=str)
def test_so_does_one_of_so_many_steps_or_of_averaged_weights(own: str, corpus: Path, here: Path) -> None:
    words = ["fit", *fit_options(corpus, **LIGHT), own]
    run(words)
    with stopped_at(2, 1, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        run(words)
    assert run(["fit", "--resume", str(version(here, 1))]) == 0
    same_run(version(here), version(here, 1))


def test_a_time_that_is_over_is_told(stopped: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(stopped, here / "copy")
    over = ["--trainer.callbacks=Timer", "--trainer.callbacks.duration=00:00:00:00"]
    assert run(["fit", "--resume", "copy", *over]) == 0
    assert "note:   trained for 2 of 4 epochs: the time of trainer.max_time or Timer is over" in capsys.readouterr().out
    assert run(["fit", "--resume", "copy", "--trainer.callbacks=null"]) == 0
    assert "Embedding dir exists" not in capsys.readouterr().out
    assert (here / "copy" / "projector_config.pbtxt").read_text().count("embeddings {") == 1


def test_a_resumed_run_has_the_options_of_the_first(
    corpus: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--trainer.min_epochs=3", "--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val/loss"]
    own += ["--trainer.callbacks.patience=1", "--trainer.callbacks.min_delta=100"]
    with stopped_at(1, 1, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        run(["fit", *fit_options(corpus, **LIGHT), *own])
    assert run(["fit", "--resume", str(version(here))]) == 0
    shutil.copytree(version(here), version(here, 1))
    assert run(["fit", "--resume", str(version(here))]) == 0
    same_run(version(here, 1), version(here))
    assert pd.read_csv(version(here) / "metrics.csv")["epoch"].max() == 2  # the third of four
    assert capsys.readouterr().out.count("trained for 3 of 4 epochs: EarlyStopping has ended it") == 2


def test_a_run_that_was_stopped_after_its_first_epoch_stays_so(
    corpus: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val/uar", "--trainer.callbacks.mode=max"]
    assert run(["fit", *fit_options(corpus, **LIGHT), *own, "--trainer.callbacks.stopping_threshold=0"]) == 0
    assert run(["fit", "--resume", str(version(here))]) == 0
    assert pd.read_csv(version(here) / "metrics.csv")["epoch"].max() == 0
    assert capsys.readouterr().out.count("trained for 1 of 4 epochs: EarlyStopping has ended it") == 2


@pytest.mark.parametrize(
    ("usual", "own", "word"),
    [
        ("check_val_every_n_epoch: 1", "check_val_every_n_epoch: null", "--trainer.check_val_every_n_epoch=null"),
        ("devices: auto", "devices: [0, 1]", "--trainer.devices=[0, 1]"),
    ],
)
def test_null_and_lists_are_taken_over(usual: str, own: str, word: str, stopped: Path, here: Path) -> None:
    shutil.copytree(stopped, here / "copy")
    config = here / "copy" / "config.yaml"
    assert usual in config.read_text()
    config.write_text(config.read_text().replace(usual, own))
    assert word in insert_run(["fit", "--resume", "copy"])


def test_another_corpus_is_scored_by_the_same_column_of_labels(stopped: Path, here: Path) -> None:
    shutil.copytree(stopped, here / "copy")
    config = here / "copy" / "config.yaml"
    config.write_text(config.read_text().replace("  label: null", "  label: heard"))
    (here / "copy" / "checkpoints" / "last.ckpt").rename(here / "copy" / "checkpoints" / "best.ckpt")
    (own,) = (word for word in insert_run(["test", "--ckpt_path", "copy", "--data.corpus=mine.csv"]) if word[0] == "{")
    assert json.loads(own)["data"]["label"] == "heard"


def test_what_is_not_taken_over_is_told(stopped: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(stopped, here / "copy")
    config = here / "copy" / "config.yaml"
    text = config.read_text().replace("  logger: null", "  logger: {class_path: CSVLogger}")
    text = text.replace("  plugins: null", "  plugins: [{class_path: AsyncCheckpointIO}]")
    config.write_text(text.replace("  max_time: null", "  max_time: 00:01:00:00"))
    given = ["fit", "--resume", "copy", "--trainer.logger=CSVLogger", "--trainer.max_time=null"]
    insert_run([*given, "--trainer.plugins+=AsyncCheckpointIO"])
    assert "note:" not in capsys.readouterr().out
    insert_run(given)
    assert "note:   not taken over, give it again: trainer.plugins\n" in capsys.readouterr().out
    assert "CSVLogger" not in " ".join(insert_run(["fit", "--resume", "copy"]))
    assert "again: trainer.logger, trainer.max_time, trainer.plugins\n" in capsys.readouterr().out


def test_fit_refuses_a_bare_checkpoint(stopped: Path) -> None:
    with pytest.raises(EmolightError, match="Go on: fit --resume RUN"):
        run(["fit", "--ckpt_path", str(stopped / "checkpoints" / "last.ckpt")])


def test_a_finished_run_stays_as_it_is(straight: Path, here: Path) -> None:
    shutil.copytree(straight, here / "copy")
    assert run(["fit", "--resume", "copy"]) == 0
    same_run(straight, here / "copy")


def test_left_overs_of_the_dead_are_removed_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone, kept = tmp_path / f".last.ckpt.{dead.pid}.part", tmp_path / f".last.ckpt.{os.getpid()}.part"
    for path in (gone, kept):
        path.write_bytes(b"")
    remove_left_overs(tmp_path)
    assert not gone.exists()
    assert kept.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_stop_with_their_code_and_the_run_goes_on(
    number: signal.Signals, code: int, corpus: Path, here: Path
) -> None:
    process = start(corpus, here, here)
    process.send_signal(number)
    text, _ = process.communicate(timeout=180)
    assert process.returncode == code, text
    assert f"fit --resume {version(Path())}" in text
    assert read_checkpoint(Run.open(version(here)).last)["epoch"] >= 0


def test_a_second_signal_does_not_cut_off_the_end(
    corpus: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told, before = StopOnSignal.on_exception, signal.getsignal(signal.SIGTERM)

    def signalled(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return told(*arguments)

    monkeypatch.setattr(EmotionClassifier, "training_step", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr(StopOnSignal, "on_exception", signalled)
    with pytest.raises(SystemExit) as ended:
        main(["fit", *fit_options(corpus, **LIGHT)])
    assert ended.value.code == 143
    assert "stopped in epoch 1; what came before it is kept" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) == before


def start(corpus: Path, here: Path, root: Path, words: Sequence[str] = (), **variables: str) -> subprocess.Popen[str]:
    """A fit of many epochs in a process of its own, after its first epoch."""
    command = [
        sys.executable,
        "-m",
        "emolight",
        "fit",
        *fit_options(corpus, **LIGHT),
        *words,
        "--trainer.max_epochs=500",
    ]
    environment = {**os.environ, **variables}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=here,
        # Where the tests run in the background, Ctrl-C is ignored, and so it would be here.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for _ in range(600):
        metrics = version(root) / "metrics.csv"
        if process.poll() is not None or (metrics.is_file() and len(metrics.read_text().splitlines()) > 3):
            break
        time.sleep(0.1)
    return process


def test_a_requeued_slurm_job_goes_on(corpus: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scontrol = here / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {here}/asked\n')
    scontrol.chmod(0o755)
    (here / "place.yaml").write_text(f"trainer: {{default_root_dir: {here / 'runs'}}}\n")
    where = ["--config", "place.yaml", "--model.features.mode", "mfcc"]  # a word that the parser is given as another
    slurm = {"SLURM_JOB_ID": "77", "PATH": f"{scontrol.parent}:{os.environ['PATH']}"}
    process = start(corpus, here, here / "runs", where, **slurm)
    process.send_signal(signal.SIGUSR1)
    text, _ = process.communicate(timeout=180)
    assert process.returncode == 143, text
    assert (here / "asked").read_text() == "requeue 77\n"
    checkpoint = read_checkpoint(Run.open(version(here / "runs")).last)
    for name, value in {**slurm, "SLURM_RESTART_COUNT": "1"}.items():
        monkeypatch.setenv(name, value)
    with stopped_at(checkpoint["epoch"] + 1, 0, KeyboardInterrupt()), pytest.raises(SystemExit) as ended:
        main(["fit", *fit_options(corpus, **LIGHT), *where, "--trainer.max_epochs=500"])
    assert ended.value.code == 130
    assert not version(here / "runs", 1).exists()
    assert Run.open(version(here / "runs")).environment["resumed"] == 1
