"""``python -m emolight crossval transfer``: train on some clips, test on others: speech, song, women, men, corpora.

Within one corpus the test speakers are held out as well. From one corpus to another every fold's model scores the
whole other corpus, as ``test --ckpt_path RUN --data.corpus OTHER`` does; a cell is the mean over these models.
"""

import argparse
import re
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from emolight.data.corpora import CORPORA, corpus_of, module_of
from emolight.data.datamodule import EVERY_CLIP, EmotionDataModule
from emolight.data.protocols import make_split, protocols_of
from emolight.data.selection import corpora_of
from emolight.data.splits import Split
from emolight.errors import CommandParser, EmolightError, check_choice, trust
from emolight.evaluation.plots import matrix_figure
from emolight.evaluation.statistics import few_speakers
from emolight.experiments.crossval import add_fit_options, all_folds, cross_validate, data_of, parse
from emolight.experiments.jobs import run_all
from emolight.experiments.processes import Task
from emolight.experiments.results import runs_of
from emolight.experiments.summary import cell, score_row, write_found
from emolight.run import cli
from emolight.run.folder import Run, logs_of
from emolight.run.words import word_of

Cells = dict[tuple[str, str], pd.DataFrame]
"""What was trained on and what was tested on, to the predictions."""


def between_values(config: dict[str, Any], options: argparse.Namespace) -> Cells:
    """Train on each value of a column, and test on each; the protocol's test speakers are held out."""
    data = data_of(config, options.protocol)
    selection, cells, protocol = data.selection, {}, data.split.protocol
    pairs = [word.partition("=")[::2] for word in (*options.train_on, *options.test_on)]
    unfit = ["path", "file", "emotion", "subset"]
    columns = data.clips.set_index("clip_id").drop(columns=unfit, errors="ignore").astype(str)
    column = options.by or pairs[0][0]
    check_choice("column", column, [str(name) for name in columns])
    for name, value in pairs:
        check_choice("column beside the first", name, [column])
        check_choice(f"value of {column}", value, sorted(columns[column].unique()))
    trained = [value for _, value in pairs[: len(options.train_on)]] or sorted(columns[column].unique())
    tested = list(dict.fromkeys([*trained, *(value for _, value in pairs)]))
    every = all_folds(data, options.folds)
    folds = options.folds or every
    if not folds or len(tested) < 2:
        problem = f"Of {column} there is {' and '.join(tested)}, and protocol '{protocol}' has {len(folds)} folds."
        fix = "A transfer is between two values or more; take --protocol speakers5 to hold speakers out."
        raise EmolightError(problem, fix)
    for value in trained:
        folder = logs_of(config) / options.name / f"transfer_{protocol}_{_slug(value)}"
        splits = {fold: folder / f"split_fold_{fold}.csv" for fold in every}  # of earlier commands, too
        for fold in folds:
            split = make_split(selection.clips, selection.corpus, protocol, fold, data.split_seed)
            # All of its test clips, but only training and validation clips of that value.
            kept = (split.table["subset"] == "test") | (split.table["clip_id"].map(columns[column]) == value)
            table = split.table[kept].reset_index(drop=True)
            for subset in {"train", "val"} - set(table["subset"]):
                raise EmolightError(f"'{split.label}' has no {subset} clips of {value}.", "Choose other --folds.")
            path, split = splits[fold], Split(table, f"{split.label} trained on {value}")
            if path.is_file() and path.read_text(encoding="utf-8") != split.to_csv():  # a value of another column
                raise EmolightError(f"{folder} is of other clips than {column} {value}.", "Pass another --name.")
            split.write(path)
        table = cross_validate(config, data, folder, options.seeds, folds, options.workers, splits).table
        for other in tested:
            cells[value, other] = table[table["clip_id"].map(columns[column]) == other]
            if cells[value, other].empty:
                raise EmolightError(f"No test clip of these folds is of {column} {other}.", "Take more --folds.")
    return cells


