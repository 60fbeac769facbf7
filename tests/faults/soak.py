"""Many short fits in one process: memory and open files must stay flat.

python tests/faults/soak.py --fits 200
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

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from emolight.__main__ import run
from emolight.data.synthetic import make_corpus
from tests.small import CONFIGS, options

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_mb() -> float:
    """Memory of this process, in megabytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6


def open_files() -> int:
    """File descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def soak(fits: int, folder: Path) -> list[tuple[int, float, int]]:
    """Fit ``fits`` times; returns (fit, megabytes, open files) every tenth time."""
    os.chdir(folder)
    corpus = folder / "corpus"
    make_corpus(corpus, repetitions=1, duration=0.6)
    words = ["fit", "--config", str(CONFIGS / "mfcc.yaml"), *options(corpus)]
    found = []
    for number in range(1, fits + 1):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            run(words)
        shutil.rmtree(folder / "lightning_logs")
        gc.collect()
        if number % 10 == 0:
            found.append((number, resident_mb(), open_files()))
            print(f"{number} fits: {found[-1][1]:.0f} MB, {found[-1][2]} open files", flush=True)
    return found


def main() -> None:
    """Run the script; exit code 1 when memory grows by over 1 MB a fit after the first fifth, or files leak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", type=int, default=200)
    options = parser.parse_args()
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(options.fits, Path(folder))
        os.chdir(before)
    start, end = found[len(found) // 5], found[-1]
    growth = (end[1] - start[1]) / max(1, end[0] - start[0])
    print(f"growth {growth:.3f} MB a fit, {end[2] - start[2]:+d} open files, after {start[0]} fits")
    sys.exit(growth > 1 or end[2] > start[2])


if __name__ == "__main__":
    main()
