"""What many runs found together: one table of predictions, figures with intervals and controls, tables, plots."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from rich.console import Console
from rich.table import Table

from emolight.data.datamodule import EmotionDataModule
from emolight.data.splits import FOLDS, describe_protocol
from emolight.errors import EmolightError
from emolight.evaluation.plots import actor_figure, confusion_figure, recall_figure, save_figure
from emolight.evaluation.predictions import write_predictions
from emolight.evaluation.statistics import bootstrap, mean_over_seeds, metrics_of, summarise, unit_counts
from emolight.experiments.controls import control_features, control_tables
from emolight.files import atomic_write, write_text
from emolight.results import CROSSVAL, Result, read_result
from emolight.runs import file_hash

SUMMARY = "summary.json"
WIDTH = 104
"""Columns of the printed table."""


def write_crossval(
    folder: Path, about: dict[str, Any], table: pd.DataFrame, controls: list[dict[str, Any]]
) -> None:
    """Write the folder of a cross-validation or an ensemble: predictions, summary, tables and plots.

    Args:
        folder: is made when it is missing.
        about: what :data:`~emolight.results.CROSSVAL` holds.
        table: predictions with ``fold`` and ``seed``.
        controls: of :func:`control_scores`.
    """
    summary = {**summarise(table), "controls": controls}
    write_predictions(folder / "predictions.csv", table)
    write_text(folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
    write_text(folder / CROSSVAL, json.dumps(about, indent=2) + "\n")
    tables = {f"by_{column}": pd.DataFrame(rows) for column, rows in summary["groups"].items()}
    tables["pooled"] = pd.DataFrame(
        {"metric": name, "value": one["value"], **_ends("by_actor", one), **_ends("by_clip", one)}
        for name, one in summary["pooled"].items()
    )
    tables["by_seed"] = pd.DataFrame([{"seed": seed, **found} for seed, found in summary["seeds"].items()])
    tables["controls"] = pd.DataFrame(controls)
    for name, rows in tables.items():
        with atomic_write(folder / "tables" / f"{name}.csv") as part:
            rows.to_csv(part, index=False, float_format="%.6f", lineterminator="\n")
    seeds = len(summary["seeds"])
    title = f"{about['name']}: {about['subset']} clips, {about['protocol']}" + f", {seeds} seeds" * (seeds > 1)
    plots = {"confusion": confusion_figure, "recall": recall_figure, "actors": actor_figure}
    for name, figure in plots.items():
        save_figure(figure(mean_over_seeds(table), title), folder / "plots" / f"{name}.png")


def _ends(name: str, one: dict[str, Any]) -> dict[str, float]:
    return {f"{name}_low": one[name][0], f"{name}_high": one[name][1]}


def summary_of(folder: Path, root: Path | None = None) -> dict[str, Any]:
    """:func:`~emolight.evaluation.statistics.summarise` of a folder's predictions, with ``controls``.

    Of a cross-validation it is read, of a run it is computed; without its recordings there are no controls.

    Raises:
        EmolightError: as :func:`~emolight.results.read_result`.
    """
    result = read_result(folder)
    if result.kind != "run":
        if not (folder / SUMMARY).is_file():
            raise EmolightError(
                f"There is no {SUMMARY} in {folder}.", "Run the same command again: it writes it anew."
            )
        summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        return summary
    data = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["data"]
    options = {**data, "split_csv": str(folder / "split.csv"), "root": str(root or data["root"])}
    controls = []
    with contextlib.suppress(EmolightError):
        controls = control_scores([options], result.subset)
    return {**summarise(result.table), "controls": controls}


def control_scores(folds: list[dict[str, Any]], subset: str) -> list[dict[str, Any]]:
    """The controls' ``name``, ``uar`` with ``uar_low`` and ``uar_high`` by actor, ``wa`` and ``macro_f1``.

    Args:
        folds: arguments of each fold's :class:`~emolight.data.datamodule.EmotionDataModule`.
        subset: the clips that are scored; those of all folds are pooled.
    """
    features = None
    parts: dict[str, list[pd.DataFrame]] = {}
    for options in folds:
        data = EmotionDataModule(**options)
        data.prepare_data()
        data.setup()
        features = control_features(data, features)
        for name, table in control_tables(data, subset, features).items():
            parts.setdefault(name, []).append(table)
    return score_controls({name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()})


def score_controls(tables: dict[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """As :func:`control_scores`, of each control's predictions table."""
    found = []
    for name, table in tables.items():
        low, high = bootstrap(table)["uar"]
        values = metrics_of(unit_counts(table, "actor").sum(axis=0))
        rest = {metric: float(values[metric]) for metric in ("wa", "macro_f1")}
        found.append({"name": name, "uar": float(values["uar"]), "uar_low": low, "uar_high": high, **rest})
    return found


def splits_hash(splits: list[Path]) -> str:
    """One SHA-256 of several split files, in their order; of one file its own."""
    hashes = [file_hash(path) for path in splits]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def print_result(result: Result, summary: dict[str, Any]) -> None:
    """Print the headline, the seeds, the folds and the controls of a result."""
    console = Console(highlight=False, soft_wrap=True, width=WIDTH)
    subset = "test" if result.subset == "test" else "validation"
    title = f"{result.name}: {summary['clips']} {subset} clips of {summary['actors']} actors, {result.protocol}"
    grid = Table("", "UAR %", "95 % by actor", "by clip", "WA %", "F1 %", title=title, title_justify="left")
    for column in grid.columns[1:]:
        column.justify, column.no_wrap = "right", True

    def interval(ends: list[float]) -> str:
        return " to ".join(f"{100 * end:.1f}" for end in ends)

    pooled = summary["pooled"]
    rest = [f"{100 * pooled[name]['value']:.2f}" for name in ("wa", "macro_f1")]
    ends = [interval(pooled["uar"][unit]) for unit in ("by_actor", "by_clip")]
    grid.add_row(result.name, f"{100 * pooled['uar']['value']:.2f}", *ends, *rest, style="bold", end_section=True)
    if len(summary["seeds"]) > 1:
        for seed, one in summary["seeds"].items():
            grid.add_row(f"seed {seed}", f"{100 * one['uar']:.2f}", "", "", *_percents(one))
    folds = summary["groups"].get("fold", [])
    if len(folds) > 1:
        for one in folds:
            grid.add_row(f"fold {one['group']}", f"{100 * one['uar']:.2f}", "", "", f"{100 * one['wa']:.2f}", "")
        grid.add_section()
    for control in summary["controls"]:
        of_control = interval([control["uar_low"], control["uar_high"]])
        grid.add_row(control["name"], f"{100 * control['uar']:.2f}", of_control, "", *_percents(control))
    console.print(grid)
    if (std := summary["seed_std"]["uar"]) is not None:
        mean = summary["seed_mean"]["uar"]
        console.print(f"seeds:  UAR {100 * mean:.2f} % on average, standard deviation {100 * std:.2f} points")
    fold = result.protocol if result.protocol.split()[0] not in FOLDS else f"{result.protocol.split()[0]} fold"
    console.print(f"split:  {result.protocol} ({describe_protocol(fold)})")
    console.print(f"epoch:  {result.selection}")
    if result.subset == "test":
        console.print(f"sealed: the test clips of its runs were scored {result.openings} times in all")
    console.print(f"folder: {result.folder}")


def _percents(one: dict[str, Any]) -> list[str]:
    return [f"{100 * one[name]:.2f}" for name in ("wa", "macro_f1")]
