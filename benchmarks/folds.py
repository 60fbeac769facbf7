"""What a fold costs beyond its epochs, and how well two workers share the folds.

python benchmarks/folds.py [--root DIR] [--epochs 3] [--workers 2] [--steps N] [--config mfcc]

Six folds of RAVDESS with --root, else five of synthetic voices; with 3 epochs about 8 minutes on two cores. Each fold
is a process like those of `crossval`: fit, test, tables, plots, card. CPU seconds are of the whole process, from its
fork on; an epoch's are those from its start to its end, validation, tables and pictures included. The last column
reckons for the recipe's own number of epochs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import CONFIGS, machine, make_table, markdown, timed_fold

from emolight.experiments.jobs import run_all
from emolight.experiments.processes import Task
from emolight.run import cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, help="training steps an epoch; default: all")
    parser.add_argument("--config", default="mfcc")
    options = parser.parse_args()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        corpus = {"root": options.root.resolve()} if options.root else {"corpus": make_table(base, 1)}
        protocol, folds = ("emobox6", range(1, 7)) if options.root else ("speakers5", range(1, 6))
        places = {**corpus, "protocol": protocol, "cache_dir": base / "cache", "splits_dir": base / "splits"}
        words = ["--config", str(CONFIGS / f"{options.config}.yaml"), "--trainer.accelerator=cpu"]
        words += [f"--data.{key}={value}" for key, value in places.items()]
        recipe = cli.full_config(words)["trainer"]["max_epochs"]
        words += [f"--trainer.max_epochs={options.epochs}", f"--trainer.default_root_dir={base}"]
        words += [f"--trainer.limit_train_batches={options.steps}"] if options.steps else []
        os.chdir(base)
        # The first fold alone: the cache is there for the others.
        cli.main(
            [
                "fit",
                *words,
                "--name=warm",
                "--data.fold=1",
                "--trainer.max_epochs=1",
                "--trainer.max_steps=1",
                "--trainer.limit_train_batches=1",
            ]
        )
        tasks = []
        for number in folds:
            folder = base / "lightning_logs" / "folds" / f"fold_{number}"
            own = [*words, f"--name=folds/fold_{number}", f"--data.fold={number}"]
            tasks.append(Task(f"fold {number}", folder / "log.txt", timed_fold, (str(folder), own)))
        start = time.perf_counter()
        run_all(tasks, options.workers)
        whole = time.perf_counter() - start
        found = [json.loads((task.log.parent / "clock.json").read_text(encoding="utf-8")) for task in tasks]
    beyond = [one["cpu"] - one["epochs_cpu"] for one in found]
    epoch = statistics.median(one["epochs_wall"] / one["epochs"] for one in found)
    epochs = sum(one["epochs_wall"] for one in found)
    extra = (whole - epochs / options.workers) * options.workers / len(found)
    reckoned = 1 + extra / (recipe * epoch)
    head = ("fold", "CPU s", "of which epochs", "beyond them")
    rows = [
        (task.label, f"{one['cpu']:.1f}", f"{one['epochs_cpu']:.1f}", f"{more:.2f}")
        for task, one, more in zip(tasks, found, beyond, strict=True)
    ]
    print("\n" + markdown(head, rows))
    print(
        markdown(
            (
                "folds",
                "workers",
                "CPU s beyond the epochs (at most 3)",
                "wall s of all",
                "sum of epochs / workers, s",
                "ratio",
                f"reckoned for {recipe} epochs of {epoch:.1f} s (at most 1.1)",
            ),
            [
                (
                    len(found),
                    options.workers,
                    f"{statistics.median(beyond):.2f}",
                    f"{whole:.1f}",
                    f"{epochs / options.workers:.1f}",
                    f"{whole * options.workers / epochs:.2f}",
                    f"{reckoned:.3f}",
                )
            ],
        )
    )
    print(f"torch threads of a worker: {max(1, torch.get_num_threads() // options.workers)}; {machine()}")


if __name__ == "__main__":
    main()
