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
from matplotlib.ticker import NullFormatter
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as draw
from rich.console import Console
from rich.table import Table

from emolight.files import write_text
from emolight.report.pages import Cell, Picture, Sheet, environment, picture
from emolight.run.folder import Run
from emolight.sweep.storage import shown_url
from emolight.sweep.study import ERROR
from emolight.sweep.trial import FOLDERS, SECONDS, SIZE, Plan, best_of

SHOWN = 10
"""Trials of the table that is printed."""
ABOUT = {
    "pareto_front": "No trial is better in one objective without being worse in another.",
    "optimization_history": "Do the last trials still gain? Then give a larger --trials.",
    "intermediate_values": "What each trial would be worth after each validation; pruned ones end early.",
    "param_importances": "Which parameter sets the best trials apart (PED-ANOVA); rough below 30 complete trials.",
    "slice": "Each parameter alone. A best value at the end of a range asks for a wider one.",
}
"""Optuna's figures on the page."""


def write_sweep(study: optuna.Study, plan: Plan, url: str) -> None:
    """Write ``best.yaml``, ``trials.csv`` and ``sweep.html``, and print the best trials; no password of the URL."""
    trials, folder = study.get_trials(deepcopy=False), shlex.quote(str(plan.folder))
    best = best_of(trials, study.directions)
    commands = {"dashboard": f"optuna-dashboard {shlex.quote(shown_url(url))}"}
    if best:
        run = Run.open(best[0].user_attrs[FOLDERS][0])
        config = {**run.config, "name": f"{plan.sweep.name}/best"}
        config["trainer"] |= {name: plan.base["trainer"][name] for name in ("devices", "strategy")}
        head = f"# Trial {best[0].number} of the sweep '{plan.sweep.name}', chosen by its validation clips.\n"
        write_text(plan.folder / "best.yaml", head + yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        commands["fit"] = f"python -m emolight fit --config {folder}/best.yaml"
        retrain = f"python -m emolight sweep retrain --config {folder}"
        commands["retrain"] = f"{retrain} --protocol {run.split.protocol}"
    sheet = _sheet(trials, best, plan)
    page = environment("emolight.sweep").get_template("sweep.html.j2")
    pictures = list(_pictures(study, [*plan.sweep.objectives]))
    text = page.render(sweep=plan.sweep, best=best, sheet=sheet, pictures=pictures, commands=commands, value=_value)
    write_text(plan.folder / "sweep.html", text)
    write_text(plan.folder / "trials.csv", study.trials_dataframe().to_csv(index=False, lineterminator="\n"))
    console = Console(highlight=False, soft_wrap=True, markup=False)
    table = Table(*sheet.columns, title=f"{plan.sweep.name}: best of {len(sheet.rows)} trials", title_justify="left")
    for row in sheet.rows[:SHOWN]:
        table.add_row(*(cell.text for cell in row))
    console.print(table)
    console.print(f"page: {plan.folder / 'sweep.html'}", "", "next:", *reversed(commands.values()), sep="\n")


def _sheet(trials: Sequence[FrozenTrial], best: Sequence[FrozenTrial], plan: Plan) -> Sheet:
    """All trials that were begun, the best first."""
    sign = -1 if next(iter(plan.sweep.objectives.values())) == "maximize" else 1

    def order(trial: FrozenTrial) -> tuple[bool, int, float]:
        return trial not in best, trial.state.value, sign * (trial.values or [0.0])[0]

    rows = []
    for trial in sorted((one for one in trials if one.state is not TrialState.WAITING), key=order):
        values: list[Any] = trial.values or [None] * len(plan.sweep.objectives)
        settings = [trial.params.get(name, "") for name in plan.sweep.space]
        seconds, error = trial.user_attrs.get(SECONDS, 0.0), trial.user_attrs.get(ERROR, "")
        state = "stopped" if trial.state is TrialState.FAIL and not error else trial.state.name.lower()
        rows.append(
            [
                Cell(str(trial.number), trial.number, note=error),
                *(Cell(_value(name, one), one or 0.0) for name, one in zip(plan.sweep.objectives, values, strict=True)),
                Cell(state, state),
                *(Cell(f"{one:.4g}" if isinstance(one, float) else str(one), str(one)) for one in settings),
                Cell(f"{seconds:.0f}", seconds),
            ]
        )
    names = [name.rpartition(".")[2] for name in plan.sweep.space]
    return Sheet("Trials", ["trial", *plan.sweep.objectives, "state", *names, "seconds"], rows, strong=len(best))


def _value(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f}\u00a0%" if name not in (SIZE, "val/loss") else f"{value:,.4g}"


def _pictures(study: optuna.Study, metrics: list[str]) -> Iterator[tuple[str, str, Picture]]:
    """Title, explanation and figure of everything that these trials allow."""
    target: dict[str, Any] = {"target_name": metrics[0]}
    if len(metrics) > 1:
        target["target"] = lambda trial: trial.values[0]
    options = {"pareto_front": {"target_names": metrics}, "intermediate_values": {}}
    for name, about in ABOUT.items():
        if name == ("intermediate_values" if len(metrics) > 1 else "pareto_front"):
            continue
        title = name.replace("_", " ").capitalize()
        with warnings.catch_warnings(action="ignore"), style.context("default"):
            try:
                drawn = getattr(draw, f"plot_{name}")(study, **options.get(name, target))
            except (ValueError, RuntimeError):  # of too few trials
                continue
            figure = getattr(drawn, "figure", None) or drawn.flat[0].figure
            figure.suptitle("")
            for axes in figure.axes:
                axes.set_title("")
                axes.set_title("", loc="left")
                axes.xaxis.set_minor_formatter(NullFormatter())
                if axes.get_legend():
                    axes.get_legend().remove()
            figure.set_size_inches(max(7.5, figure.get_figwidth()), 3.75)
            figure.set_layout_engine("constrained")
            try:
                shown = picture(figure, f"{title} of {len(study.trials)} trials")
            except ZeroDivisionError:  # of one parameter with two values there is nothing to lay out
                continue
            finally:
                plt.close(figure)
            yield title, about, shown
