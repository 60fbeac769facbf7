"""What many runs say together: one table of predictions, figures with intervals and controls, tables, plots."""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from emolight.data.datamodule import EmotionDataModule
from emolight.data.splits import SCORED
from emolight.errors import EmolightError, counted
from emolight.evaluation.plots import confusion_figure, recall_figure, save_figure, speaker_figure
from emolight.evaluation.predictions import scores
from emolight.evaluation.statistics import bootstrap, few_speakers, summarise
from emolight.experiments.results import CROSSVAL, Result, runs_of
from emolight.files import write_json, write_table
from emolight.run.controls import control_features, control_tables, score_controls
from emolight.run.folder import read_json

SUMMARY = "summary.json"
WIDTH = 104
"""Columns of the printed table."""


def write_crossval(folder: Path, about: dict[str, Any], table: pd.DataFrame, controls: list[dict[str, Any]]) -> None:
    """Write the folder of a cross-validation or an ensemble: predictions, summary, tables, plots; ``about`` last."""
    summary = {**summarise(table), "controls": controls}
    write_table(folder / "predictions.csv", table)
    write_json(folder / SUMMARY, summary)
    pooled = [
        {"metric": name, "value": one["value"], "low": one["by_speaker"][0], "high": one["by_speaker"][1]}
        for name, one in summary["pooled"].items()
    ]
    seeds = [{"seed": seed, **values} for seed, values in summary["seeds"].items()]
    groups = {f"by_{column}": rows for column, rows in summary["groups"].items()}
    for name, rows in {**groups, "pooled": pooled, "by_seed": seeds, "controls": controls}.items():
        write_table(folder / "tables" / f"{name}.csv", pd.DataFrame(rows))
    title = f"{about['name']}: {about['subset']} clips, {about['protocol']}"
    each = "draws" if about["facts"].get("draws", 1) > 1 else "seeds"
    title += f", mean of {len(seeds)} {each}" * (len(seeds) > 1)
    for name, figure in (("confusion", confusion_figure), ("recall", recall_figure), ("speakers", speaker_figure)):
        save_figure(figure(table, title), folder / "plots" / f"{name}.png")
    write_json(folder / CROSSVAL, about)


def write_found(path: Path, rows: Sequence[dict[Any, Any]], figure: Figure, **about: Any) -> None:
    """Write what a command found as ``path``.csv, .json (with what else it is ``about``) and .png, and say so."""
    write_table(f"{path}.csv", pd.DataFrame(rows))
    write_json(f"{path}.json", {"rows": rows, **about})
    save_figure(figure, f"{path}.png")
    print(f"{path}.csv\n{path}.json\n{path}.png")


def summary_of(result: Result, root: str | list[str] | None = None) -> dict[str, Any]:
    """:func:`~emolight.evaluation.statistics.summarise` of a result, with ``controls``.

    It is read where it was written. Without its recordings, maybe at another ``root`` now, a run has no controls.
    """
    if result.kind != "run":
        return read_json(result.folder / SUMMARY, "The command that made it writes it again.")
    controls = control_scores((run.data(root=root) for run in runs_of(result).values()), result.subset)
    return {**summarise(result.table), "controls": controls}


def control_scores(folds: Iterable[EmotionDataModule], subset: str) -> list[dict[str, Any]]:
    """:func:`~emolight.run.controls.score_controls` of the pooled clips of a subset of each fold, not set up.

    None where a fold cannot train them, as of one class, or its recordings are not there.
    """
    features = None
    parts: dict[str, list[pd.DataFrame]] = {}
    with contextlib.suppress(EmolightError):
        for data in folds:
            data.setup()
            features = control_features(data, features)
            for name, table in control_tables(data, subset, features).items():
                parts.setdefault(name, []).append(table)
        return score_controls({name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()})
    return []


def score_row(table: pd.DataFrame, **about: str) -> dict[str, Any]:
    """``about``, then ``clips``, ``emotions`` (how many occur), ``uar``, ``low`` and ``high`` (95 % by speaker)."""
    (low, high), values = bootstrap(table)["uar"], scores(table)
    of_table = {"clips": values["n"], "emotions": len(values["recall"]), "uar": values["uar"]}
    return {**about, **of_table, "low": low, "high": high}


def cell(row: dict[str, Any], gap: str = " ") -> str:
    """UAR of a :func:`score_row` in %, with its interval."""
    return f"{100 * row['uar']:.1f}{gap}({100 * row['low']:.1f} to {100 * row['high']:.1f})"


def print_result(result: Result, summary: dict[str, Any]) -> None:
    """Print the headline, the seeds, the folds and the controls of a result."""
    console = Console(highlight=False, soft_wrap=True, width=WIDTH, markup=False)
    every = result.facts.get("speakers", summary["speakers"])
    speakers = f"{summary['speakers']} speakers" + f" of {every}" * (every != summary["speakers"])
    title = f"{result.name}: {summary['clips']} {SCORED[result.subset]} clips of {speakers}, {result.protocol}"
    grid = Table("", "UAR %", "95 % by speaker", "by clip", "accuracy %", "F1 %", title=title, title_justify="left")
    for column in grid.columns[1:]:
        column.justify, column.no_wrap = "right", True

    def add(name: str, row: dict[str, float], *ends: Sequence[float], **look: Any) -> None:
        uar, *rest = (f"{100 * row[one]:.2f}" if one in row else "" for one in ("uar", "accuracy", "macro_f1"))
        intervals = [" to ".join(f"{100 * end:.1f}" for end in one) for one in (*ends, (), ())[:2]]
        grid.add_row(name, uar, *intervals, *rest, **look)

    pooled, folds = summary["pooled"], summary["groups"].get("fold", [])
    word = ("seed", "draw")[result.facts.get("draws", 1) > 1]
    values = {name: one["value"] for name, one in pooled.items()}
    add(result.name, values, *(pooled["uar"][unit] for unit in ("by_speaker", "by_clip")), style="bold")
    grid.add_section()
    for seed, one in summary["seeds"].items() if len(summary["seeds"]) > 1 else ():
        add(f"{word} {seed}", one)
    for one in folds if len(folds) > 1 else ():
        add(f"fold {one['group']}", one)
    grid.add_section()
    for one in summary["controls"]:
        add(one["name"], one, (one["uar_low"], one["uar_high"]))
    console.print(grid)
    if (std := summary["seed_std"]["uar"]) is not None:
        mean = summary["seed_mean"]["uar"]
        console.print(f"{word}s:  UAR {100 * mean:.2f} % on average, standard deviation {100 * std:.2f} points")
    console.print(f"split:  {result.protocol} ({result.facts['meaning']})")
    console.print(f"epoch:  {result.selection}")
    if few := few_speakers(summary["speakers"]):
        console.print(f"note:   {few}")
    if result.subset == "test":
        console.print(f"test:   the test set of its runs was scored {counted(result.openings, 'time')} in all")
    console.print(f"folder: {result.folder}")
