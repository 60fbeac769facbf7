"""What stands in the folder of a sweep at the end: ``best.yaml``, ``trials.csv`` and the page ``sweep.html``."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
import yaml
from matplotlib import pyplot as plt
from matplotlib import style
from matplotlib.category import StrCategoryFormatter
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as draw

from emolight.evaluation.style import BLUE, GREY, GRID
from emolight.files import write_text
from emolight.report.pages import Cell, Picture, Sheet, environment, picture
from emolight.run.folder import Run
from emolight.sweep.storage import shown_url
from emolight.sweep.study import ERROR
from emolight.sweep.trial import FOLDERS, SECONDS, SIZE, Plan

ABOUT = {
    "pareto_front": "No trial is better in one objective without being worse in another.",
    "optimization_history": "The line is the best so far. Do the last trials still gain? Then give a larger --trials.",
    "intermediate_values": "What a trial would be worth after each validation; blue the best. Pruned ones end early.",
    "parameter_importances": "Which parameter sets the best trials apart (PED-ANOVA); rough below 30 complete trials.",
    "slice": "Each parameter alone. A best value at the end of a range asks for a wider one.",
}
"""Optuna's figures on the page."""
NUMBERS = (SIZE, "val/loss")
"""Objectives that are no shares, which are shown in per cent."""


