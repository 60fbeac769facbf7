"""What a corpus of 100,000 clips costs: its table, its waveform cache, one clip more, opening, reading.

python benchmarks/scale.py [--clips 2000] [--links 50] [--folder DIR] [--rate 48000]

Makes synthetic recordings (3 s of noise) and links each of them many times, so that the disk holds them; a linked
recording is hashed, and not decoded again. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile

from emolight.data.cache import open_cache
from emolight.data.corpora.table import Table

OPENING = """
import resource, sys, time
import pandas as pd
from pathlib import Path
import numpy as np
from emolight.data.audio import fix_length
from emolight.data.cache import open_cache
clips = pd.read_csv(sys.argv[1])
clips["file"] = sys.argv[2] + "/" + clips["path"]
def memory(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, start = memory(), time.perf_counter()
cache = open_cache(clips, Path(sys.argv[3]), 16000, 30.0, progress=False)
print(f"{time.perf_counter() - start:.2f} s, {memory() - before:.0f} MB beyond the {before:.0f} MB of the process")
ids = clips["clip_id"].sample(20_000, random_state=0, replace=True).tolist()
batch = np.empty((32, 36_000), dtype=np.float32)
for turn in ("first", "again"):
    start = time.perf_counter()
    for number, clip_id in enumerate(ids): batch[number % 32] = fix_length(cache.waveform(clip_id), 36_000)
    print(f"reading, {turn}: {len(ids) / (time.perf_counter() - start):,.0f} clips a second, one thread")
"""


def timed(what: str, clips: int, work: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    print(f"{what}: {seconds:.2f} s, {clips / seconds:,.0f} clips a second", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--links", type=int, default=50)
    parser.add_argument("--rate", type=int, default=48000)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        root, cache_dir = Path(name) / "recordings", Path(name) / "cache"
        root.mkdir()
        rng = np.random.default_rng(0)
        noise = 0.1 * rng.standard_normal(10 * options.rate)
        paths = []
        for number in range(options.clips):
            start = int(rng.integers(len(noise) - 3 * options.rate))
            first = root / f"{number:05}-00.wav"
            soundfile.write(first, noise[start : start + 3 * options.rate], options.rate, "PCM_16")
            paths.append(first.name)
            for link in range(1, options.links):
                other = root / f"{number:05}-{link:02}.wav"
                os.link(first, other)
                paths.append(other.name)
        rows = pd.DataFrame({"path": paths, "emotion": "happy", "speaker": [path[:4] for path in paths]})
        table = Path(name) / "table.csv"
        rows.to_csv(table, index=False)
        time.sleep(3)  # files that were made just now are not remembered
        clips = timed(f"table of {len(paths):,} clips", len(paths), lambda: Table(str(table)).table(root))
        clips["file"] = [str(root / path) for path in clips["path"]]
        clips.to_csv(table, index=False)

        def build(some: pd.DataFrame) -> None:
            open_cache(some, cache_dir, 16000, 30.0, progress=False)

        alone = clips[clips["path"].str.endswith("-00.wav")]
        timed(f"cache of {len(alone):,} recordings, decoded", len(alone), lambda: build(alone))
        timed(f"{len(clips) - len(alone):,} links more, hashed", len(clips), lambda: build(clips[:-1]))
        timed("one clip more", 1, lambda: build(clips))
        size = sum(path.stat().st_size for path in cache_dir.rglob("*.*")) / 1e9
        print(f"opening {len(clips):,} clips, {size:.1f} GB: ", end="", flush=True)
        subprocess.run([sys.executable, "-c", OPENING, str(table), str(root), str(cache_dir)], check=True)
        print(f"at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB in this process")


if __name__ == "__main__":
    main()
