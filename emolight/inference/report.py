"""``python -m emolight report``: what a run or a cross-validation found, on one page that needs nothing else."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from emolight import __version__
from emolight.data.audio import Waveform
from emolight.data.splits import FOLDS, describe_protocol
from emolight.data.synthetic import MARKER
from emolight.errors import EmolightError
from emolight.evaluation.plots import curves_figure
from emolight.evaluation.predictions import PREFIX, class_names
from emolight.evaluation.statistics import mean_over_seeds
from emolight.files import write_text
from emolight.inference import report_figures as draw
from emolight.inference.examples import RATE, SUBSETS, Run, load_rows, thumbnail
from emolight.pages import Picture, data_uri, environment, percent, picture, wall_time
from emolight.results import BEST_EPOCH, CROSSVAL, LAST_EPOCH, Result, read_result
from emolight.runs import count_openings

MAX_BYTES = 15_000_000
MOST = 100


class Study(NamedTuple):
    """A result with what its folder tells besides: ``runs``, learning curves, openings of each run, and
    how the sounds were read."""

    result: Result
    runs: list[dict[str, Any]]
    metrics: list[pd.DataFrame]
    openings: list[int]
    trim_db: float | None
    synthetic: bool

    @property
    def seeds(self) -> int:
        """How many predictions a clip has."""
        return int(self.result.table["seed"].nunique()) if "seed" in self.result.table else 1


def read_study(folder: Path) -> Study:
    """Read a run folder or the folder of a cross-validation or an ensemble.

    Raises:
        EmolightError: as :func:`~emolight.results.read_result`, or a run's ``config.yaml`` is damaged.
    """
    result = read_result(folder)
    about = {} if result.kind == "run" else json.loads((folder / CROSSVAL).read_text(encoding="utf-8"))
    runs = about.get("runs", [])
    folders = [folder] if result.kind == "run" else [folder / run["folder"] for run in runs]
    openings = [count_openings(one) for one in folders]
    tables = []
    for path in (one / "metrics.csv" for one in folders):
        try:
            tables.append(pd.read_csv(path))
        except (OSError, ValueError):  # a run that is copied without it, or was stopped before it logged
            continue
    metrics = [table for table in tables if "epoch" in table and table["epoch"].notna().any()]
    config = folders[0] / "config.yaml" if folders else folder / "config.yaml"
    try:
        data = yaml.safe_load(config.read_text(encoding="utf-8"))["data"] if config.is_file() else {}
        return Study(result, runs, metrics, openings, data.get("trim_db"), bool(data.get("synthetic")))
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise EmolightError(
            f"{config} cannot be used ({type(error).__name__}).", "Take the file that the run wrote."
        ) from None


def most_wrong(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The wrong predictions of the highest probability, at most ``count``, highest first.

    Args:
        table: predictions table; with several seeds a clip is judged by the mean of its probabilities.
        count: how many.

    Returns:
        Their rows, with the columns ``right`` (False) and ``probability`` (of the prediction).
    """
    merged = mean_over_seeds(table)
    wrong = merged[merged["label"] != merged["prediction"]]
    told = [float(row[PREFIX + row["prediction"]]) for _, row in wrong.iterrows()]
    marked = wrong.assign(right=False, probability=told)
    return marked.sort_values("probability", ascending=False, kind="stable").head(count)


def load_sounds(study: Study, chosen: pd.DataFrame, root: Path) -> dict[str, Waveform]:
    """Clip id to its recording [T] at 16 kHz, of every chosen clip.

    Raises:
        EmolightError: a recording is missing or cannot be used.
    """
    result = study.result
    run = Run(result.name, result.table, result.protocol, root, study.trim_db, study.synthetic)
    return {one.clip_id: one.waveform for row in load_rows(run, chosen) for one in row.wrong_examples}


