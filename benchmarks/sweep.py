"""Seconds that a trial costs over a bare fit of the same length in the same process, and the memory it leaves.

python benchmarks/sweep.py [ROOT] [--pairs 8]

ROOT is a synthetic corpus; without it, one is made.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

from emolight.run import cli
from emolight.sweep.space import read_sweep
from emolight.sweep.storage import open_storage
from emolight.sweep.study import SlotStudy, create_study, work
from emolight.sweep.trial import make_plan, run_trial

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "mfcc.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path)
    parser.add_argument("--pairs", type=int, default=8, help="trials that count; one more comes before them")
    options = parser.parse_args()
    root = options.root.resolve() if options.root else Path("corpus")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        measure(root, options.pairs)


def measure(root: Path, pairs: int) -> None:
    Path("sweep.yaml").write_text(
        f"name: bench\nconfig: {CONFIG}\n"
        "space: {model.learning_rate: {low: 3.0e-4, high: 5.0e-3, log: true}}\n"
        f"trials: {pairs + 1}\nepochs: 2\npruner: none\n",
        encoding="utf-8",
    )
    words = ["--data.corpus=Synthetic", f"--data.root={root}", "--data.cache_dir=cache", "--data.duration=0.6"]
    words += ["--trainer.limit_train_batches=3", "--trainer.accelerator=cpu", "--data.splits_dir=splits"]
    plan = make_plan(read_sweep(Path("sweep.yaml")), words)
    url = "sqlite:///study.db"
    create_study(open_storage(url, True), "bench", plan.sweep.objectives, plan.definition, pairs + 1)
    study = SlotStudy("bench", open_storage(url), pruner=plan.sweep.make_pruner(plan.steps))
    study.make_sampler, study.seed = plan.sweep.make_sampler, plan.sweep.sampler_seed
    bare: list[float] = []
    whole: list[float] = []
    ended: list[float] = []
    memory: list[float] = []

    def objective(trial: object) -> list[float]:
        # Everything between two bare fits is the trial: taking the slot, sampling, reporting, telling.
        if ended:
            whole.append(time.process_time() - ended[-1])
        began = time.process_time()
        cli.main(["fit", *plan.words, "--name=bare", "--data.fold=1", "--trainer.devices=1"])
        gc.collect()
        ended.append(time.process_time())
        bare.append(ended[-1] - began)
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return run_trial(plan, trial)  # type: ignore[arg-type]

    work(study, objective)
    over = [trial - fit for trial, fit in zip(whole[1:], bare[2:], strict=True)]
    print(f"bare fit {statistics.median(bare[1:]):.2f} s, trial {statistics.median(whole[1:]):.2f} s of CPU time")
    print(f"overhead per trial: median {statistics.median(over):.2f} s, worst {max(over):.2f} s, of {len(over)}")
    print(f"peak memory: {memory[1]:.0f} MB after the first trial, {memory[-1]:.0f} MB after the last")


if __name__ == "__main__":
    main()
