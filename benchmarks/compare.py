"""The table of training steps (step.py) of two commits side by side: of BASE, and of this checkout as it stands.

python benchmarks/compare.py BASE [--rounds 2] [--steps 12]        about 2 minutes a round and side

BASE is checked out into a temporary git worktree. The same step.py, this one, measures both sides, in turns, each in a
process of its own that imports emolight from its side; the best of the rounds counts, since disturbances only slow.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import REPOSITORY, machine, markdown

Rates = dict[str, dict[str, float]]


def git(*words: str) -> str:
    """What git says in this checkout."""
    done = subprocess.run(["git", "-C", str(REPOSITORY), *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def measure(tree: Path, folder: Path, steps: int, batch: int) -> Rates:
    """What step.py finds with the package of a source tree."""
    result = folder / "rates.json"
    words = [sys.executable, str(REPOSITORY / "benchmarks/step.py"), f"--steps={steps}", f"--batch={batch}"]
    variables = {**os.environ, "PYTHONPATH": str(tree)}
    subprocess.run([*words, f"--json={result}"], check=True, env=variables, cwd=folder, stdout=subprocess.DEVNULL)
    rates: Rates = json.loads(result.read_text(encoding="utf-8"))
    return rates


def best(rounds: list[Rates]) -> Rates:
    """The highest rate of each network at each size."""
    return {what: {name: max(one[what][name] for one in rounds) for name in rounds[0][what]} for what in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", metavar="BASE", help="a commit, branch or tag")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    base, head = git("rev-parse", "--short", f"{options.base}^{{commit}}"), git("describe", "--always", "--dirty")
    found: dict[str, list[Rates]] = {base: [], head: []}
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        tree, folder = Path(name) / "base", Path(name)
        git("worktree", "add", "--detach", str(tree), base)
        try:
            for _ in range(options.rounds):
                for side, place in ((base, tree), (head, REPOSITORY)):
                    found[side].append(measure(place, folder, options.steps, options.batch))
        finally:
            git("worktree", "remove", "--force", str(tree))
    old, new = best(found[base]), best(found[head])
    rows = [
        (
            what,
            f"{old[what]['emolight']:.1f}",
            f"{rates['emolight']:.1f}",
            f"× {rates['emolight'] / old[what]['emolight']:.2f}",
            f"{rates['torchvision']:.1f}",
        )
        for what, rates in new.items()
    ]
    print(f"\ntraining step of {options.batch} clips, one thread, clips a second, best of {options.rounds} rounds\n")
    print(markdown(("input, precision", base, head, "now / then", "torchvision's ResNet18"), rows))
    print(machine())


if __name__ == "__main__":
    main()
