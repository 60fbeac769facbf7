"""``python -m emolight report``: what a run, a cross-validation or an ensemble gives, on one page."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from jsonargparse.typing import NonNegativeInt

from emolight import __version__
from emolight.data.corpus import Corpus
from emolight.data.selection import corpora_of
from emolight.data.splits import BEST_EPOCH, LAST_EPOCH, SCORED
from emolight.errors import CommandParser, EmolightError
from emolight.evaluation import plots
from emolight.evaluation.predictions import class_names, group_columns
from emolight.evaluation.statistics import few_speakers
from emolight.experiments.ensemble import member_text
from emolight.experiments.results import Result, read_result, runs_of
from emolight.experiments.summary import summary_of
from emolight.files import write_text
from emolight.report import clips
from emolight.report.pages import environment, picture
from emolight.run.folder import Run

Roots = str | list[str] | None
SHOWN = 12
"""Of more names than these a sentence or a cell gives the first ones."""


def listed(names: Iterable[str]) -> str:
    """``01, 11, 20``; of many the first ones: ``1, 2, ... and 79 more``."""
    every = sorted(map(str, names))
    rest = len(every) - SHOWN
    return ", ".join(every) if rest <= 1 else f"{', '.join(every[:SHOWN])} and {rest} more"


def confusions(table: pd.DataFrame) -> list[tuple[str, str, float]]:
    """The three most frequent confusions: true emotion, predicted one, share of the true one's predictions."""
    shares = pd.crosstab(table["label"], table["prediction"], normalize="index").reset_index()
    pairs = shares.melt("label", var_name="prediction", value_name="share")
    wrong = pairs.query("label != prediction and share > 0").nlargest(3, "share")
    return list(wrong.itertuples(index=False, name=None))


def runs_at_hand(result: Result) -> list[Run]:
    """The runs of a result as far as their folders are there; of an ensemble the first member's."""
    for member in result.facts.get("members", [])[:1]:
        with contextlib.suppress(EmolightError):
            return runs_at_hand(read_result(result.folder / member["folder"]))
    return list(runs_of(result).values())


def recordings(runs: Sequence[Run], root: Roots, chosen: set[str]) -> tuple[list[Corpus], clips.Sounds, str]:
    """What the corpora are, the chosen recordings, and why some or all are lacking, which is an error in ``root``."""
    if not runs:
        return [], {}, "The run folders are not at hand."
    data, corpora = runs[0].config["data"], list[Corpus]()
    try:
        corpora = [corpus for corpus, _ in corpora_of(data.get("corpus", ""), data.get("root"))]
        return corpora, *clips.load_sounds(chosen, runs[0].data(root=root).selection.clips, data.get("trim_db"))
    except EmolightError as error:
        reason = str(error).splitlines()[0]
        if root is not None:
            raise EmolightError(reason, "Say where the recordings are: --root DIR") from None
        return corpora, {}, reason


def page(result: Result, root: Roots = None, most: int = 12, each: int = 2, command: str = "") -> str:
    """The report as one HTML page that needs nothing else; where recordings are missing it says why.

    It holds ``most`` of the surest wrong predictions, and of each emotion ``each`` right and wrong ones.
    """
    table, summary, runs, metrics = result.table, summary_of(result, root), runs_at_hand(result), list[pd.DataFrame]()
    judged = clips.judged(table)
    wrong, examples = judged[~judged["right"]].head(most), judged.groupby(["label", "right"], sort=False).head(each)
    corpora, sounds, silence = recordings(runs, root, {*wrong["clip_id"], *examples["clip_id"]})
    for run in runs if result.kind != "ensemble" else []:
        with contextlib.suppress(OSError, ValueError, KeyError):  # copied without it, or stopped before it logged
            metrics.append(pd.read_csv(run.folder / "metrics.csv").dropna(subset=["epoch"]))
    metrics = [one for one in metrics if one["epoch"].nunique() > 1]  # of one epoch there is no curve
    figures = {
        "confusion": picture(plots.confusion_figure(table, ""), "Confusion matrix, a row a true label"),
        "recall": picture(plots.recall_figure(table, ""), "Recall of each label; the table below has it"),
        "speakers": picture(plots.speaker_figure(table, ""), "UAR of each speaker; the table below has it"),
        "reliability": picture(plots.reliability_figure(table), "Reliability: accuracy by confidence"),
    }
    if metrics:
        figures["curves"] = picture(plots.curves_figure(metrics, ""), "Learning curves")
    template = environment("emolight.report").get_template("report.html.j2")
    return template.render(
        result=result,
        subset=SCORED[result.subset],
        summary=summary,
        few=few_speakers(summary["speakers"]),
        emotions=class_names(table),
        of_folds=list(table.groupby("fold")["speaker"].nunique()) if "fold" in table else [],
        voices=listed(table["speaker"].unique()),
        epochs={"best": BEST_EPOCH, "last": LAST_EPOCH},
        runs=runs,
        curves=len(metrics),
        members=[member_text(one) for one in result.facts.get("members", [])],
        corpora=corpora,
        figures=figures,
        confusions=confusions(table),
        clips_of=table.drop_duplicates("clip_id")["label"].value_counts().to_dict(),
        beside={
            one: table.groupby(one)[other].unique().map(listed).to_dict() if {one, other} <= set(table) else {}
            for one, other in {**dict.fromkeys(summary["groups"], ""), "speaker": "sex", "fold": "speaker"}.items()
        },
        groups=[name for name in group_columns(table) if name not in clips.ADDED],
        wrong=clips.make_cards(wrong, sounds),
        examples=clips.make_cards(examples, sounds),
        silence=silence,
        heard=bool(sounds),
        cut=any(len(wave) > clips.LONGEST * clips.RATE for wave in sounds.values()),
        longest=clips.LONGEST,
        command=command,
        version=__version__,
    )


def main(argv: list[str]) -> int:
    """Run the command."""
    about = "Write one page on a run, a cross-validation or an ensemble, to read and to hear offline."
    parser = CommandParser("report", about)
    parser.add_argument("folder", type=Path, metavar="RUN_OR_CROSSVAL", help="its folder, or a checkpoint in it")
    about = "the surest wrong ones; default: %(default)s"
    parser.add_argument("--clips", type=NonNegativeInt, default=12, metavar="N", help=about)
    about = "right and wrong ones of each; default: %(default)s"
    parser.add_argument("--per-emotion", type=NonNegativeInt, default=2, metavar="N", help=about)
    about = "the recordings, of several corpora one folder each; default: where the run had them"
    parser.add_argument("--root", nargs="+", metavar="DIR", help=about)
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: report.html in that folder")
    options = parser.parse_args(argv)
    result = read_result(options.folder)
    command = shlex.join(["python", "-m", "emolight", "report", *argv])
    output = options.output.expanduser() if options.output else result.folder / "report.html"
    write_text(output, page(result, options.root, options.clips, options.per_emotion, command))
    print(output)
    return 0