def write_sweep(study: optuna.Study, plan: Plan, url: str) -> None:
    """Write ``best.yaml``, ``trials.csv`` and ``sweep.html``, and print the best trials; no password of the URL."""
    folder, name = shlex.quote(str(plan.folder)), plan.sweep.name
    sign = -1 if next(iter(plan.sweep.objectives.values())) == "maximize" else 1
    begun = [one for one in study.get_trials(deepcopy=False) if one.state is not TrialState.WAITING]
    begun.sort(key=lambda trial: (trial.state.value, sign * (trial.values or [0.0])[0]))
    front = {trial.number for trial in study.best_trials}
    best = [trial for trial in begun if trial.number in front]
    commands = {"dashboard": f"optuna-dashboard {shlex.quote(shown_url(url))}"}
    if best:
        run = Run.open(best[0].user_attrs[FOLDERS][0])
        config = {**run.config, "name": f"{name}/best"}
        config["trainer"] |= {key: plan.base["trainer"][key] for key in ("devices", "strategy")}
        head = f"# Trial {best[0].number} of the sweep '{name}', chosen by its validation clips.\n"
        write_text(plan.folder / "best.yaml", head + yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        commands["fit"] = f"python -m emolight fit --config {folder}/best.yaml"
        if not plan.folder.parent.name.endswith("_nested"):  # other folds would see what this one has chosen
            protocol = "speakers5" if config["data"].get("split_csv") else run.split.protocol
            commands["retrain"] = f"python -m emolight sweep retrain --config {folder} --protocol {protocol}"
    columns = ["trial", *plan.sweep.objectives, "state", *(key.rpartition(".")[2] for key in plan.sweep.space)]
    rows = [_row(trial, plan) for trial in best + [one for one in begun if one.number not in front]]
    template = environment("emolight.sweep").get_template("sweep.html.j2")
    page = template.render(
        sweep=plan.sweep,
        best=best,
        sheet=Sheet("Trials", [*columns, "seconds"], rows, strong=len(best)),
        pictures=list(_pictures(study, [*plan.sweep.objectives])),
        commands=commands,
        value=_value,
    )
    write_text(plan.folder / "sweep.html", page)
    write_text(plan.folder / "trials.csv", study.trials_dataframe().to_csv(index=False, lineterminator="\n"))
    for row in rows[: len(best)]:
        print("best: " + ", ".join(f"{key} {cell.text}" for key, cell in zip(columns, row, strict=False) if cell.text))
    print(f"page: {plan.folder / 'sweep.html'}", "", "next:", *reversed(commands.values()), sep="\n")


def _row(trial: FrozenTrial, plan: Plan) -> list[Cell]:
    values: Sequence[Any] = trial.values or [None] * len(plan.sweep.objectives)
    settings = [trial.params.get(name, "") for name in plan.sweep.space]
    seconds, error = trial.user_attrs.get(SECONDS, 0.0), trial.user_attrs.get(ERROR, "")
    state = trial.state.name.lower()
    if trial.state is TrialState.FAIL:
        state = "failed" if error else "stopped"
    return [
        Cell(str(trial.number), trial.number, note=error),
        *(Cell(_value(name, one), one or 0.0) for name, one in zip(plan.sweep.objectives, values, strict=True)),
        Cell(state, state),
        *(_setting(one) for one in settings),
        Cell(f"{seconds:.0f}", seconds),
    ]


def _setting(value: Any) -> Cell:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return Cell(text, value if type(value) in (int, float) else text)


def _value(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f}\u00a0%" if name not in NUMBERS else f"{value:,.4g}"


def _pictures(study: optuna.Study, metrics: list[str]) -> Iterator[tuple[str, str, Picture]]:
    """Title, explanation and figure of everything that these trials allow."""
    names = [name if name in NUMBERS else f"{name} (%)" for name in metrics]
    target: dict[str, Any] = {"target_name": names[0]}
    if len(metrics) > 1:
        target["target"] = lambda trial: trial.values[0]
    options = {"pareto_front": {"target_names": names}, "intermediate_values": {}}
    for name, about in ABOUT.items():
        if name == ("intermediate_values" if len(metrics) > 1 else "pareto_front"):
            continue
        title = name.replace("_", " ").capitalize()
        with warnings.catch_warnings(action="ignore"), style.context("default"):
            try:
                drawn = getattr(draw, f"plot_{name.replace('parameter', 'param')}")(study, **options.get(name, target))
                figure = getattr(drawn, "figure", None) or drawn.flat[0].figure
                figure.suptitle("")
                for axes in figure.axes:
                    _tidy(axes, names[0], {f"Trial{trial.number}" for trial in study.best_trials})
                figure.set_size_inches(max(7.5, figure.get_figwidth()), 3.75)
                figure.set_layout_engine("constrained")
                yield title, about, picture(figure, f"{title} of {len(study.trials)} trials")
            except (ValueError, RuntimeError, ZeroDivisionError):  # too few trials, or one parameter with two values
                continue
            finally:
                plt.close("all")


def _tidy(axes: Any, objective: str, best: set[str]) -> None:
    """No title, whole trials, validations from 1, shares in per cent, and of curves with a name the best in blue."""
    for place in ("left", "center"):
        axes.set_title("", loc=place)
    axes.set_facecolor("white")
    axes.grid(color=GRID)
    axes.spines[:].set_color(GRID)
    if axes.get_legend():
        axes.get_legend().remove()
    for axis in (axes.xaxis, axes.yaxis):
        text, ticks, words = axis.label.get_text(), axis.get_majorticklocs(), axis.get_major_formatter()
        axis.label.set_text({"Step": "validation", "Intermediate Value": objective}.get(text, text))
        if text in ("Trial", "Step"):
            axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if text == "Step":
            axis.set_major_formatter(lambda step, _: f"{step + 1:.0f}")
        elif axis.label.get_text().endswith("(%)"):
            axis.set_major_formatter(lambda share, _: f"{100 * share:.4g}")
        elif axis.get_scale() == "log":
            axis.set(major_locator=LogLocator(subs=(1, 3)), major_formatter=lambda setting, _: f"{setting:g}")
            axis.set_minor_formatter(NullFormatter())
        elif type(words) is StrCategoryFormatter:  # in Python's quotes, and side by side too long
            names = [name.strip("'") for name in words.format_ticks(ticks)]  # type: ignore[no-untyped-call]
            axis.set_ticks(ticks, names, rotation=20, ha="right", rotation_mode="anchor")
    for line in axes.lines if axes.get_xlabel() == "validation" else ():
        width, colour = (2.4, BLUE) if line.get_label() in best else (1.0, GREY)
        line.set(color=colour, linewidth=width, zorder=1 + width, alpha=1)
