"""``python -m emolight report``: what a run, a cross-validation or an ensemble gives, on one page."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from emolight.errors import EmolightError
from emolight.evaluation import plots
from emolight.evaluation.predictions import class_names, group_columns
from emolight.evaluation.statistics import few_speakers
from emolight.files import write_text
from emolight.report import clips, sheets, words
from emolight.report.pages import Picture, environment, percent, picture
from emolight.report.study import SUBSETS, Study, read_study

MAX_BYTES = 15_000_000
KINDS = {"run": "One run.", "crossval": "A cross-validation.", "ensemble": "An ensemble."}
MOST = 100


def figures(study: Study, summary: dict[str, Any]) -> dict[str, Picture | None]:
    """Every figure of the page; ``curves`` is None where nothing was logged."""
    table, metrics, names = study.result.table, study.metrics, class_names(study.result.table)
    recalls = [f"{key}: {percent(one['value'])}" for key, one in summary["pooled"].items() if " " in key]
    curves = None
    if metrics:
        drawn = plots.curves_figure(metrics[0] if len(metrics) == 1 else metrics, "")
        curves = picture(drawn, "Learning curves: losses and validation scores by epoch")
    return {
        "confusion": picture(plots.confusion_figure(table, ""), f"Confusion matrix of {', '.join(names)}"),
        "recall": picture(plots.recall_figure(table, ""), ", ".join(recalls)),
        "curves": curves,
        "speakers": picture(plots.speaker_figure(table, ""), "UAR of each speaker; the table below has it"),
        "reliability": picture(plots.reliability_figure(table), "Reliability: accuracy by confidence"),
    }


def sounds_of(study: Study, chosen: list[str]) -> tuple[clips.Sounds, str]:
    """Clip id to recording [T] at 16 kHz, and why some or all are lacking.

    Raises:
        EmolightError: the study names a ``root``, and there are no such recordings.
    """
    try:
        return clips.load_sounds(chosen, study.find_clips(), study.trim_db)
    except EmolightError as error:
        reason = clips.first_line(error)
        if study.root is not None:
            raise EmolightError(reason, "Say where the recordings are: --root DIR") from None
        return {}, reason


def page(study: Study, summary: dict[str, Any], most: int = 12, each: int = 2, command: str = "") -> str:
    """The report as one HTML page that needs nothing else; where recordings are missing it says why.

    Args:
        study: of :func:`~emolight.report.study.read_study`.
        summary: of :meth:`~emolight.report.study.Study.summary`.
        most: how many of the surest wrong predictions.
        each: how many right and how many wrong ones of each emotion.
        command: how the page was made.

    Raises:
        EmolightError: it would be larger than 15 MB; or as :func:`sounds_of`.
    """
    result, table = study.result, study.result.table
    names, columns = class_names(table), group_columns(table)
    judged = clips.judged(table)
    wrong, examples = clips.most_wrong(judged, most), clips.examples(judged, each)
    sounds, silence = sounds_of(study, [*wrong["clip_id"], *examples["clip_id"]])
    of_groups = {name: sheets.group_sheet(table, rows, name) for name, rows in summary["groups"].items()}
    text = (
        environment("emolight.report")
        .get_template("report.html.j2")
        .render(
            result=result,
            kind=KINDS[result.kind],
            subset=SUBSETS[result.subset],
            seeds=len(summary["seeds"]),
            runs=len(study.metrics),
            summary=summary,
            few=few_speakers(summary["speakers"]),
            emotions=names,
            chance=1 / len(names),
            protocol=words.protocol(study),
            figures=figures(study, summary),
            confusions=sheets.confusions(table),
            compared=sheets.controls_sheet(result.name, summary),
            recalls=sheets.recall_sheet(table, summary["pooled"]),
            speakers=of_groups.pop("speaker"),
            sheets=of_groups,
            wrong=clips.make_cards(wrong, columns, sounds),
            examples=clips.make_cards(examples, columns, sounds),
            silence=silence,
            heard=bool(sounds),
            trimmed=study.trim_db is not None,
            cut=any(len(wave) > clips.LONGEST * clips.RATE for wave in sounds.values()),
            longest=clips.LONGEST,
            facts=words.facts(study, command),
        )
    )
    if (size := len(text.encode())) > MAX_BYTES:
        problem = f"The page would be {size / 1e6:.1f} MB; it may be {MAX_BYTES / 1e6:.0f} MB."
        raise EmolightError(problem, "Lower --clips or --per-emotion.")
    return text


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m emolight report",
        description="Write one page on a run, a cross-validation or an ensemble, to read and to hear offline.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, metavar="RUN_OR_CROSSVAL", help="its folder, or a checkpoint in it")
    parser.add_argument("--subset", choices=SUBSETS, help="of a run; default: test where it was scored")
    counts = {"--clips": (12, "the surest wrong ones"), "--per-emotion": (2, "right and wrong ones of each")}
    for name, (count, what) in counts.items():
        parser.add_argument(name, type=int, default=count, metavar="N", help=f"{what}; default: %(default)s")
    parser.add_argument("--root", type=Path, metavar="DIR", help="the recordings; default: where the run had them")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: report.html in that folder")
    options = parser.parse_args(argv)
    for name, count in (("--clips", options.clips), ("--per-emotion", options.per_emotion)):
        if not 0 <= count <= MOST:
            raise EmolightError(f"{name} is {count}; it must be from 0 to {MOST}.", "Leave it out for the usual.")
    root = options.root and options.root.expanduser()
    study = read_study(options.folder, options.subset, root)
    command = shlex.join(["python", "-m", "emolight", "report", *argv])
    text = page(study, study.summary(), options.clips, options.per_emotion, command)
    output = options.output.expanduser() if options.output else study.result.folder / "report.html"
    try:
        write_text(output, text)
    except OSError as error:
        problem = f"Cannot write '{output}': {error.strerror}."
        raise EmolightError(problem, "Name another place: --output FILE.") from None
    print(output)
    return 0
