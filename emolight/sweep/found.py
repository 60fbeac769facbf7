"""What a study found: its trials, the best of them, and which parameters decided."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState

from emolight.sweep.space import Sweep

ENOUGH = 5
"""Best trials that PED-ANOVA wants at least, by Optuna's documentation."""
MANY = 20
"""Best trials under which a parameter without any effect may still get a large share."""


class Found(NamedTuple):
    """What a study found.

    Attributes:
        study: of Optuna.
        trials: those that were begun, by number.
        names: parameters of these trials, in the order of the space.
        objectives: metric to ``maximize`` or ``minimize``; the first one counts where only one can.
        group: the first categorical parameter, or None.
        choices: those of ``group``.
        labels: parameter to its short name, with the choices under which it exists.
    """

    study: optuna.Study
    trials: list[FrozenTrial]
    names: list[str]
    objectives: dict[str, str]
    group: str | None
    choices: list[Any]
    labels: dict[str, str]

    @property
    def complete(self) -> list[FrozenTrial]:
        """Trials with finite values."""
        done = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        return [trial for trial in done if all(math.isfinite(value) for value in trial.values)]

    @property
    def pruned(self) -> list[FrozenTrial]:
        """Trials that were stopped early."""
        return [trial for trial in self.trials if trial.state == TrialState.PRUNED]

    @property
    def best(self) -> FrozenTrial | None:
        """The best complete trial by the first objective; of equal ones the one that the others decide for."""
        signs = [-1 if way == "maximize" else 1 for way in self.objectives.values()]
        return min(
            self.complete,
            key=lambda one: [sign * value for sign, value in zip(signs, one.values, strict=True)],
            default=None,
        )

    @property
    def front(self) -> list[FrozenTrial]:
        """The Pareto front, best of the first objective first; the best trial of a single one."""
        if len(self.objectives) == 1:
            return [self.best] if self.best else []
        sign = -1 if next(iter(self.objectives.values())) == "maximize" else 1
        numbers = {trial.number for trial in self.study.best_trials}
        found = [trial for trial in self.complete if trial.number in numbers]
        return sorted(found, key=lambda trial: sign * trial.values[0])


def read_found(study: optuna.Study, sweep: Sweep) -> Found:
    """The trials of a study that were begun, with what the sweep says of their parameters."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    names = [name for name in sweep.space if any(name in trial.params for trial in trials)]
    group = next((name for name in names if sweep.space[name].choices), None)
    labels = {}
    for name in names:
        where = "; ".join(", ".join(str(value) for value in values) for values in sweep.space[name].when.values())
        labels[name] = short(name, names) + (f" ({where})" if where else "")
    choices = list(sweep.space[group].choices) if group else []
    return Found(study, trials, names, dict(sweep.objectives), group, choices, labels)


def short(name: str, names: Sequence[str]) -> str:
    """The last words of a dotted name that tell it from the others: ``model.features.n_mels`` is ``n_mels``."""
    words = name.split(".")
    for count in range(1, len(words)):
        ending = ".".join(words[-count:])
        if sum(other == ending or other.endswith(f".{ending}") for other in names) < 2:
            return ending
    return name


def is_share(metric: str) -> bool:
    """Whether a metric lies between 0 and 1 and is shown in percent."""
    return metric.split("/")[-1].split("_")[0] in ("uar", "accuracy", "f1", "recall")


def scale(metric: str) -> int:
    """100 for what is shown in percent."""
    return 100 if is_share(metric) else 1


def axis_name(metric: str, unit: bool = True) -> str:
    """A metric's name, with ``%`` when it is shown in percent and ``unit`` is wanted."""
    words = {"val/uar": "validation UAR", "latency_ms": "latency (ms)"}.get(metric, metric)
    return f"{words} (%)" if unit and is_share(metric) else words


def number(value: float) -> str:
    """About three digits: ``61.2``, ``0.0312``, ``11.2 M``."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.2f}\u00a0M"
    return f"{value:,.0f}".replace(",", "\u202f") if abs(value) >= 1000 else f"{value:.3g}"


def log_ticks(low: float, high: float) -> list[float]:
    """1 and 3 of every decade from ``low`` to ``high``, or of many decades only their beginnings."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 3) if high < 500 * low else (1,)
    ticks = [digit * 10.0**exponent for exponent in exponents for digit in digits]
    inside = [tick for tick in ticks if 0.999 * low <= tick <= 1.001 * high]
    return inside if len(inside) > 1 else [low, high]


class Importances(NamedTuple):
    """PED-ANOVA's shares, which sum to 1, highest first; ``note`` says how they came, or why there are none."""

    shares: dict[str, float]
    note: str


def importances(found: Found) -> Importances:
    """How much each parameter decides whether a trial is among the best.

    Source:
        Watanabe et al., *PED-ANOVA*, 2023 (arXiv 2304.10255), and *Conditional PED-ANOVA*, 2026 (arXiv 2601.20800),
        as Optuna computes them. The best tenth is taken as there, but at least five trials, or half of all.
    """
    complete = found.complete
    if len(complete) < 2 or len(found.names) < 2:
        what = "parameters" if len(complete) > 1 else "complete trials"
        return Importances({}, f"There are no importances: they need two {what}.")
    quantile = max(0.1, min(0.5, ENOUGH / len(complete)))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few trials, which the note tells
        raw = optuna.importance.get_param_importances(found.study, evaluator=evaluator, normalize=False)
    total = sum(raw.values())
    best = math.ceil(quantile * len(complete))
    if not total > 0:
        return Importances({}, f"There are no importances: {len(complete)} complete trials show no difference.")
    note = f"PED-ANOVA: what sets the best {best} of the {len(complete)} complete trials"
    note += " (the Pareto front first)" if len(found.objectives) > 1 else ""
    note += " apart; pruned trials do not count."
    if conditional := [name for name in found.names if any(name not in one.params for one in complete)]:
        names = " and ".join(short(name, found.names) for name in conditional)
        one = len(conditional) == 1
        note += f" {names} {'is' if one else 'are'} conditional: compared only among the trials that have "
        note += f"{'it' if one else 'them'}, and weighted by how many of the best those are."
    if best < MANY:
        rough = ", those of conditional parameters most" if conditional else ""
        note += f" With so few best trials the shares are rough{rough}."
    return Importances({name: value / total for name, value in raw.items()}, note)
