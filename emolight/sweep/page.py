"""What stands in the folder of a sweep at the end: the best configuration, a table of trials, plots and a page."""

from __future__ import annotations

import shlex
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import yaml
from rich.console import Console
from rich.table import Table
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from emolight import __version__
from emolight.evaluation.plots import save_figure
from emolight.experiments.crossval import full_config
from emolight.files import write_text
from emolight.pages import Picture, environment, picture, wall_time
from emolight.sweep import page_figures as draw
from emolight.sweep.found import Found, Importances, axis_name, importances, read_found, short
from emolight.sweep.parallel import parallel_figure
from emolight.sweep.space import Sweep, options_of
from emolight.sweep.tables import (
    STATES,
    front_sheet,
    group_sheet,
    seconds_of,
    shown,
    shown_option,
    told_of,
    trials_sheet,
    trials_table,
    values_of,
)

BEST, TRIALS, PAGE = "best.yaml", "trials.csv", "sweep.html"
FIGURES = ("pareto", "history", "curves", "importances", "parallel", "slices")
QUOTED = "emobox6"
"""The protocol whose figure is to quote."""


def write_sweep(study: optuna.Study, sweep: Sweep, folder: Path, base: dict[str, Any], storage: str) -> None:
    """Write ``best.yaml``, ``trials.csv``, ``plots/*.png`` and ``sweep.html``.

    With several objectives ``best.yaml`` is the best trial by the first one, and ``pareto/trial_NNNN.yaml`` is
    there for every trial of the front. Without a complete trial there are only the table and a page that says so.

    Args:
        study: of Optuna.
        sweep: what was searched.
        folder: ``lightning_logs/NAME``.
        base: of :func:`~emolight.sweep.space.check_sweep`.
        storage: URL of the study's database; its password is written nowhere.
    """
    found = read_found(study, sweep)
    _write_configs(found, sweep, folder, base)
    write_text(folder / TRIALS, trials_table(found).to_csv(index=False, lineterminator="\n"))
    importance = importances(found)
    pictures = _plots(found, sweep, folder / "plots", importance)
    write_text(folder / PAGE, _page(found, sweep, folder, base, storage, importance, pictures))