def between_corpora(config: dict[str, Any], options: argparse.Namespace) -> Cells:
    """Train on each corpus by its own protocol, and let the models of all its folds score each other corpus."""
    own, cells, data = (config["data"]["corpus"], config["data"]["root"]), Cells(), {}
    valid = {"label_map": set[str](), "filter": set[str]()}
    named = [word.partition("=")[::2] for word in (*options.train_on, *options.test_on)]
    trained = named[: len(options.train_on)] or [own]
    if not isinstance(own[0], str) or len({*trained, *named}) < 2:
        raise EmolightError("A transfer is from one corpus to another.", "Say --train-on CORPUS --test-on OTHER.")
    called = [corpus_of(spec).name for spec, _ in dict.fromkeys([*trained, *named])]
    if twice := [name for name in called if called.count(name) > 1]:
        raise EmolightError(f"Two corpora have the name '{twice[0]}'.", "Rename a file.")
    if options.protocol:
        valid_protocols = {one for spec, _ in trained for one in protocols_of(corpus_of(spec))}
        check_choice("protocol", options.protocol, sorted(valid_protocols))
    for spec, root in dict.fromkeys([*trained, *named]):  # what is wrong with one shows before anything is trained
        recipe = config["data"]
        if spec != own[0]:  # a task and a root are of one corpus
            emotions = recipe["emotions"] if (spec, root) in trained else None
            recipe = {**recipe, "task": None, "root": None, "emotions": emotions}
        recipe = {**recipe, "corpus": spec, "root": root or recipe["root"]}
        recipe = {**config, "data": {**recipe, **_known(recipe, valid)}}
        protocol = options.protocol if options.protocol in protocols_of(corpus_of(spec)) else None
        data[spec, root] = recipe, data_of(recipe, protocol if (spec, root) in trained else EVERY_CLIP)
    for option, names in valid.items():
        for key in config["data"][option] or ():
            check_choice(f"name in data.{option}", str(key), sorted(names))
    for place, (spec, root) in ((one, other) for one in trained for other in data if one != other):
        labels = [set(data[of][1].selection.clips["emotion"]) for of in (place, (spec, root))]
        if len(shared := set.intersection(*labels)) < 2:
            both = " and ".join(", ".join(sorted(own)) for own in labels)
            label = f"the label {min(shared)} alone" if shared else "no label"
            raise EmolightError(f"{place[0]} and {spec} share {label}: {both}.", "Rename some by data.label_map.")
    for place in dict.fromkeys(trained):
        name = corpus_of(place[0]).name
        folder = logs_of(config) / options.name / f"transfer_{_slug(name)}"
        result = cross_validate(*data[place], folder, options.seeds, options.folds, options.workers)
        cells[name, name] = result.table
        runs = runs_of(result).values()
        for spec, root in (other for other in data if other != place):
            tested, recipe = corpus_of(spec).name, data[spec, root][0]
            recipe = {**recipe, "data": {**recipe["data"], "emotions": data[place][1].classes}}
            suffix, tasks, scored = f"_{tested.replace(' ', '_')}", [], data_of(recipe, EVERY_CLIP)
            taken = ("root", "task", "speakers", "label_map", "filter", "on_bad_clip")
            words = [word_of(f"data.{name}", value) for name in taken if (value := recipe["data"][name])]
            for run in runs:
                if not _has_scored(run, suffix, scored):
                    label, log = f"{run.folder.parent.name} on {tested}", run.folder / f"log{suffix}.txt"
                    argv = ["test", "--ckpt_path", str(run.best), "--data.corpus", spec, *words]
                    tasks.append(Task(label, log, cli.main, (argv,)))
            run_all(tasks, options.workers)
            parts = [run.predictions("test", suffix).assign(fold=0, seed=n) for n, run in enumerate(runs)]
            cells[name, tested] = pd.concat(parts, ignore_index=True)
    return cells


