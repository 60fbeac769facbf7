"""Many short fits, or trials of a sweep, in one process: memory and open files must stay flat.

python tests/faults/soak.py --fits 200
python tests/faults/soak.py --trials 200
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from emolight.__main__ import run
from emolight.data.corpora.synthetic import make_corpus
from tests.small import CONFIGS, options

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_mb() -> float:
    """Memory of this process, in megabytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6


def open_files() -> int:
    """File descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def measure(number: int, found: list[tuple[int, float, int]]) -> None:
    """Every tenth time, add (number, megabytes, open files) to ``found``."""
    gc.collect()
    if number % 10 == 0:
        found.append((number, resident_mb(), open_files()))
        print(f"{number}: {found[-1][1]:.0f} MB, {found[-1][2]} open files", file=sys.__stdout__, flush=True)


def soak_fits(fits: int, words: list[str]) -> list[tuple[int, float, int]]:
    """Fit ``fits`` times."""
    found: list[tuple[int, float, int]] = []
    for number in range(1, fits + 1):
        run(["fit", "--config", str(CONFIGS / "mfcc.yaml"), *words])
        shutil.rmtree("lightning_logs")
        measure(number, found)
    return found


def soak_trials(trials: int, words: list[str]) -> list[tuple[int, float, int]]:
    """One worker of a sweep runs ``trials`` trials of the smallest network."""
    Path("soak.yaml").write_text(
        f"config: {CONFIGS / 'waveform.yaml'}\ntrials: {trials}\nepochs: 1\npruner: none\n"
        "space: {model.learning_rate: {low: 3.0e-4, high: 5.0e-3, log: true}}\n"
    )
    from emolight.sweep import workers
    from emolight.sweep.space import read_sweep
    from emolight.sweep.storage import open_storage, sqlite_url
    from emolight.sweep.study import create_study
    from emolight.sweep.trial import check_sweep, run_trial

    sweep = read_sweep(Path("soak.yaml"))
    plan, url = check_sweep(sweep, words), sqlite_url(Path("study.db").absolute())
    plan.folder.mkdir(parents=True, exist_ok=True)
    create_study(open_storage(url, True), sweep.name, sweep.objectives, plan.definition, trials)
    found: list[tuple[int, float, int]] = []

    def measured(plan: Any, trial: Any) -> Any:
        measure(trial.number, found)
        return run_trial(plan, trial)

    with mock.patch.object(workers, "run_trial", measured):
        workers.run_worker(plan, url)
    return found


def main() -> None:
    """Run the script; exit code 1 when memory grows by over 1 MB a fit after the first fifth, or files leak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--fits", type=int)
    what.add_argument("--trials", type=int)
    given = parser.parse_args()
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        corpus = Path(folder) / "corpus"
        make_corpus(corpus, repetitions=1, duration=0.6)
        words = [word for word in options(corpus) if given.fits or "max_epochs" not in word]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            found = soak_fits(given.fits, words) if given.fits else soak_trials(given.trials, words)
        os.chdir(before)
    start, end = found[len(found) // 5], found[-1]
    growth = (end[1] - start[1]) / max(1, end[0] - start[0])
    print(f"growth {growth:.3f} MB each, {end[2] - start[2]:+d} open files, after {start[0]}")
    sys.exit(growth > 1 or end[2] > start[2])


if __name__ == "__main__":
    main()