def best_config(sweep: Sweep, base: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The complete configuration of a trial, in the first of its folds and with the first of its seeds.

    Args:
        sweep: what was searched.
        base: of :func:`~emolight.sweep.space.check_sweep`.
        parameters: of the trial.
    """
    options = [f"--name={sweep.name}/best", f"--seed_everything={sweep.seeds[0]}", *options_of(sweep, parameters)]
    options += [f"--data.fold={sweep.folds[0]}"] if sweep.folds else []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "base.yaml"
        path.write_text(yaml.safe_dump(dict(base), sort_keys=False, allow_unicode=True), encoding="utf-8")
        return full_config(["--config", str(path), *options])


def _write_configs(found: Found, sweep: Sweep, folder: Path, base: Mapping[str, Any]) -> None:
    wanted = {folder / BEST: found.best} if found.best else {}
    if len(found.objectives) > 1:
        wanted |= {folder / "pareto" / f"trial_{trial.number:04d}.yaml": trial for trial in found.front}
    for old in {folder / BEST, *folder.glob("pareto/trial_*.yaml")} - {*wanted}:
        old.unlink(missing_ok=True)  # it was on the front before a later trial came
    for path, trial in wanted.items():
        config = best_config(sweep, base, trial.params)
        told = ", ".join(f"{metric} {value:.6g}" for metric, value in values_of(found, trial).items())
        head = f"# Trial {trial.number} of the sweep '{sweep.name}': {told}, by validation clips that chose it.\n"
        write_text(path, head + yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def _plots(found: Found, sweep: Sweep, folder: Path, importance: Importances) -> dict[str, Picture]:
    """Draw every figure that the trials allow, as PNG into ``folder`` and as SVG for the page."""
    if found.best is None:
        return {}
    several = _several(sweep)
    best = f"best: trial {found.best.number}, {told_of(found, found.best)}"
    shares = ", ".join(f"{found.labels[name]} {100 * share:.0f} %" for name, share in importance.shares.items())
    figures = {
        "history": (draw.history_figure(found), f"History of {len(found.trials)} trials; {best}"),
        "curves": (draw.curves_figure(found, several), "Learning curves of all trials, pruned ones thin"),
        "importances": (draw.importances_figure(found, importance), f"Importances: {shares}")
        if shares
        else (None, ""),
        "parallel": (parallel_figure(found), f"Parallel coordinates of {', '.join(found.labels.values())}; {best}"),
        "slices": (draw.slices_figure(found), "Value of each trial against each of its parameters"),
    }
    if len(found.objectives) > 1:
        front = "; ".join(f"trial {trial.number}: {told_of(found, trial)}" for trial in found.front)
        figures["pareto"] = (draw.pareto_figure(found), f"Pareto front: {front}")
    pictures = {}
    for name, (figure, alt) in figures.items():
        if figure is not None:
            save_figure(figure, folder / f"{name}.png")
            figure.suptitle("")
            pictures[name] = picture(figure, alt)
    return pictures


def _several(sweep: Sweep) -> bool:
    """Whether a trial has more runs than one."""
    return len(sweep.folds) > 1 or len(sweep.seeds) > 1


def _page(
    found: Found,
    sweep: Sweep,
    folder: Path,
    base: Mapping[str, Any],
    storage: str,
    importance: Importances,
    pictures: Mapping[str, Picture],
) -> str:
    data, best = base["data"], found.best
    values = values_of(found, best) if best else {}
    chosen = best.params if best else {}
    folds = ", ".join(str(fold) for fold in sweep.folds)
    counted = Counter(trial.state for trial in found.trials)
    brought = []
    if best is not None:
        settings = (option.removeprefix("--").partition("=") for option in options_of(sweep, best.params))
        brought = [(name, value) for name, _, value in settings if name not in best.params]
    spent = sum(seconds_of(trial) or 0 for trial in found.trials)
    pruner = ", ".join(f"{name} {value}" for name, value in sweep.pruner.items() if name != "name")
    facts = [
        ("emolight", __version__),
        ("time of all trials", wall_time(spent)),
        ("sampler", f"{sweep.sampler}, seed {sweep.sampler_seed}"),
        ("pruner", sweep.pruner["name"] + (f" ({pruner})" if pruner else "")),
        ("epochs of a trial", str(base["trainer"]["max_epochs"])),
        ("seeds", ", ".join(str(seed) for seed in sweep.seeds)),
        ("search", f"optuna {optuna.__version__}, {shown_url(storage)[0]}"),
    ]
    return (
        environment("emolight.sweep")
        .get_template("sweep.html.j2")
        .render(
            sweep=sweep,
            found=found,
            best=best,
            counts=", ".join(f"{counted[state]} {word}" for state, word in STATES.items() if counted[state]),
            hero=[(axis_name(name, False), shown(name, one)) for name, one in values.items()],
            many=len(found.objectives) > 1,
            several=_several(sweep),
            parameters=[(name, shown_option(chosen[name])) for name in found.names if name in chosen],
            brought=brought,
            fit=f"python -m emolight fit --config {_quote(folder / BEST)}",
            retrain=retrain_command(folder),
            dashboard=dashboard_command(storage),
            actors=f"fold{'s' if len(sweep.folds) > 1 else ''} {folds}" if folds else "",
            protocol=data["protocol"],
            synthetic=bool(data["synthetic"]),
            group=short(found.group, found.names) if found.group else "",
            groups=group_sheet(found),
            front=front_sheet(found),
            trials=trials_sheet(found),
            pictures={name: pictures.get(name) for name in FIGURES},
            importance=importance,
            facts=facts,
        )
    )


def _quote(path: Path) -> str:
    return shlex.quote(str(path))


def retrain_command(folder: Path) -> str:
    """The command whose figure is to quote."""
    return f"python -m emolight sweep retrain --config {_quote(folder)} --protocol {QUOTED}"


def shown_url(storage: str) -> tuple[str, bool]:
    """A database's URL without its password, and whether it had one."""
    try:
        url = make_url(storage)
    except ArgumentError:
        return "a database", False
    secret = [name for name in url.query if "pass" in name.lower()]
    had = url.password is not None or bool(secret)
    return url._replace(password=None).difference_update_query(secret).render_as_string(hide_password=False), had


def dashboard_command(storage: str) -> str:
    """``optuna-dashboard URL``; a password is left to the environment, where libpq finds it."""
    url, secret = shown_url(storage)
    return f"{'PGPASSWORD=… ' if secret else ''}optuna-dashboard {shlex.quote(url)}"


def print_sweep(study: optuna.Study, sweep: Sweep, folder: Path, storage: str) -> None:
    """Print the best trial, the importances, and where to go on from here."""
    found = read_found(study, sweep)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    finished = len(found.complete) + len(found.pruned)
    console.print(f"\n{sweep.name}: {finished} finished trials, of which {len(found.pruned)} were pruned")
    if found.best is None:
        console.print(f"No trial is complete, so that there is no best one. Their errors: {folder / TRIALS}")
        return
    console.print(
        f"best: trial {found.best.number}, {told_of(found, found.best)}, of validation clips that chose it"
    )
    for name in found.names:
        if name in found.best.params:
            console.print(f"  {name}  {shown_option(found.best.params[name])}")
    importance = importances(found)
    if importance.shares:
        grid = Table("parameter", "importance %", title="PED-ANOVA", title_justify="left")
        grid.columns[1].justify = "right"
        for name, share in importance.shares.items():
            grid.add_row(found.labels[name], f"{100 * share:.0f}")
        console.print(grid)
    console.print(f"page: {folder / PAGE}\n\nnext:")
    console.print(f"  {retrain_command(folder)}    the figure to quote")
    console.print(f"  python -m emolight fit --config {_quote(folder / BEST)}")
    console.print(f"  {dashboard_command(storage)}")