def protocol_words(study: Study) -> list[str]:
    """Who was held out, how the epoch was chosen and how often the test set was opened: a sentence or two each."""
    result, table = study.result, study.result.table
    by_actor, tested = result.protocol.split()[0] in FOLDS, result.subset == "test"
    actors = sorted(set(table["actor"]))
    named = "actor " if len(actors) == 1 else "actors "
    named += ", ".join(str(actor) for actor in actors)
    if by_actor and "fold" in table and table["fold"].nunique() > 1:
        sizes = sorted(set(table.groupby("fold")["actor"].nunique()))
        each = " or ".join(str(size) for size in sizes) + (" actor" if sizes == [1] else " actors")
        kind = "held out" if tested else "kept out of training, for validation"
        who = f"{table['fold'].nunique()} folds, in each of which {each} of {len(actors)} are {kind}. "
        who += "Every prediction on this page is of an actor whom its network never heard in training."
    elif by_actor and tested:
        who = f"Held out: {named}. No clip of theirs was in training or chose anything."
    elif by_actor:
        who = f"Kept out of training, for validation: {named}. The test actors are not on this page."
    elif result.protocol.startswith("random"):
        who = "No actor was held out: the clips scored are drawn at random, and the networks trained on other "
        who += "clips of the same voices. The figures say nothing about a new voice."
    else:
        who = f"The split is {describe_protocol(result.protocol)}; scored are {named}."
    if result.selection == BEST_EPOCH:
        epoch = "The epoch with the highest UAR on the validation clips. "
        epoch += (
            "The test clips had no part in it." if tested else "These are those clips, which flatters the figures."
        )
    elif result.selection == LAST_EPOCH:
        epoch = "The last epoch, fixed beforehand: nothing was selected by a score."
    else:
        epoch = result.selection
    return [who, epoch, _openings_words(study)]


def _openings_words(study: Study) -> str:
    result, counts, tested = study.result, study.openings, study.result.subset == "test"
    if result.kind == "ensemble":
        return f"{result.openings} × by the runs that the ensemble is made of."
    if result.protocol.startswith("random"):
        return "This protocol has no test set: the figures are of the validation clips."
    if not any(counts):
        if tested:
            return "How often is not recorded."
        return "No opening is recorded; the figures are of the validation clips."
    of_runs = f"{len(counts)} runs" if len(counts) > 1 else "the run"
    if not tested:
        return f"{sum(counts)} × by {of_runs}; the figures here are of the validation clips."
    if set(counts) == {1}:
        return f"Once by each of the {of_runs}." if len(counts) > 1 else "Once."
    if max(counts) == 1:
        return f"{sum(counts)} × are recorded, of {of_runs}."
    return f"{sum(counts)} × by {of_runs}. The more often, the more the figures may be chosen."


def cards(study: Study, chosen: pd.DataFrame, sounds: dict[str, Waveform]) -> list[dict[str, Any]]:
    """What the page shows of each chosen clip; without a recording there is no picture and no sound."""
    found = []
    for _, row in chosen.iterrows():
        card = {name: row[name] for name in ("clip_id", "label", "prediction", "probability")}
        card["about"] = f"actor {row['actor']} ({row['sex']}), {row['intensity']} {row['channel']}"
        card["bars"] = [(name, float(row[PREFIX + name])) for name in class_names(study.result.table)]
        wave = sounds.get(row["clip_id"])
        card |= {"image": None, "sound": None, "seconds": None}
        if wave is not None:
            card["image"] = data_uri("image/png", thumbnail(wave))
            card |= {"sound": data_uri("audio/flac", draw.flac(wave)), "seconds": len(wave) / RATE}
        found.append(card)
    return found


def figures(study: Study, summary: dict[str, Any]) -> dict[str, Picture | None]:
    """Every figure of the page; ``curves`` is None where nothing was logged."""
    table, seeds, pooled = study.result.table, study.seeds, summary["pooled"]
    curves = None
    if study.metrics and study.result.kind == "run":
        curves = curves_figure(study.metrics[0])
        curves.suptitle("")
    elif study.metrics:
        curves = draw.curves_of_runs(study.metrics)
    names = class_names(table)
    recalls = ", ".join(f"{name} {percent(pooled[f'recall {name}']['value'])}" for name in clips_of(table))
    bins = "; ".join(
        f"{percent(one['confidence'])} told, {percent(one['accuracy'])} right"
        for one in summary["calibration"]["bins"]
    )
    return {
        "confusion": picture(draw.confusion_of(table, seeds), f"Confusion matrix of {', '.join(names)}"),
        "recall": picture(draw.recalls(pooled, clips_of(table), 1 / len(names)), f"Recall: {recalls}"),
        "curves": picture(curves, "Learning curves: losses and validation UAR by epoch") if curves else None,
        "actors": picture(
            draw.actors_of(table, summary["groups"]["actor"], seeds), "UAR of each actor; the table below has it"
        ),
        "reliability": picture(draw.reliability(summary["calibration"]), f"Reliability: {bins}"),
    }


