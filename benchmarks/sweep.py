"""The part of a sweep of 16 trials that is not training: `sweep` as people type it, with a clock in every trial.

python benchmarks/sweep.py [--root DIR] [--trials 16] [--epochs 12] [--workers 2] [--steps N]

sweeps/features.yaml, with its pruning; on RAVDESS (--root) about 12 minutes on two cores, without --root on synthetic
voices 6. Wall time of the whole command, from its start to its page, times the workers, is what there was; the table
says how much of it went into training steps, and how much into whole epochs (with validation, tables, checkpoints).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from common import REPOSITORY, machine, make_table, markdown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, help="training steps an epoch; default: all")
    options = parser.parse_args()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = {"root": options.root.resolve()} if options.root else {"corpus": make_table(folder, 1)}
        places = {**corpus, "cache_dir": folder / "cache", "splits_dir": folder / "splits"}
        words = [f"--data.{key}={value}" for key, value in places.items()]
        words += ["--trainer.accelerator=cpu", "--trainer.callbacks+=common.WrittenClock"]
        words += [f"--trainer.default_root_dir={folder}"]
        words += [f"--trainer.limit_train_batches={options.steps}"] if options.steps else []
        path = os.pathsep.join([str(REPOSITORY), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        shipped = yaml.safe_load((REPOSITORY / "sweeps/features.yaml").read_text(encoding="utf-8"))
        own = {**shipped, "config": str(REPOSITORY / "configs/mfcc.yaml"), "epochs": options.epochs}
        (folder / "sweep.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
        command = [sys.executable, "-m", "emolight", "sweep", "--config", str(folder / "sweep.yaml")]
        command += [f"--trials={options.trials}", f"--workers={options.workers}", *words]
        start = time.perf_counter()
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path}, cwd=folder)
        whole = (time.perf_counter() - start) * options.workers
        clocks = [json.loads(one.read_text(encoding="utf-8")) for one in folder.rglob("clock.json")]
        steps, epochs = (sum(one[key] for one in clocks) for key in ("steps", "epochs"))
        count = sum(one["count"] for one in clocks)
        head = ("trials", "epochs", "workers", "wall s × workers", "training steps, s", "not training steps")
        row = (len(clocks), count, options.workers, f"{whole:.0f}", f"{steps:.0f}", f"{1 - steps / whole:.1%}")
        outside = f"{1 - epochs / whole:.1%}", f"{(whole - epochs) / len(clocks):.1f}"
        print("\n" + markdown((*head, "not epochs (at most 5 %)", "s a trial beyond its epochs"), [(*row, *outside)]))
    print(machine())


if __name__ == "__main__":
    main()
