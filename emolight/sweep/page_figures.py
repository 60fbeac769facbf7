"""The figures of a sweep. Complete trials are coloured by the first categorical parameter; pruned ones are grey."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from emolight.evaluation.plots import BLUE, GREEN, GREY, INK, ORANGE, VERMILLION, _clean, _figure
from emolight.sweep.found import Found, Importances, axis_name, is_share, log_ticks, number, scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS = (("o", BLUE), ("s", ORANGE), ("^", GREEN), ("D", VERMILLION), ("v", "#CC79A7"), ("P", "#56B4E9"))
"""Marker and colour of the choices; more than six choices begin again."""
COLUMNS = 4
"""Panels side by side."""
CROWD = 40
"""Trials from which on learning curves are drawn thinner."""


def history_figure(found: Found) -> Figure:
    """Value of every trial by number, and the running best."""
    figure = _figure(9.6, 0.8 + 3.6 * len(found.objectives), "history")
    axes = figure.subplots(len(found.objectives), 1, sharex=True, squeeze=False)[:, 0]
    for place, (axis, (metric, way)) in enumerate(zip(axes, found.objectives.items(), strict=True)):
        _scatter(axis, found, place, lambda trial: trial.number)
        best = np.maximum if way == "maximize" else np.minimum
        values = best.accumulate([scale(metric) * trial.values[place] for trial in found.complete])
        if len(values):
            numbers = [trial.number for trial in found.complete]
            ends = [*numbers, max(numbers[-1], found.trials[-1].number) + 0.5]
            axis.step(ends, [*values, values[-1]], where="post", color=INK, linewidth=1.4, label="best so far")
        for failed in (trial.number for trial in found.trials if trial.state == TrialState.FAIL):
            axis.axvline(failed, 0, 0.05, color=VERMILLION, linewidth=2.5)
        _clean(axis)
        _metric_axis(axis.yaxis, metric)
        _numbers(axis)
    axes[-1].set_xlabel("trial")
    if any(trial.state == TrialState.FAIL for trial in found.trials):
        axes[0].plot([], [], color=VERMILLION, linewidth=2.5, label="failed (at the foot)")
    _legend(figure, axes[0], found)
    return figure


def importances_figure(found: Found, importance: Importances) -> Figure:
    """A bar for each parameter."""
    shares = importance.shares
    figure = _figure(8, 1.7 + 0.5 * len(shares), "importances")
    axis = figure.subplots()
    axis.barh(range(len(shares)), [100 * share for share in shares.values()], height=0.62, color=BLUE)
    for place, share in enumerate(shares.values()):
        axis.text(100 * share + 1, place, f"{100 * share:.0f}", va="center", color=INK)
    axis.set_yticks(range(len(shares)), [found.labels[name] for name in shares])
    axis.tick_params(axis="y", length=0)
    axis.invert_yaxis()
    axis.set_xlim(0, 108)
    axis.set_xlabel("share of the importance (%)")
    _clean(axis, "x")
    figure.supxlabel(textwrap.fill(importance.note, 105), fontsize=9, color=INK)
    return figure


def curves_figure(found: Found, epochs_go_on: bool) -> Figure | None:
    """What every trial reported after each epoch, the best of a run so far; None when nothing was reported.

    Args:
        found: the study.
        epochs_go_on: whether a trial has several runs, whose epochs are counted on.
    """
    metric = next(iter(found.objectives))
    known = [trial for trial in found.trials if trial.intermediate_values]
    if not known:
        return None
    figure = _figure(9.6, 4.8, "learning curves: the best epoch so far")
    axis = figure.subplots()
    # Of many trials the lines are thinner, or the last ones hide all others.
    line, ink = (1.6, 0.85) if len(known) <= CROWD else (0.8, 0.4)
    for trial in sorted(known, key=lambda trial: trial.state == TrialState.COMPLETE):
        steps = sorted(trial.intermediate_values)
        values = [scale(metric) * trial.intermediate_values[step] for step in steps]
        colour, done = mark_of(found, trial)[1], trial.state == TrialState.COMPLETE
        style: dict[str, Any] = {"linewidth": 0.7, "alpha": 0.6, "zorder": 3}
        if done:
            style = {"linewidth": line, "alpha": ink, "zorder": 2}
        if found.best is not None and trial.number == found.best.number:
            style = {"linewidth": 3.2, "zorder": 4}
        axis.plot(steps, values, color=colour, **style)
        end, size = ("o", 4) if done else ("x", 5)
        axis.plot(steps[-1:], values[-1:], end, color=colour, markersize=size, alpha=0.8, zorder=5)
    for (_, colour), label in _labels(found, known).items():
        axis.plot([], [], color=colour, linewidth=1.6, label=label)
    if any(trial.state == TrialState.PRUNED for trial in known):
        axis.plot([], [], "x-", color=GREY, linewidth=0.8, label="pruned")
    if found.best is not None and found.best.intermediate_values:
        colour, label = mark_of(found, found.best)[1], f"best, trial {found.best.number}"
        axis.plot([], [], color=colour, linewidth=3.2, label=label)
    _clean(axis)
    _numbers(axis)
    axis.set_xlabel("epoch, counted on over the runs of a trial" if epochs_go_on else "epoch")
    axis.set_ylabel(axis_name(metric) + (", mean of the runs so far" if epochs_go_on else ""))
    _legend(figure, axis, None)
    return figure


def slices_figure(found: Found) -> Figure:
    """Value against each parameter, a panel each; several objectives have their rows."""
    columns = min(COLUMNS, len(found.names))
    rows = -(-len(found.names) // columns)
    figure = _figure(max(5.6, 2.7 * columns + 0.8), 0.9 + 3.0 * rows * len(found.objectives), "slices")
    axes = figure.subplots(rows * len(found.objectives), columns, squeeze=False)
    for place, metric in enumerate(found.objectives):
        block = axes[rows * place : rows * (place + 1)]
        limits = []
        for axis, name in zip(block.flat, found.names, strict=False):
            having = found._replace(trials=[trial for trial in found.trials if name in trial.params])
            _scatter(axis, having, place, _placed(axis, found, name))
            _clean(axis, "both")
            axis.set_xlabel(found.labels[name])
            limits.append(axis.get_ylim())
        for axis in block.flat[: len(found.names)]:
            axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        for axis in block.flat[len(found.names) :]:
            axis.set_visible(False)
        for axis in block.flat:
            _metric_axis(axis.yaxis, metric)
        for axis in block[:, 1:].flat:
            axis.set_ylabel("")
    _legend(figure, axes[0, 0], found)
    return figure


def pareto_figure(found: Found) -> Figure:
    """The first objective against each of the others; the front is a line with the numbers of its trials."""
    first, *others = found.objectives
    figure = _figure(max(7.0, 5.6 * len(others)), 5.0, "Pareto front")
    axes = figure.subplots(1, len(others), squeeze=False)[0]
    for place, (axis, metric) in enumerate(zip(axes, others, strict=True), start=1):
        for trial in found.complete:
            marker, colour = mark_of(found, trial)
            x, y = scale(metric) * trial.values[place], scale(first) * trial.values[0]
            axis.plot(x, y, marker, color=colour, markersize=7, alpha=0.85, markeredgecolor="white", zorder=3)
        front = sorted(
            (scale(metric) * trial.values[place], scale(first) * trial.values[0]) for trial in found.front
        )
        side = "steps-post" if found.objectives[metric] == "minimize" else "steps-pre"
        line = list(zip(*front, strict=True))
        axis.plot(
            *line, color=INK, linewidth=1.2, drawstyle=side, label="Pareto front, with trial numbers", zorder=2
        )
        for trial in found.front:
            at = (scale(metric) * trial.values[place], scale(first) * trial.values[0])
            axis.annotate(f"{trial.number}", at, (-7, 6), textcoords="offset points", ha="right", fontsize=9)
        values = [trial.values[place] for trial in found.complete]
        if min(values) > 0 and max(values) > 20 * min(values):
            axis.set_xscale("log")
        _clean(axis, "both")
        axis.margins(0.08)
        _metric_axis(axis.xaxis, metric)
    _metric_axis(axes[0].yaxis, first)
    _legend(figure, axes[0], found)
    return figure


def mark_of(found: Found, trial: FrozenTrial) -> tuple[str, str]:
    """Marker and colour of a trial, by its choice of the first categorical parameter."""
    value = trial.params.get(found.group) if found.group else None
    return MARKS[found.choices.index(value) % len(MARKS)] if value in found.choices else MARKS[0]


def _scatter(axis: Any, found: Found, place: int, where: Callable[[FrozenTrial], float]) -> None:
    factor = scale(list(found.objectives)[place])
    for trial in found.pruned:
        if trial.values:
            axis.plot(
                where(trial), factor * trial.values[place], "x", color=GREY, markersize=6, alpha=0.9, zorder=2
            )
    for trial in found.complete:
        marker, colour = mark_of(found, trial)
        value = factor * trial.values[place]
        axis.plot(where(trial), value, marker, color=colour, markersize=7, markeredgecolor="white", zorder=3)


def _placed(axis: Any, found: Found, name: str) -> Callable[[FrozenTrial], float]:
    """Set up the x axis for a parameter, and tell where a trial stands on it."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    kinds = [trial.distributions[name] for trial in found.trials if name in trial.params]
    kind: Any = kinds[0]
    if not isinstance(kind, CategoricalDistribution):
        axis.set_xlim(kind.low - 0.05 * (kind.high - kind.low), kind.high + 0.05 * (kind.high - kind.low))
        if kind.log:
            axis.set_xscale("log")
            margin = (kind.high / kind.low) ** 0.05
            axis.set_xlim(kind.low / margin, kind.high * margin)
            axis.set_xticks(log_ticks(kind.low, kind.high))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
            axis.xaxis.set_minor_locator(NullLocator())
        return lambda trial: float(trial.params[name])
    choices = list(kind.choices)
    names = [str(choice) for choice in choices]
    slanted = sum(len(one) for one in names) > 22
    axis.set_xticks(range(len(choices)), names, rotation=25 if slanted else 0, ha="right" if slanted else "center")
    axis.set_xlim(-0.5, len(choices) - 0.5)
    # Trials of one choice are set side by side a little, or they hide each other.
    return lambda trial: choices.index(trial.params[name]) + 0.24 * ((trial.number * 0.618) % 1 - 0.5)


def _metric_axis(axis: Any, metric: str) -> None:
    """Name and numbers of a metric's axis; large numbers without a power of ten above the axis."""
    from matplotlib.ticker import FuncFormatter

    if not is_share(metric):
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.set_label_text(axis_name(metric))


def _numbers(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _labels(found: Found, trials: Sequence[FrozenTrial]) -> dict[tuple[str, str], str]:
    """Marker and colour of the choices that the trials have, in the order of the space, and what they mean."""
    used = {mark_of(found, trial): str(trial.params.get(found.group or "", "complete")) for trial in trials}
    return {mark: used[mark] for mark in MARKS if mark in used}


def _legend(figure: Figure, axis: Any, found: Found | None) -> None:
    """One legend below the figure, of what is drawn; with ``found`` the choices and the pruned trials are added."""
    if found is not None:
        for (marker, colour), label in _labels(found, found.complete).items():
            axis.plot([], [], marker, color=colour, markersize=7, markeredgecolor="white", label=label)
        if found.pruned:
            axis.plot([], [], "x", color=GREY, markersize=6, label="pruned")
    handles, _ = axis.get_legend_handles_labels()
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False)
