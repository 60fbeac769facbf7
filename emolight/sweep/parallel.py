"""Parallel coordinates: a vertical axis for each parameter, and a line through them for each trial."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial

from emolight.evaluation.plots import GREY, INK, _figure
from emolight.sweep.found import Found, axis_name, log_ticks, number, scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABSENT = -0.16
"""Height of a trial that does not have a conditional parameter; the axes go from 0 to 1."""
CROWD = 40
"""Complete trials above which their lines are thinner."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where the ticks stand on an axis."""

Ticks = list[tuple[float, str]]


def parallel_figure(found: Found) -> Figure:
    """A line for each trial, coloured by the first objective; pruned ones are grey and thin, the best is black."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    axes = [(found.labels[name], *_parameter(found, name)) for name in found.names]
    axes += [(axis_name(metric), *_objective(found, place)) for place, metric in enumerate(found.objectives)]
    figure = _figure(max(6.0, 1.9 * len(axes) + 1.2), 5.2, "parallel coordinates")
    axis = figure.subplots()
    metric = next(iter(found.objectives))
    values = [scale(metric) * trial.values[0] for trial in found.complete]
    colours = ScalarMappable(Normalize(min(values), max(max(values), min(values) + 1e-9)), "viridis_r")
    for trial in found.pruned:
        points = [where(trial) for _, where, _ in axes]
        axis.plot(range(len(axes)), points, color=GREY, linewidth=0.7, alpha=0.5, zorder=1)
    way = 1 if found.objectives[metric] == "maximize" else -1
    for trial in sorted(found.complete, key=lambda trial: way * trial.values[0]):
        points = [where(trial) for _, where, _ in axes]
        axis.plot(
            range(len(axes)),
            points,
            color=colours.to_rgba(scale(metric) * trial.values[0]),
            linewidth=1.8 if len(found.complete) <= CROWD else 0.9,
            zorder=2,
        )
    if found.best is not None:
        points = [where(found.best) for _, where, _ in axes]
        label = f"best, trial {found.best.number}"
        axis.plot(range(len(axes)), points, color=INK, linewidth=3, zorder=3, label=label)
    plate = {"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.85}
    for place, (_, _, ticks) in enumerate(axes):
        axis.vlines(place, 0, 1, color=INK, linewidth=1, zorder=4)
        for height, text in ticks:
            axis.plot(place, height, "_", color=INK, markersize=7, zorder=4)
            axis.annotate(
                text, (place, height), (-6, 0), textcoords="offset points", ha="right", va="center", fontsize=9,
                color=INK, bbox=plate, zorder=5,
            )  # fmt: skip
    if found.pruned:
        axis.plot([], [], color=GREY, linewidth=0.7, label="pruned")
    axis.set_xticks(range(len(axes)), [name.replace(" (", "\n(") for name, _, _ in axes])
    axis.set_yticks([])
    axis.set_xlim(-0.55, len(axes) - 0.8)
    axis.set_ylim(ABSENT - 0.08, 1.06)
    axis.tick_params(axis="x", length=0)
    axis.spines[:].set_visible(False)
    if max(values) > min(values):
        figure.colorbar(colours, ax=axis, label=axis_name(metric), fraction=0.03, pad=0.02)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _parameter(found: Found, name: str) -> tuple[Callable[[FrozenTrial], float], Ticks]:
    """Where a trial passes the axis of a parameter, and the axis' ticks."""
    having = [trial for trial in found.trials if name in trial.params]
    kind: Any = having[0].distributions[name]
    some_lack = any(name not in trial.params for trial in (*found.complete, *found.pruned))
    absent = [(ABSENT, "none")] if some_lack else []
    if isinstance(kind, CategoricalDistribution):
        choices = list(kind.choices)
        heights = np.linspace(0, 1, len(choices)) if len(choices) > 1 else np.array([0.5])
        at = {index: float(height) for index, height in enumerate(heights)}

        def where(trial: FrozenTrial) -> float:
            return (at[choices.index(trial.params[name])] if name in trial.params else ABSENT) + _aside(trial)

        return where, [(at[index], str(choice)) for index, choice in enumerate(choices)] + absent
    to_line: Callable[[float], float] = math.log if kind.log else float
    low, high = to_line(kind.low), to_line(kind.high)
    reach = high - low or 1.0

    def place(trial: FrozenTrial) -> float:
        return (to_line(trial.params[name]) - low) / reach if name in trial.params else ABSENT + _aside(trial)

    if kind.log:
        values = log_ticks(kind.low, kind.high)
        # The ends are ticks as well, where no other stands close.
        values += [
            end for end in (kind.low, kind.high) if all(abs(math.log(end / one)) > 0.1 * reach for one in values)
        ]
    else:
        step = kind.step or 0
        values = [kind.low + share * (kind.high - kind.low) for share in SHARES]
        values = [kind.low + step * round((value - kind.low) / step) for value in values] if step else values
    ticks = [((to_line(value) - low) / reach, f"{value:.3g}") for value in sorted({*values})]
    return place, ticks + absent


def _aside(trial: FrozenTrial) -> float:
    """A little up or down, so that trials with the same choices do not hide each other."""
    return 0.05 * ((trial.number * 0.618) % 1 - 0.5)


def _objective(found: Found, place: int) -> tuple[Callable[[FrozenTrial], float], Ticks]:
    metric = list(found.objectives)[place]
    factor = scale(metric)
    shown = [trial.values[place] for trial in found.complete]
    shown += [trial.values[place] for trial in found.pruned if trial.values]
    low, high = min(shown), max(shown)
    reach = high - low or 1.0

    def where(trial: FrozenTrial) -> float:
        return (trial.values[place] - low) / reach if trial.values else math.nan

    shares = SHARES if high > low else SHARES[:1]
    return where, [(share, number(factor * (low + share * reach))) for share in shares]
