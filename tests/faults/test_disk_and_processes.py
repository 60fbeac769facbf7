"""A full disk, a dead process of a group, and kill -9 in the middle of everything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

from emolight.__main__ import run
from emolight.models.checkpoint import read_checkpoint
from tests.faults.kill import kills, logged_epochs
from tests.small import CONFIGS, LIGHT, options

RUN = Path("lightning_logs") / "mfcc" / "version_0"
TWO = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]


def test_killed_runs_go_on(tmp_path: Path) -> None:
    found = kills(2, tmp_path, seed=1)
    assert found["kills"] == 2
    assert found["while writing"] >= 1
    assert found["most epochs lost"] <= 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 280 MB: one checkpoint with the optimiser's state fits, a second does not."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=280m", "emolight", str(mounted)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small file system")
    yield mounted
    subprocess.run(["umount", "-l", str(mounted)], check=True)


def test_a_full_disk_is_told_and_the_run_goes_on_when_it_is_not(small_disk: Path, corpus: Path, here: Path) -> None:
    words = ["fit", "--config", str(CONFIGS / "mfcc.yaml"), f"--trainer.default_root_dir={small_disk}"]
    words += options(corpus, **{"trainer.max_epochs": 3})
    done = subprocess.run([sys.executable, "-m", "emolight", *words], capture_output=True, text=True, check=False)
    told = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stderr
    assert "The disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert f"fit --resume {small_disk / RUN}" in told[-1]
    for path in (small_disk / RUN / "checkpoints").iterdir():
        read_checkpoint(path)  # nothing damaged, nothing left over
    subprocess.run(["mount", "-o", "remount,size=1g", str(small_disk)], check=True)
    assert run(["fit", "--resume", str(small_disk / RUN)]) == 0
    assert pd.read_csv(small_disk / RUN / "metrics.csv")["val/uar"].notna().sum() == 3


@pytest.mark.parametrize("victim", ["child", "main"])
def test_when_one_process_dies_the_other_ends_with_a_message(victim: str, corpus: Path, here: Path) -> None:
    small = options(corpus, **LIGHT, **{"trainer.max_epochs": 300, "trainer.limit_train_batches": 8})
    words = [sys.executable, "-m", "emolight", "fit", "--config", str(CONFIGS / "mfcc.yaml"), *small, *TWO]
    with (here / "log.txt").open("w") as log:
        main_process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
        try:
            while main_process.poll() is None and logged_epochs(RUN) < 2:  # the first epoch is saved then
                time.sleep(0.1)
            of_group = subprocess.run(
                ["pgrep", "-P", str(main_process.pid)], capture_output=True, text=True, check=True
            ).stdout.split()
            children = [int(pid) for pid in of_group if "emolight" in Path(f"/proc/{pid}/cmdline").read_text()]
            dies, other = (children[0], main_process.pid) if victim == "child" else (main_process.pid, children[0])
            os.kill(dies, signal.SIGKILL)
            deadline = time.monotonic() + 30
            while alive(other) and time.monotonic() < deadline:
                main_process.poll()
                time.sleep(0.1)
            assert not alive(other)
        finally:
            main_process.kill()
            main_process.wait()
    text = (here / "log.txt").read_text()
    assert [path.name for path in RUN.parent.iterdir()] == ["version_0"]
    assert text.count("epoch 1/300") == 1
    assert "process" in text.lower()
    assert ("is gone" in text) or ("terminated with code -9" in text), text[-2000:]
    assert read_checkpoint(RUN / "checkpoints" / "last.ckpt")["global_step"] > 0


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    status = Path(f"/proc/{pid}/stat")
    return status.is_file() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_same_seed_gives_the_same_run_whatever_the_workers(corpus: Path, here: Path) -> None:
    found = []
    for number, workers in enumerate((0, 2)):
        words = ["fit", "--config", str(CONFIGS / "mfcc.yaml"), f"--data.num_workers={workers}"]
        run([*words, *options(corpus, **{"trainer.max_epochs": 2})])
        folder = here / "lightning_logs" / "mfcc" / f"version_{number}"
        weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        found.append(((folder / "metrics.csv").read_bytes(), weights))
    (metrics, weights), (others, others_weights) = found
    assert metrics == others
    assert all(torch.equal(others_weights[name], value) for name, value in weights.items())
