"""What many runs say together: one table of predictions, figures with intervals and controls, tables, plots."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from emolight.data.datamodule import EmotionDataModule
from emolight.data.splits import SCORED
from emolight.errors import EmolightError
from emolight.evaluation.plots import confusion_figure, recall_figure, save_figure, speaker_figure
from emolight.evaluation.predictions import scores, write_predictions
from emolight.evaluation.statistics import bootstrap, few_speakers, summarise
from emolight.experiments.results import CROSSVAL, Result, read_result
from emolight.files import atomic_write, write_text
from emolight.run.controls import control_features, control_tables, score_controls
from emolight.run.folder import Run

SUMMARY = "summary.json"
WIDTH = 104
"""Columns of the printed table."""


def write_crossval(folder: Path, about: dict[str, Any], table: pd.DataFrame, controls: list[dict[str, Any]]) -> None:
    """Write the folder of a cross-validation or an ensemble: predictions, summary, tables and plots.

    Args:
        folder: is made when it is missing.
        about: what :data:`~emolight.experiments.results.CROSSVAL` holds; it is written last.
        table: predictions with ``fold`` and ``seed``.
        controls: of :func:`control_scores`.
    """
    summary = {**summarise(table), "controls": controls}
    write_predictions(folder / "predictions.csv", table)
    write_text(folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
    tables = {f"by_{column}": pd.DataFrame(rows) for column, rows in summary["groups"].items()}
    tables["pooled"] = pd.DataFrame(
        {"metric": name, "value": one["value"], **_ends("by_speaker", one), **_ends("by_clip", one)}
        for name, one in summary["pooled"].items()
    )
    tables["by_seed"] = pd.DataFrame([{"seed": seed, **values} for seed, values in summary["seeds"].items()])
    tables["controls"] = pd.DataFrame(controls)
    for name, rows in tables.items():
        write_table(folder / "tables" / f"{name}.csv", rows)
    seeds = len(summary["seeds"])
    title = f"{about['name']}: {about['subset']} clips, {about['protocol']}"
    title += f", mean of {seeds} seeds" * (seeds > 1)
    plots = {"confusion": confusion_figure, "recall": recall_figure, "speakers": speaker_figure}
    for name, figure in plots.items():
        save_figure(figure(table, title), folder / "plots" / f"{name}.png")
    write_text(folder / CROSSVAL, json.dumps(about, indent=2) + "\n")


def write_table(path: Path, rows: pd.DataFrame) -> None:
    """Write a table as CSV, atomically, with six decimals."""
    with atomic_write(path) as part:
        rows.to_csv(part, index=False, float_format="%.6f", lineterminator="\n")


def _ends(name: str, one: dict[str, Any]) -> dict[str, float]:
    return {f"{name}_low": one[name][0], f"{name}_high": one[name][1]}


def summary_of(folder: str | Path, root: str | Path | None = None) -> dict[str, Any]:
    """:func:`~emolight.evaluation.statistics.summarise` of a folder's predictions, with ``controls``.

    Of a cross-validation it is read, of a run it is computed; without its recordings there are no controls.

    Args:
        folder: of a run, a cross-validation or an ensemble.
        root: where a run's recordings are now.

    Raises:
        EmolightError: as :func:`~emolight.experiments.results.read_result`.
    """
    result = read_result(folder)
    if result.kind != "run":
        if not (result.folder / SUMMARY).is_file():
            raise EmolightError(f"There is no {SUMMARY} in {folder}.", "Run the same command again: it writes it anew.")
        summary: dict[str, Any] = json.loads((result.folder / SUMMARY).read_text(encoding="utf-8"))
        return summary
    changes = {} if root is None else {"root": str(root)}
    controls = []
    with contextlib.suppress(EmolightError):
        controls = control_scores([Run.open(folder).data(**changes)], result.subset)
    return {**summarise(result.table), "controls": controls}


def control_scores(folds: Iterable[EmotionDataModule], subset: str) -> list[dict[str, Any]]:
    """The controls' ``name``, ``uar`` with ``uar_low`` and ``uar_high`` by speaker, ``accuracy`` and ``macro_f1``.

    Args:
        folds: data of each fold, not set up.
        subset: the clips that are scored; those of all folds are pooled.
    """
    features = None
    parts: dict[str, list[pd.DataFrame]] = {}
    for data in folds:
        data.prepare_data()
        data.setup()
        features = control_features(data, features)
        for name, table in control_tables(data, subset, features).items():
            parts.setdefault(name, []).append(table)
    return score_controls({name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()})


def score_row(table: pd.DataFrame, **about: str) -> dict[str, Any]:
    """``about``, then ``clips``, ``emotions`` (how many occur), ``uar``, ``low`` and ``high`` (95 % by speaker)."""
    low, high = bootstrap(table)["uar"]
    values = scores(table)
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
    pooled = summary["pooled"]
    rest = [f"{100 * pooled[name]['value']:.2f}" for name in ("accuracy", "macro_f1")]
    ends = [_interval(pooled["uar"][unit]) for unit in ("by_speaker", "by_clip")]
    grid.add_row(result.name, f"{100 * pooled['uar']['value']:.2f}", *ends, *rest, style="bold", end_section=True)
    if len(summary["seeds"]) > 1:
        for seed, one in summary["seeds"].items():
            grid.add_row(f"seed {seed}", f"{100 * one['uar']:.2f}", "", "", *_percents(one))
    folds = summary["groups"].get("fold", [])
    if len(folds) > 1:
        for one in folds:
            accuracy = f"{100 * one['accuracy']:.2f}"
            grid.add_row(f"fold {one['group']}", f"{100 * one['uar']:.2f}", "", "", accuracy, "")
        grid.add_section()
    for control in summary["controls"]:
        of_control = _interval([control["uar_low"], control["uar_high"]])
        grid.add_row(control["name"], f"{100 * control['uar']:.2f}", of_control, "", *_percents(control))
    console.print(grid)
    if (std := summary["seed_std"]["uar"]) is not None:
        mean = summary["seed_mean"]["uar"]
        console.print(f"seeds:  UAR {100 * mean:.2f} % on average, standard deviation {100 * std:.2f} points")
    console.print(f"split:  {result.protocol} ({result.facts['meaning']})")
    console.print(f"epoch:  {result.selection}")
    if few := few_speakers(summary["speakers"]):
        console.print(f"note:   {few}")
    if result.subset == "test":
        console.print(f"test:   the test set of its runs was scored {result.openings} times in all")
    console.print(f"folder: {result.folder}")


def _interval(ends: list[float]) -> str:
    return " to ".join(f"{100 * end:.1f}" for end in ends)


def _percents(one: dict[str, Any]) -> list[str]:
    return [f"{100 * one[name]:.2f}" for name in ("accuracy", "macro_f1")]
