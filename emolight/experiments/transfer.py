"""``python -m emolight crossval transfer``: train on some clips, test on others: speech, song, women, men, corpora.

Within one corpus the test speakers are held out as well. From one corpus to another every fold's model scores the
whole other corpus, as ``test --ckpt_path RUN --data.corpus OTHER`` does; a cell is the mean over these models.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from emolight.data.corpora import CORPORA, corpus_of
from emolight.data.datamodule import EmotionDataModule
from emolight.data.protocols import make_split, protocols_of
from emolight.data.splits import Split
from emolight.errors import EmolightError, check_choice
from emolight.evaluation.plots import matrix_figure
from emolight.evaluation.style import save_figure
from emolight.experiments.crossval import add_fit_options, all_folds, cross_validate, data_of, logs_of, parse
from emolight.experiments.jobs import Task, run_all
from emolight.experiments.results import read_result
from emolight.experiments.summary import cell, score_row, write_table
from emolight.files import write_text
from emolight.run import cli
from emolight.run.folder import Run

Cells = dict[tuple[str, str], pd.DataFrame]
"""What was trained on and what was tested on, to the predictions."""


class Place(NamedTuple):
    """A corpus as it is named on the command line, ``RAVDESS``, ``mine.csv`` or ``RAVDESS=FOLDER``."""

    spec: str
    root: str | None

    @property
    def name(self) -> str:
        """The corpus' name."""
        return corpus_of(self.spec).name


def transfer_split(split: Split, kept: set[str], what: str) -> Split:
    """A protocol's split with all of its test clips, but only those training and validation clips that are kept.

    Raises:
        EmolightError: nothing is left to train on, or to validate with.
    """
    table = split.table[(split.table["subset"] == "test") | split.table["clip_id"].isin(kept)]
    for subset in ("train", "val"):
        if subset not in set(table["subset"]):
            raise EmolightError(f"'{split.label}' has no {subset} clips of {what}.", "Choose other --folds.")
    return Split(table.reset_index(drop=True), f"{split.label} trained on {what}")


def between_values(config: dict[str, Any], options: argparse.Namespace) -> Cells:
    """Train on each value of a column, and test on each; the protocol's test speakers are held out."""
    data = data_of(config, options.protocol)
    column, trained, tested = _values(data.clips, options)
    folds, protocol = options.folds or all_folds(data, options.folds), data.split.protocol
    if not folds:
        raise EmolightError(f"Protocol '{protocol}' holds no speakers out.", "Take --protocol speakers5.")
    value_of = data.clips.set_index("clip_id")[column].astype(str)
    selection, cells = data.selection, {}
    for value in trained:
        folder = logs_of(config) / options.name / f"transfer_{protocol}_{_slug(value)}"
        splits = {fold: folder / f"split_fold_{fold}.csv" for fold in folds}
        for fold, path in splits.items():
            split = make_split(selection.clips, selection.corpus, protocol, fold, data.split_seed)
            transfer_split(split, set(value_of.index[value_of == value]), value).write(path)
        cross_validate(config, data, folder, options.seeds, folds, options.workers, splits)
        table = read_result(folder).table
        for other in tested:
            cells[value, other] = table[table["clip_id"].map(value_of) == other]
    return cells


def _values(clips: pd.DataFrame, options: argparse.Namespace) -> tuple[str, list[str], list[str]]:
    """The column, the values that are trained on, and those and others that are tested on."""
    pairs = [word.partition("=") for word in (*options.train_on, *options.test_on)]
    columns = {options.by} if options.by else {name for name, *_ in pairs}
    if len(columns) > 1:
        raise EmolightError(f"Several columns: {', '.join(sorted(columns))}.", "Compare the values of one column.")
    column = columns.pop()
    check_choice("column", column, [str(name) for name in clips if name not in ("clip_id", "path", "file", "emotion")])
    every = sorted(clips[column].astype(str).unique())
    for _, _, value in pairs:
        check_choice(f"value of {column}", value, every)
    trained = [word.partition("=")[2] for word in options.train_on] or every
    tested = list(dict.fromkeys([*trained, *(word.partition("=")[2] for word in options.test_on)]))
    if len(tested) < 2:
        raise EmolightError(f"There is one value of {column}: {tested[0]}.", "A transfer is between two or more.")
    return column, trained, tested