def _known(data: dict[str, Any], valid: dict[str, set[str]]) -> dict[str, dict[str, Any]]:
    """Of ``label_map`` and ``filter`` what fits a corpus, whose labels and columns become ``valid``."""
    ((corpus, root),) = corpora_of(data["corpus"], data["root"])
    corpus.prepare(root)
    table = corpus.table(root)
    labels = {str(column): set(table[column].astype(str)) for column in table}
    valid["label_map"] |= (own := labels.get(data["label"] or "emotion", set()))
    valid["filter"] |= set(labels)
    kept = {key: some for key, some in (data["filter"] or {}).items() if labels.get(key, set()) & {*map(str, some)}}
    renamed = {old: new for old, new in (data["label_map"] or {}).items() if str(old) in own}
    return {"label_map": renamed, "filter": kept}


def _has_scored(run: Run, suffix: str, data: EmotionDataModule) -> bool:
    """Whether a run has scored these very clips, by these labels."""
    if not (run.folder / f"predictions_test{suffix}.csv").is_file():
        return False
    found, clips = run.predictions("test", suffix), data.clips
    labels = dict(zip(clips["clip_id"], clips["emotion"], strict=True))
    return dict(zip(found["clip_id"], found["label"], strict=True)) == labels


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]", lambda sign: "_" if sign[0].isspace() else f"{ord(sign[0]):x}", text)  # <30 is not >30


def main(argv: list[str]) -> int:
    """Run the command."""
    about = (
        "Train on some clips and test on others: by the values of a column of the corpus (--by channel,"
        " or --train-on channel=speech --test-on channel=song), or from corpus to corpus (--train-on RAVDESS"
        " --test-on mine.csv). UAR in %% with 95 %% intervals by speaker. Unknown options go to `fit`."
    )
    parser = CommandParser("crossval transfer", about)
    add_fit_options(parser)
    parser.add_argument("--folds", type=int, nargs="+", metavar="N", help="default: all")
    parser.add_argument("--by", metavar="COLUMN", help="each value of it against each")
    what = "COLUMN=VALUE, or a corpus: a name, a CSV, or either with =FOLDER; several make a matrix"
    parser.add_argument("--train-on", nargs="+", default=[], metavar="WHAT", help=what)
    parser.add_argument("--test-on", nargs="+", default=[], metavar="WHAT", help="beside what is trained on")
    options, config = parse(parser, argv)
    words = [word.partition("=") for word in (*options.train_on, *options.test_on)]
    if not (options.by or words):
        problem = "What should differ between training and test?"
        raise EmolightError(problem, "Say --by COLUMN, such as --by sex, or --train-on CORPUS --test-on OTHER.")
    trust(module_of(name) for name, *_ in words)
    of_corpora = not options.by and any(not equals or name in CORPORA or "." in name for name, equals, _ in words)
    cells = between_corpora(config, options) if of_corpora else between_values(config, options)
    rows = {place: score_row(cells[place], trained_on=place[0], tested_on=place[1]) for place in cells}
    trained, tested = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    title = f"{options.name}: UAR % with 95 % by speaker"
    values = np.array([[100 * rows[one, other]["uar"] for other in tested] for one in trained])
    texts = [[cell(rows[one, other], "\n") for other in tested] for one in trained]
    figure = matrix_figure(values, texts, trained, tested, title)
    figure.axes[0].set(xlabel="tested on", ylabel="trained on")
    grid = Table("trained on", *(f"tested on {one}" for one in tested), title=title, title_justify="left")
    for one, cells_of in zip(trained, texts, strict=True):
        grid.add_row(one, *(text.replace("\n", " ") for text in cells_of))
    Console(highlight=False, markup=False).print(grid)
    if few := few_speakers(min(table["speaker"].nunique() for table in cells.values())):
        print(f"note: {few}")
    name = "corpora" if of_corpora else options.by or words[0][0]
    write_found(logs_of(config) / options.name / f"transfer_{_slug(name)}", [*rows.values()], figure)
    return 0
