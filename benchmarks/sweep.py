"""Seconds that a trial costs over a bare fit of the same length in the same process, and the memory it leaves.

``python benchmarks/sweep.py ROOT``, with ROOT a folder of recordings, such as one of ``make_corpus``.
"""

from __future__ import annotations

import gc
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

from emolight import cli
from emolight.sweep.definition import read_sweep
from emolight.sweep.storage import open_storage
from emolight.sweep.study import create_study, work
from emolight.sweep.trial import make_plan, run_trial
from emolight.sweep.workers import join_study

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "mfcc.yaml"
PAIRS = 8


def main() -> None:
    root = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("sweep.yaml").write_text(
            f"name: bench\nconfig: {CONFIG}\n"
            "space: {model.learning_rate: {low: 3.0e-4, high: 5.0e-3, log: true}}\n"
            f"trials: {PAIRS + 1}\nepochs: 2\npruner: none\n"
        )
        words = [f"--data.root={root}", "--data.cache_dir=cache", "--data.channels=[speech]", "--data.duration=0.6"]
        words += ["--trainer.limit_train_batches=3", "--trainer.accelerator=cpu", "--data.splits_dir=splits"]
        plan = make_plan(read_sweep(Path("sweep.yaml")), words)
        url = "sqlite:///study.db"
        create_study(open_storage(url), "bench", ["maximize"], plan.definition, PAIRS + 1)
        bare: list[float] = []
        memory: list[float] = []
        ended: list[float] = []

        def objective(trial: object) -> float:
            # Everything between two bare fits is the trial: taking the slot, sampling, reporting, telling.
            if ended:
                whole.append(time.process_time() - ended[-1])
            began = time.process_time()
            cli.main(["fit", *plan.words, "--name=bare", "--data.fold=1", "--trainer.devices=1"])
            gc.collect()
            bare.append(time.process_time() - began)
            ended.append(time.process_time())
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            return run_trial(plan, trial)  # type: ignore[arg-type, return-value]

        whole: list[float] = []
        work(join_study(plan, url), objective)
        over = [trial - fit for trial, fit in zip(whole[1:], bare[2:], strict=True)]
        print(
            f"bare fit {statistics.median(bare[1:]):.2f} s, trial {statistics.median(whole[1:]):.2f} s of CPU time"
        )
        print(
            f"overhead per trial: median {statistics.median(over):.2f} s, worst {max(over):.2f} s, of {len(over)}"
        )
        print(f"peak memory: {memory[1]:.0f} MB after the first trial, {memory[-1]:.0f} MB after the last")


if __name__ == "__main__":
    main()
