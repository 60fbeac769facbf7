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

from emolight.files import write_text
from emolight.report.pages import Cell, Picture, Sheet, environment, picture
from emolight.run.folder import Run
from emolight.sweep.storage import shown_url
from emolight.sweep.study import ERROR
from emolight.sweep.trial import FOLDERS, SECONDS, SIZE, Plan

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
        retrain = f"python -m emolight sweep retrain --config {folder}"
        commands["retrain"] = f"{retrain} --protocol {run.split.protocol}"
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
    state = "stopped" if trial.state is TrialState.FAIL and not error else trial.state.name.lower()
    return [
        Cell(str(trial.number), trial.number, note=error),
        *(Cell(_value(name, one), one or 0.0) for name, one in zip(plan.sweep.objectives, values, strict=True)),
        Cell(state, state),
        *(Cell(f"{one:.4g}" if isinstance(one, float) else str(one), str(one)) for one in settings),
        Cell(f"{seconds:.0f}", seconds),
    ]


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
                figure = getattr(drawn, "figure", None) or drawn.flat[0].figure
                figure.suptitle("")
                for axes in figure.axes:
                    axes.set_title("")
                    axes.xaxis.set_minor_formatter(NullFormatter())
                    if axes.get_legend():
                        axes.get_legend().remove()
                figure.set_size_inches(max(7.5, figure.get_figwidth()), 3.75)
                figure.set_layout_engine("constrained")
                yield title, about, picture(figure, f"{title} of {len(study.trials)} trials")
            except (ValueError, RuntimeError, ZeroDivisionError):  # too few trials, or one parameter with two values
                continue
            finally:
                plt.close("all")
