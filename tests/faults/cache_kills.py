"""kill -9 at random moments of four processes that open one waveform cache at once, again and again.

    python tests/faults/cache_kills.py --kills 20

The cache is empty, or damaged, or full of what killed processes left. Every sample that is read must be the one
decoded from its recording, the survivors must come to an end, and no temporary file may stay. Exit code 1 when
one of these does not hold.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from emolight.data import cache, shards
from emolight.data.audio import Waveform, load_waveform
from emolight.errors import EmolightError

RATE, TRIM_DB = 16000, 60.0
PROCESSES = 4
PATIENCE = 120
"""Seconds until a process that waits counts as hanging."""
WRONG = 3
CONTEXT = multiprocessing.get_context("fork")


def write_corpus(root: Path, clips: int) -> dict[str, Waveform]:
    """Write recordings of noise, and decode them without a cache."""
    root.mkdir()
    for number in range(clips):
        rng = np.random.default_rng(number)
        noise = rng.normal(0, 0.1, int(rng.integers(24_000, 72_000)))
        soundfile.write(root / f"clip{number:03}.wav", noise, 48_000, "PCM_16")
    return {path.stem: load_waveform(path, RATE, TRIM_DB) for path in sorted(root.iterdir())}


def read_all(root: Path, cache_dir: Path, expected: Mapping[str, Waveform], barrier: Barrier, log: Path) -> None:
    """Open the cache with others, and hold every sample to its recording; exit with ``WRONG`` if one differs."""
    with log.open("a") as stream:
        os.dup2(stream.fileno(), 2)

    class Writer(shards.Writer):
        def __init__(self, *rest: object) -> None:
            (cache_dir.parent / "builder").write_text(str(os.getpid()))
            super().__init__(*rest)  # type: ignore[arg-type]

    cache.Writer, cache.SETTLED_NS, shards.STEP_CLIPS = Writer, -(10**15), 16  # type: ignore[misc]
    clips = pd.DataFrame({"clip_id": list(expected), "file": [f"{root / clip_id}.wav" for clip_id in expected]})
    barrier.wait(PATIENCE)
    found = cache.open_cache(clips, cache_dir, RATE, TRIM_DB, progress=False)
    right = all(np.array_equal(found.waveform(clip_id), wave) for clip_id, wave in expected.items())
    os._exit(0 if right and not found.problems else WRONG)


def start(count: int, root: Path, cache_dir: Path, expected: Mapping[str, Waveform]) -> list[BaseProcess]:
    """Processes that open the cache at the same moment."""
    barrier = CONTEXT.Barrier(count + 1)
    arguments = (root, cache_dir, expected, barrier, cache_dir.parent / "log.txt")
    processes: list[BaseProcess] = [CONTEXT.Process(target=read_all, args=arguments) for _ in range(count)]
    for process in processes:
        process.start()
    barrier.wait(PATIENCE)
    return processes


def finish(processes: list[BaseProcess]) -> None:
    """Wait for the survivors.

    Raises:
        EmolightError: one hangs, read a wrong sample or failed.
    """
    for process in processes:
        process.join(PATIENCE)
        if process.exitcode is None:
            process.kill()
            raise EmolightError(f"A process still waits after {PATIENCE} s.")
        if process.exitcode:
            what = "read a wrong sample" if process.exitcode == WRONG else f"ended with {process.exitcode}"
            raise EmolightError(f"A process {what}.")


def flip(path: Path, place: int) -> None:
    """Change a bit of a file."""
    with path.open("r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)
        stream.seek(place)
        stream.write(bytes([byte[0] ^ 4]))


def kills(count: int, clips: int, folder: Path, seed: int) -> dict[str, float]:
    """Kill processes that open a cache ``count`` times.

    Raises:
        EmolightError: a promise is broken.
    """
    draw = random.Random(seed)
    root, cache_dir = folder / "corpus", folder / "cache"
    expected = write_corpus(root, clips)
    begun = time.monotonic()
    finish(start(PROCESSES, root, cache_dir, expected))
    seconds = time.monotonic() - begun
    found: dict[str, float] = dict.fromkeys(
        ("kills", "of them builders", "rounds", "empty", "damaged", "on leftovers", "samples compared"), 0
    )
    found["seconds undisturbed"] = round(seconds, 2)
    samples = sum(map(len, expected.values()))
    state = "empty"
    while found["kills"] < count:
        if state == "empty":
            shutil.rmtree(cache_dir)
        elif state == "damaged":
            victim_file = draw.choice(sorted(cache_dir.glob("*/*")))
            flip(victim_file, draw.randrange(victim_file.stat().st_size))
        found[state] += 1
        found["rounds"] += 1
        victims = (2, PROCESSES, 1, 3)[int(found["rounds"]) % 4]
        latest = (0.5 if victims == PROCESSES else 1.1) * seconds  # early enough to leave no survivor
        moments = sorted(draw.uniform(0, latest) for _ in range(victims))
        processes = start(PROCESSES, root, cache_dir, expected)
        begun = time.monotonic()
        for moment in moments:
            time.sleep(max(0.0, begun + moment - time.monotonic()))
            running = [process for process in processes if process.is_alive()]
            if not running or found["kills"] == count:
                break
            builder = folder / "builder"
            pid = builder.read_text() if builder.exists() else ""
            builders = [process for process in running if str(process.pid) == pid]
            victim = draw.choice(builders if builders and draw.random() < 0.6 else running)
            found["of them builders"] += victim in builders
            victim.kill()
            victim.join()
            found["kills"] += victim.exitcode == -9
            finish([] if victim.exitcode == -9 else [victim])
            processes.remove(victim)
            print(f"kill {found['kills']:.0f}: cache {state}, {moment:.2f} s after the start", flush=True)
        finish(processes)
        found["samples compared"] += samples * len(processes)
        if not processes:
            state = "on leftovers"
            continue
        finish(start(1, root, cache_dir, expected))
        found["samples compared"] += samples
        left = {path.name for path in cache_dir.glob("*/*")}
        if left - {"index", "0000.bin", "0001.bin"}:
            raise EmolightError(f"The folder holds {left}.")
        state = "damaged" if state == "empty" else "empty"
    said = (folder / "log.txt").read_text().splitlines()
    if strange := [line for line in said if "damaged" not in line]:
        raise EmolightError(f"Something else was said: {strange[0]}")
    return {**found, "lines on damage": len(said)}


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        try:
            print(kills(options.kills, options.clips, Path(folder), options.seed))
        except EmolightError as error:
            print(f"BROKEN: {error}")
            sys.exit(1)


if __name__ == "__main__":
    main()