def clips_of(table: pd.DataFrame) -> dict[str, int]:
    """Emotion to its clips, whatever the number of seeds, in class order; without those that do not occur."""
    counts = table.drop_duplicates("clip_id")["label"].value_counts()
    return {name: int(counts[name]) for name in class_names(table) if name in counts}


def page(
    study: Study,
    summary: dict[str, Any],
    chosen: pd.DataFrame,
    sounds: dict[str, Waveform],
    silence: str = "",
    command: str = "",
) -> str:
    """The report as one HTML page that needs nothing else.

    Args:
        study: of :func:`read_study`.
        summary: of :func:`~emolight.evaluation.statistics.summarise`, with ``controls``, which may be missing.
        chosen: of :func:`most_wrong`.
        sounds: of :func:`load_sounds`; empty where the recordings are not at hand.
        silence: why there are none.
        command: how the page was made.

    Raises:
        EmolightError: it would be larger than 15 MB.
    """
    result, groups = study.result, summary["groups"]
    names = class_names(result.table)
    text = (
        environment("emolight.inference")
        .get_template("report.html.j2")
        .render(
            result=result,
            subset=SUBSETS[result.subset],
            seeds=study.seeds,
            runs=len(study.runs),
            summary=summary,
            controls=summary.get("controls", []),
            emotions=names,
            channels=sorted(set(result.table["channel"]), reverse=True),
            chance=1 / len(names),
            protocol=protocol_words(study),
            meaning=describe_protocol(result.protocol),
            figures=figures(study, summary),
            confusions=draw.confusions(result.table),
            compared=draw.controls_sheet(result.name, summary),
            recalls=draw.recall_sheet(summary["pooled"], clips_of(result.table)),
            sheets={column: draw.group_sheet(result.table, groups[column], column) for column in groups},
            cards=cards(study, chosen, sounds),
            silence=silence,
            synthetic=study.synthetic,
            trimmed=study.trim_db is not None,
            facts=facts(result, command),
        )
    )
    if (size := len(text.encode())) > MAX_BYTES:
        problem = f"The page would be {size / 1e6:.1f} MB; it may be {MAX_BYTES / 1e6:.0f} MB."
        raise EmolightError(problem, "Lower --clips.")
    return text


def facts(result: Result, command: str) -> list[tuple[str, str]]:
    """What the footer tells of the making; what the folder does not know is left out."""
    known = result.facts
    found = [("made by", command), ("emolight", __version__), ("commit of the training", known.get("commit"))]
    if isinstance(seconds := known.get("seconds"), int | float):
        found.append(("wall time of training", wall_time(seconds)))
    found += [("features", known.get("mode")), ("precision", known.get("precision"))]
    if isinstance(count := known.get("parameters"), int | float):
        found.append(("parameters", f"{count:,.0f}".replace(",", "\u202f")))
    return [(name, str(value)) for name, value in found if value]


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m emolight report",
        description="Write one page on a run or a cross-validation, to read offline.",
    )
    parser.add_argument(
        "folder", type=Path, metavar="RUN_OR_CROSSVAL", help="lightning_logs/NAME/version_N, or a crossval's folder"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: report.html in that folder")
    parser.add_argument("--root", type=Path, metavar="DIR", help="the recordings; default: where the run had them")
    parser.add_argument(
        "--clips", type=int, default=12, metavar="N", help="how many wrong ones to hear; default: %(default)s"
    )
    options = parser.parse_args(argv)
    if not 1 <= options.clips <= MOST:
        raise EmolightError(f"--clips is {options.clips}; it must be from 1 to {MOST}.", "12 is usual.")
    study = read_study(options.folder)
    root = options.root or Path(study.result.facts.get("root") or "data/ravdess")
    study = study._replace(synthetic=study.synthetic or (root / MARKER).is_file())
    chosen = most_wrong(study.result.table, options.clips)
    sounds, silence = {}, ""
    try:
        sounds = load_sounds(study, chosen, root)
    except EmolightError as error:
        if options.root is not None:
            raise
        silence = str(error).splitlines()[0]
    from emolight.experiments.summary import summary_of

    command = shlex.join(["python", "-m", "emolight", "report", *argv])
    text = page(study, summary_of(options.folder, options.root), chosen, sounds, silence, command)
    output = options.output or options.folder / "report.html"
    try:
        write_text(output, text)
    except OSError as error:
        raise EmolightError(
            f"Cannot write '{output}': {error.strerror}.", "Give another place by --output FILE."
        ) from None
    print(output)
    return 0
