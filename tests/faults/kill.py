"""kill -9 at random moments of a fit, again and again, with the temporary folder on another file system.

    python tests/faults/kill.py --kills 20

In turns: at a random moment after the process has saved an epoch of its own, while it writes a checkpoint, and at a
random moment of its start. After every kill: no file under a final name is damaged, at most one epoch is lost, and
``fit --resume`` goes on. At the end the run is whole and no temporary file is left. Exit code 1 when any of this does
not hold.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from emolight.data.corpora.synthetic import make_corpus
from emolight.errors import EmolightError
from emolight.evaluation.predictions import read_predictions
from emolight.models.checkpoint import read_checkpoint
from tests.small import CONFIGS, LIGHT, options

EPOCHS = 2000


def start(words: list[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """A ``fit`` in a process of its own, with temporary files on another file system."""
    shared = Path("/dev/shm")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(shared if shared.is_dir() else folder)}
    command = [sys.executable, "-m", "emolight", "fit", *words]
    with log.open("ab") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment, cwd=folder)


def logged_epochs(run: Path) -> int:
    """How many epochs ``metrics.csv`` tells of."""
    path = run / "metrics.csv"
    if not path.is_file():
        return 0
    table = pd.read_csv(path)
    return int(table["epoch"].max()) + 1 if "epoch" in table and table["epoch"].notna().any() else 0


def saved_epochs(run: Path) -> int:
    """How many whole epochs are behind the checkpoint that the run goes on from; every checkpoint is read.

    Raises:
        EmolightError: one under a final name is damaged.
    """
    found = {path.name: read_checkpoint(path) for path in (run / "checkpoints").glob("*.ckpt")}
    if "last.ckpt" not in found:
        return -1
    return found["last.ckpt"]["epoch"] + 1 if found["last.ckpt"]["global_step"] else 0


def stamp(run: Path) -> int:
    """When ``last.ckpt`` was written, in ns; 0 when it is not there."""
    path = run / "checkpoints" / "last.ckpt"
    return path.stat().st_mtime_ns if path.exists() else 0


def written_by(process: subprocess.Popen[bytes], run: Path) -> bool:
    """Whether the process is writing a checkpoint; what killed ones left has other numbers."""
    return any((run / "checkpoints").glob(f".*.{process.pid}.part"))


def wait_until(process: subprocess.Popen[bytes], seconds: float, writing: Path | None) -> bool:
    """Wait for a moment, or, with a run, until a checkpoint is being written there; False if the fit ended.

    The process is left stopped in the middle of its writing.
    """
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        if writing is not None and written_by(process, writing):
            process.send_signal(signal.SIGSTOP)
            if written_by(process, writing):
                return True
            process.send_signal(signal.SIGCONT)  # it had just finished
        time.sleep(0.002)
    return process.poll() is None


def kills(count: int, folder: Path, seed: int) -> dict[str, int]:
    """Kill a fit ``count`` times: in turns in training, while a checkpoint is written, and in its start.

    Raises:
        EmolightError: a promise is broken.
    """
    draw = random.Random(seed)
    corpus = folder / "corpus"
    make_corpus(corpus, repetitions=1, duration=0.6)
    run = folder / "lightning_logs" / "mfcc" / "version_0"
    small = options(corpus, **LIGHT, **{"trainer.max_epochs": EPOCHS})
    words = ["--config", str(CONFIGS / "mfcc.yaml"), *small]
    log = folder / "log.txt"
    found = {"kills": 0, "while writing": 0, "while starting": 0, "most epochs lost": 0}
    for number in range(count):
        saved = before = max(saved_epochs(run), 0)
        seen, starting, process = stamp(run), number % 3 == 2, start(words, folder, log)
        while not starting and process.poll() is None and saved <= before:
            time.sleep(0.05)
            if stamp(run) != seen:
                seen, saved = stamp(run), saved_epochs(run)
        writing = run if number % 3 == 1 else None
        if not wait_until(process, 120 if writing else draw.uniform(0, 8 if starting else 4), writing):
            raise EmolightError(f"The fit ended by itself with {process.returncode}.", log.read_text()[-2000:])
        found["while writing"] += written_by(process, run)
        found["while starting"] += starting and stamp(run) == seen
        process.send_signal(signal.SIGKILL)
        process.wait()
        found["kills"] += 1
        lost = logged_epochs(run) - saved_epochs(run)
        found["most epochs lost"] = max(found["most epochs lost"], lost)
        read_predictions(run / "predictions_val.csv")
        if lost > 1:
            raise EmolightError(f"Kill {number + 1}: {lost} epochs were lost.")
        words = ["--resume", str(run)]
        print(f"kill {number + 1}: {saved_epochs(run)} epochs are kept, {lost} lost", flush=True)
    before, process = stamp(run), start(words, folder, log)
    while process.poll() is None and stamp(run) == before:
        time.sleep(0.05)
    process.terminate()
    if process.wait(180) != 143:
        raise EmolightError(f"SIGTERM gave exit code {process.returncode}.", log.read_text()[-2000:])
    if left := [path for path in run.rglob("*") if path.name.endswith(".part")]:
        raise EmolightError(f"{len(left)} temporary files are left, such as {left[0]}.")
    if list(run.parent.iterdir()) != [run]:
        raise EmolightError("A resumed fit made a folder of its own.")
    epochs = pd.read_csv(run / "metrics.csv").dropna(subset=["val/uar"])["epoch"].tolist()
    if epochs != list(range(len(epochs))):
        raise EmolightError("metrics.csv lacks an epoch, or has one twice.")
    return {**found, "epochs": len(epochs)}


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        try:
            print(kills(options.kills, Path(folder), options.seed))
        except EmolightError as error:
            print(f"BROKEN: {error}")
            sys.exit(1)


if __name__ == "__main__":
    main()
