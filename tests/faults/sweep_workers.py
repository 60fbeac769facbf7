"""The bar of a sweep's workers, run by hand: ``python -m tests.faults.sweep_workers [--storage URL] [--starts N]``.

4 workers spend 200 short trials, after one was killed and one ended in mid-trial: exactly 200 finished, none left
running, and the two are tried again with the same parameters.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import optuna

from emolight.sweep.storage import open_storage, sqlite_url
from tests.sweep.trivial import NAME, spend, states


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", help="default: a new SQLite file for every start")
    parser.add_argument("--starts", type=int, default=5)
    options = parser.parse_args()
    for _ in range(options.starts):
        with tempfile.TemporaryDirectory() as folder:
            url, began = options.storage or sqlite_url(Path(folder) / "study.db"), time.monotonic()
            study = spend(url, 200)
            print(f"good: {states(study)} in {time.monotonic() - began:.0f} s", flush=True)
            optuna.delete_study(study_name=NAME, storage=open_storage(url))


if __name__ == "__main__":
    main()
