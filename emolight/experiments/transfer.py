"""``python -m emolight transfer``: train on speech, test on song, and the reverse; actors are held out as well."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from emolight.data.ravdess import CHANNELS, discover, select
from emolight.data.splits import FOLDS, make_split, write_split
from emolight.data.synthetic import make_corpus
from emolight.errors import EmolightError
from emolight.evaluation.plots import DPI, ink_on, save_figure
from emolight.evaluation.statistics import bootstrap, metrics_of, unit_counts
from emolight.experiments.crossval import add_fit_options, check_folds, cross_validate, logs_of, parse
from emolight.files import atomic_write
from emolight.results import read_result


def transfer_split(clips: pd.DataFrame, protocol: str, fold: int, channel: str) -> pd.DataFrame:
    """The protocol's split with the training and validation clips of one channel, and all test clips.

    Args:
        clips: clip table of both channels.
        protocol: an actor protocol.
        fold: one of its folds.
        channel: ``speech`` or ``song``, of what is trained on.
    """
    split = make_split(clips, protocol, fold)
    heard = set(clips["clip_id"][clips["channel"] == channel])
    kept = (split["subset"] == "test") | split["clip_id"].isin(heard)
    return split[kept].assign(protocol=f"{protocol} fold {fold}, trained on {channel}").reset_index(drop=True)


def matrix_rows(tables: dict[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """``trained_on``, ``tested_on``, ``clips``, ``uar``, ``low``, ``high``: a row a cell of the matrix.

    Args:
        tables: channel that was trained on, to the predictions of test clips of both channels.
    """
    rows = []
    for trained, table in tables.items():
        for tested in CHANNELS:
            part = table[table["channel"] == tested]
            uar = float(metrics_of(unit_counts(part, "actor").sum(axis=0))["uar"])
            low, high = bootstrap(part)["uar"]
            cell = {"trained_on": trained, "tested_on": tested, "clips": int(part["clip_id"].nunique())}
            rows.append({**cell, "uar": uar, "low": low, "high": high})
    return rows


def matrix_figure(rows: list[dict[str, Any]], title: str) -> Figure:
    """The matrix of :func:`matrix_rows`, UAR in % with its interval in each cell."""
    figure = Figure(figsize=(5.4, 4.2), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    cells = {(one["trained_on"], one["tested_on"]): one for one in rows}
    values = [[100 * cells[trained, tested]["uar"] for tested in CHANNELS] for trained in CHANNELS]
    image = axis.imshow(values, cmap="Blues", vmin=0, vmax=100)
    for row, trained in enumerate(CHANNELS):
        for column, tested in enumerate(CHANNELS):
            one = cells[trained, tested]
            text = f"{100 * one['uar']:.1f}\n{100 * one['low']:.1f} to {100 * one['high']:.1f}"
            ink = ink_on(tuple(image.cmap(image.norm(values[row][column]))))
            axis.text(column, row, text, ha="center", va="center", color=ink)
    axis.set_xticks(range(len(CHANNELS)), CHANNELS)
    axis.set_yticks(range(len(CHANNELS)), CHANNELS)
    axis.set(xlabel="tested on", ylabel="trained on")
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    axis.set_title(title, fontsize=11)
    return figure


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m emolight transfer",
        description="Train on speech and on song, and test each on both: UAR in % with 95 % intervals by actor."
        " Unknown options go to `fit`.",
        allow_abbrev=False,
    )
    add_fit_options(parser)
    parser.add_argument("--protocol", choices=tuple(FOLDS), default="emobox6", help="default: %(default)s")
    parser.add_argument("--folds", type=int, nargs="+", metavar="N", help="default: all")
    options, config = parse(parser, argv)
    check_folds(options.protocol, options.folds)
    data = config["data"]
    if set(data["channels"]) != set(CHANNELS):
        raise EmolightError(
            f"data.channels is {', '.join(data['channels'])}; a transfer needs speech and song.",
            "Take a configuration of the article's task.",
        )
    if data["synthetic"]:
        make_corpus(Path(data["root"]))
    clips = select(discover(Path(data["root"])).table, data["emotions"], data["channels"])
    folds = options.folds or sorted(FOLDS[options.protocol])
    place = logs_of(config) / options.name
    tables = {}
    for channel in CHANNELS:
        folder = place / f"transfer_{options.protocol}_{channel}"
        splits = {fold: folder / f"split_fold_{fold}.csv" for fold in folds}
        for fold, path in splits.items():
            write_split(path, transfer_split(clips, options.protocol, fold, channel))
        cross_validate(config, folder, options.protocol, options.seeds, options.folds, options.workers, splits)
        tables[channel] = read_result(folder).table
    rows = matrix_rows(tables)
    path = place / f"transfer_{options.protocol}"
    with atomic_write(path.with_suffix(".csv")) as part:
        pd.DataFrame(rows).to_csv(part, index=False, float_format="%.6f", lineterminator="\n")
    of_folds = "" if options.folds is None else f" folds {' '.join(map(str, folds))}"
    save_figure(
        matrix_figure(rows, f"{options.name}: UAR %, {options.protocol}{of_folds}"), path.with_suffix(".png")
    )
    _print(rows, f"{options.name}: UAR % with 95 % by actor, {options.protocol}{of_folds}")
    print(f"{path}.csv\n{path}.png")
    return 0


def _print(rows: list[dict[str, Any]], title: str) -> None:
    grid = Table("trained on", *(f"tested on {channel}" for channel in CHANNELS), title=title, title_justify="left")
    for channel in CHANNELS:
        cells = [one for one in rows if one["trained_on"] == channel]
        texts = [f"{100 * one['uar']:.1f} ({100 * one['low']:.1f} to {100 * one['high']:.1f})" for one in cells]
        grid.add_row(channel, *texts)
    Console(highlight=False).print(grid)
