"""``python -m emolight leakgap``: what a random split flatters, by the same recipe under both."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from emolight.data.splits import FOLDS
from emolight.evaluation.statistics import Difference, bootstrap, metrics_of, paired_difference, unit_counts
from emolight.experiments.crossval import add_fit_options, cross_validate, logs_of, parse
from emolight.files import write_text
from emolight.results import read_result


def leak_gap(random: pd.DataFrame, held_out: pd.DataFrame) -> Difference:
    """UAR under the random split minus UAR with actors held out, on the clips that both scored.

    Args:
        random: predictions of the random split's validation clips.
        held_out: predictions of a cross-validation by actor, which scores every clip once a seed.
    """
    common = set(random["clip_id"]) & set(held_out["clip_id"])
    one, other = (table[table["clip_id"].isin(common)] for table in (random, held_out))
    return paired_difference(one, other)


def sentence(gap: Difference, protocol: str, clips: int) -> str:
    """What the gap means, in one sentence."""
    points, (low, high) = 100 * gap.value, (100 * end for end in gap.interval)
    ends = f"95 % by actor: {low:+.1f} to {high:+.1f}"
    on = f"on the same {clips} clips"
    if low > 0:
        return (
            f"The random split flatters this recipe by {points:.1f} points of UAR ({ends}) {on}: that much is"
            f" lost with actors held out ({protocol}), so its random figure says little about new voices."
        )
    if high < 0:
        return (
            f"Held-out actors ({protocol}) score {-points:.1f} points of UAR higher ({ends}) {on}: seek a mistake."
        )
    return f"No leak is seen: the random split gives {points:+.1f} points of UAR ({ends}) {on}; zero lies inside."


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m emolight leakgap",
        description="Train one recipe under a random split and with actors held out, and show the difference."
        " Finished cross-validations of the same --name are taken as they are. Unknown options go to `fit`.",
        allow_abbrev=False,
    )
    add_fit_options(parser)
    parser.add_argument("--protocol", choices=tuple(FOLDS), default="emobox6", help="default: %(default)s")
    options, config = parse(parser, argv)
    folders: dict[str, Path] = {}
    for protocol in ("random", options.protocol):
        folders[protocol] = logs_of(config) / options.name / f"crossval_{protocol}"
        cross_validate(config, folders[protocol], protocol, options.seeds, None, options.workers)
    random, held_out = (read_result(folder).table for folder in folders.values())
    gap = leak_gap(random, held_out)
    clips = len(set(random["clip_id"]) & set(held_out["clip_id"]))
    lines = [
        f"{name:<10} UAR {100 * metrics_of(unit_counts(table, 'actor').sum(axis=0))['uar']:.2f} %"
        f"  (95 % by actor: {100 * ends.low:.1f} to {100 * ends.high:.1f}, {table['clip_id'].nunique()} clips)"
        for name, table in zip(folders, (random, held_out), strict=True)
        for ends in [bootstrap(table)["uar"]]
    ]
    text = "\n".join([*lines, sentence(gap, options.protocol, clips)])
    path = logs_of(config) / options.name / f"leakgap_{options.protocol}.txt"
    write_text(path, text + "\n")
    print(f"{text}\n{path}")
    return 0