def between_corpora(config: dict[str, Any], options: argparse.Namespace) -> Cells:
    """Train on each corpus by its own protocol, and let the models of all its folds score each other corpus."""
    own = config["data"]["corpus"]
    trained = [_place(word) for word in options.train_on] or [Place(own, config["data"]["root"])]
    tested = list(dict.fromkeys([*trained, *(_place(word) for word in options.test_on)]))
    data: dict[Place, EmotionDataModule] = {}
    for place in tested:  # what is wrong with one of them shows before anything is trained
        known = options.protocol in protocols_of(corpus_of(place.spec))
        recipe = _config_of(config, place, place in trained)
        data[place] = data_of(recipe, options.protocol if known else None)
    cells: Cells = {}
    for place in trained:
        folder = logs_of(config) / options.name / f"transfer_{_slug(place.name)}"
        cross_validate(
            _config_of(config, place, True), data[place], folder, options.seeds, options.folds, options.workers
        )
        cells[place.name, place.name] = read_result(folder).table
        about = json.loads((folder / "crossval.json").read_text(encoding="utf-8"))
        runs = [Run.open(folder / run["folder"]) for run in about["runs"]]
        for other in (one for one in tested if one != place):
            suffix = f"_{other.name.replace(' ', '_')}"
            tasks = [
                Task(f"{run.folder.parent.name} on {other.name}", run.folder / f"log{suffix}.txt", score_other, args)
                for run in runs
                for args in [(str(run.best), other.spec, other.root)]
                if not (run.folder / f"predictions_test{suffix}.csv").is_file()
            ]
            run_all(tasks, options.workers)
            parts = [run.predictions("test", suffix).assign(fold=0, seed=n) for n, run in enumerate(runs)]
            cells[place.name, other.name] = pd.concat(parts, ignore_index=True)
    return cells


def _place(word: str) -> Place:
    spec, _, root = word.partition("=")
    return Place(spec, root or None)


def _is_corpus(word: str) -> bool:
    name, equals, _ = word.partition("=")
    return not equals or name in CORPORA or "." in name


def _config_of(config: dict[str, Any], place: Place, trains: bool) -> dict[str, Any]:
    """The recipe for another corpus: what is said of one corpus' clips does not fit another."""
    data = config["data"]
    if place.spec != data["corpus"]:
        data = {**data, "corpus": place.spec, "task": None, "filter": None, "label_map": None, "root": None}
        data["emotions"] = data["emotions"] if trains else None
    return {**config, "data": {**data, "root": place.root or data["root"]}}


def score_other(checkpoint: str, corpus: str, root: str | None) -> None:
    """Let a model score another corpus, on the labels that both know."""
    words = ["test", "--ckpt_path", checkpoint, "--data.corpus", corpus]
    cli.main(words + ([f"--data.root={root}"] if root else []))


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)


def transfer_figure(rows: list[dict[str, Any]], title: str) -> Figure:
    """The rows as a matrix, UAR in % with its interval in each cell."""
    trained, tested = ([*dict.fromkeys(row[name] for row in rows)] for name in ("trained_on", "tested_on"))
    cells = {(row["trained_on"], row["tested_on"]): row for row in rows}
    values = np.array([[100 * cells[one, other]["uar"] for other in tested] for one in trained])
    texts = [[cell(cells[one, other], "\n") for other in tested] for one in trained]
    figure = matrix_figure(values, texts, trained, tested, title)
    figure.axes[0].set(xlabel="tested on", ylabel="trained on")
    return figure


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m emolight crossval transfer",
        description="Train on some clips and test on others: by the values of a column of the corpus (--by channel,"
        " or --train-on channel=speech --test-on channel=song), or from corpus to corpus (--train-on RAVDESS"
        " --test-on mine.csv). UAR in %% with 95 %% intervals by speaker. Unknown options go to `fit`.",
        allow_abbrev=False,
    )
    add_fit_options(parser)
    parser.add_argument("--folds", type=int, nargs="+", metavar="N", help="default: all")
    parser.add_argument("--by", metavar="COLUMN", help="each value of it against each")
    what = "COLUMN=VALUE, or a corpus: a name, a CSV, or either with =FOLDER; several make a matrix"
    parser.add_argument("--train-on", nargs="+", default=[], metavar="WHAT", help=what)
    parser.add_argument("--test-on", nargs="+", default=[], metavar="WHAT", help="beside what is trained on")
    options, config = parse(parser, argv)
    words = [*options.train_on, *options.test_on]
    if not (options.by or words):
        raise EmolightError(
            "What should differ between training and test?",
            "Say --by COLUMN, such as --by sex, or --train-on CORPUS --test-on OTHER.",
        )
    columns = bool(options.by) or not any(_is_corpus(word) for word in words)
    cells = between_values(config, options) if columns else between_corpora(config, options)
    rows = [score_row(table, trained_on=one, tested_on=other) for (one, other), table in cells.items()]
    name = options.by or (words[0].partition("=")[0] if columns else "corpora")
    path = logs_of(config) / options.name / f"transfer_{_slug(name)}"
    title = f"{options.name}: UAR % with 95 % by speaker"
    write_table(Path(f"{path}.csv"), pd.DataFrame(rows))
    write_text(Path(f"{path}.json"), json.dumps({"rows": rows}, indent=2) + "\n")
    save_figure(transfer_figure(rows, title), f"{path}.png")
    tested = list(dict.fromkeys(row["tested_on"] for row in rows))
    grid = Table("trained on", *(f"tested on {one}" for one in tested), title=title, title_justify="left")
    for one in dict.fromkeys(row["trained_on"] for row in rows):
        grid.add_row(one, *(cell(row) for row in rows if row["trained_on"] == one))
    Console(highlight=False, markup=False).print(grid)
    print(f"{path}.csv\n{path}.json\n{path}.png")
    return 0
