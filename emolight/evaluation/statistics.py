"""Intervals, tests and calibration errors of predictions tables.

Of several seeds every value, interval and test is of one quantity: the mean over the seeds. Clips of one speaker are
not independent, so a resample draws speakers with all their clips and seeds; intervals by clip stand beside these only
to show how much too narrow they are.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emolight.evaluation.predictions import (
    METRICS,
    PREFIX,
    Counts,
    class_names,
    group_columns,
    metrics_of,
    recalls_of,
    scores,
    scores_by,
    unit_counts,
)

RESAMPLES = 10_000
CHUNK = 2000
"""Resamples at a time, which bounds the memory."""
FEW_SPEAKERS = 6
"""Below so many speakers an interval by speaker is too narrow, and no test by speaker can fall below 5 %."""
GROUP_SIZES = (2, 12)
"""How many values a column has by which results are tabled."""
EXACT = 30
"""Up to so many speakers all 2^n signs are counted."""

Values = NDArray[np.float64]


class Interval(NamedTuple):
    """Ends of a 95 % interval, as fractions."""

    low: float
    high: float


class Difference(NamedTuple):
    """A score minus another's, as a fraction, with its interval by speaker."""

    value: float
    interval: Interval


def few_speakers(count: int) -> str:
    """The warning that belongs beside every interval by speaker from so few; empty where there are enough."""
    if count >= FEW_SPEAKERS:
        return ""
    if count < 2:
        return f"One speaker, or none known: intervals by speaker say nothing. Score {FEW_SPEAKERS} speakers or more."
    few = f"From only {count} speakers the intervals by speaker are too narrow"
    return f"{few}: score {FEW_SPEAKERS} or more, as by all folds."


def resampled_counts(
    counts: Counts, resamples: int = RESAMPLES, seed: int = 0, times: NDArray[np.integer] | None = None
) -> Counts:
    """Confusion counts ``[R, S, C, C]`` of bootstrap samples of the units of ``counts`` ``[U, S, C, C]``.

    Of two tables the same units are drawn by one seed. ``times`` tells for how many units each of ``counts`` stands.
    """
    times = np.ones(len(counts), dtype=int) if times is None else times
    flat, units, random = counts.reshape(len(counts), -1), int(times.sum()), np.random.default_rng(seed)
    sizes = [min(CHUNK, resamples - start) for start in range(0, resamples, CHUNK)]
    parts = [random.multinomial(units, times / units, size=size).astype(np.float64) @ flat for size in sizes]
    return np.concatenate(parts).reshape(resamples, *counts.shape[1:])


def bootstrap(
    table: pd.DataFrame, unit: str = "speaker", resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """95 % percentile intervals of ``uar``, ``accuracy`` and ``macro_f1``, and of ``recall <emotion>``.

    ``unit`` is the column of what is resampled: ``speaker`` for the interval that counts, ``clip_id`` beside it. Of a
    single one nothing is known, and the interval is 0 to 1. Source: Efron and Tibshirani, *An Introduction to the
    Bootstrap*, 1993, chapter 13.
    """
    counts, times = unit_counts(table, unit), None
    units = len(counts)
    if unit == "clip_id":  # many are alike: a draw of kinds is as good and a hundred times as fast
        counts, times = np.unique(counts, axis=0, return_counts=True)
    drawn = resampled_counts(counts, resamples, seed, times)
    values = metrics_of(drawn)
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # without a class there is no recall of it
        recall = np.nanmean(recalls_of(drawn), axis=1)
    occurring = np.isfinite(recall).any(axis=0)
    values |= {f"recall {name}": recall[:, place] for place, name in enumerate(class_names(table)) if occurring[place]}
    return {name: percentiles(value) if units > 1 else Interval(0.0, 1.0) for name, value in values.items()}


def percentiles(values: Values) -> Interval:
    """The middle 95 % of resampled values."""
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return Interval(float(low), float(high))


def paired_difference(
    one: pd.DataFrame, other: pd.DataFrame, metric: str = "uar", resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """``metric`` of ``one`` minus ``other``'s on the same clips, speakers resampled together; of one alone -1 to 1."""
    if set(one["clip_id"]) != set(other["clip_id"]):
        raise ValueError("the tables are of different clips")
    counts = [unit_counts(table, "speaker") for table in (one, other)]
    first, second = (float(metrics_of(of_table.sum(axis=0))[metric]) for of_table in counts)
    drawn = [metrics_of(resampled_counts(of_table, resamples, seed))[metric] for of_table in counts]
    interval = percentiles(drawn[0] - drawn[1]) if len(counts[0]) > 1 else Interval(-1.0, 1.0)
    return Difference(first - second, interval)


def speaker_shares(table: pd.DataFrame) -> Values:
    """What each speaker adds to the table's UAR, ``[U]``: their sum is the UAR, a mean over the seeds.

    Of two tables of the same clips, :func:`sign_flip` of the differences tests the very difference that
    :func:`paired_difference` gives. McNemar's test would take the clips of a speaker as independent.
    """
    counts = unit_counts(table, "speaker")
    true = counts.sum(axis=(0, 3))  # [S, C]
    right = np.diagonal(counts, axis1=2, axis2=3)
    shares = np.divide(right, true, out=np.zeros_like(right), where=true > 0)
    result: Values = (shares.sum(axis=2) / (true > 0).sum(axis=1)).mean(axis=1)
    return result


def sign_flip(differences: Values, resamples: int = 100_000) -> float:
    """Two-sided p of the sum of ``differences`` [U] when each could as well have the other sign.

    Exact up to 30 units; with more by ``resamples`` random signs. Source: Fisher, *The Design of Experiments*, 1935,
    section 21; for comparisons of systems Dror et al., ACL 2018.
    """
    differences = differences[np.abs(differences) > 1e-12]  # what is equal but for rounding
    count, reached = len(differences), float(abs(differences.sum())) - 1e-12
    if count == 0:
        return 1.0
    if count > EXACT:
        random, hits = np.random.default_rng(0), 0
        for start in range(0, resamples, CHUNK):
            signs = random.integers(0, 2, (min(CHUNK, resamples - start), count)) * 2.0 - 1
            hits += int((np.abs(signs @ differences) >= reached).sum())
        return (hits + 1) / (resamples + 1)
    halves = []
    for part in (differences[: count // 2], differences[count // 2 :]):
        sums = np.zeros(1)
        for value in part:
            sums = np.concatenate([sums - value, sums + value])
        halves.append(np.sort(sums))
    first, second = halves
    # Sums of both halves that reach as far upwards; as many reach as far downwards.
    upwards = len(second) - np.searchsorted(second, reached - first)
    return float(min(1.0, 2 * upwards.sum() / 2.0**count))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p values for several comparisons (1979), in the order given."""
    order = np.argsort(p_values)
    steps = np.asarray(p_values, dtype=float)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(value) for value in corrected]


def mean_over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """The ensemble of the seeds: one row a clip, sorted, with mean probabilities and the class that they favour.

    It is another system than its members, mostly a better one: for clips to look at, not for scores.
    """
    names, order = class_names(table), [name for name in table.columns if name not in ("seed", "fold")]
    if not table["clip_id"].duplicated().any():
        return table[order].sort_values("clip_id", ignore_index=True)
    columns, groups = [PREFIX + name for name in names], table.groupby("clip_id")
    merged, means = groups.first().reset_index(), groups[columns].mean().reset_index(drop=True)
    merged["prediction"] = np.array(names)[means.to_numpy().argmax(axis=1)]
    merged[columns] = means
    return merged[order]


def calibration_error(table: pd.DataFrame, bins: int = 15) -> dict[str, Any]:
    """How far the probabilities are from what happens; each prediction of every seed counts.

    ``ece``: the mean gap between confidence and accuracy, weighted by predictions (Naeini et al. 2015); ``brier``: mean
    squared distance of the probabilities from the one-hot label, 0 to 2 (Brier 1950); ``bins``: for each that has
    predictions ``low``, ``high``, ``confidence``, ``accuracy``, ``n``.
    """
    names = class_names(table)
    probabilities = table[[PREFIX + name for name in names]].to_numpy(dtype=float)
    labels, predictions = (pd.Categorical(table[name], names).codes for name in ("label", "prediction"))
    confidence = probabilities[np.arange(len(table)), predictions]
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    frame = pd.DataFrame({"confidence": confidence, "accuracy": labels == predictions, "n": 1})
    found = frame.groupby(places).agg({"confidence": "mean", "accuracy": "mean", "n": "sum"})
    rows = found.assign(low=found.index / bins, high=(found.index + 1) / bins).to_dict("records")
    ece = sum(row["n"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / len(table)
    brier = ((probabilities - np.eye(len(names))[labels]) ** 2).sum(axis=1).mean()
    return {"ece": float(ece), "brier": float(brier), "bins": rows}


def summarise(table: pd.DataFrame, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Every figure of a predictions table, in plain values that JSON can hold.

    ``clips``, ``speakers``: how many; ``pooled``: metric (``uar``, ``accuracy``, ``macro_f1``, ``recall <emotion>``) to
    ``value`` and the intervals ``by_speaker`` and ``by_clip``; ``seeds``: seed to its metrics; ``seed_mean`` and
    ``seed_std`` (n - 1; null for one seed); ``groups``: ``fold``, ``speaker`` and columns of 2 to 12 values to the rows
    of :func:`scores_by`, each with its ``group``; ``calibration`` as :func:`calibration_error`.
    """
    found = scores(table)
    values = {name: found[name] for name in METRICS} | {f"recall {name}": one for name, one in found["recall"].items()}
    by_speaker, by_clip = (bootstrap(table, unit, resamples) for unit in ("speaker", "clip_id"))
    seeds = table.groupby("seed") if "seed" in table else [(0, table)]
    of_seed = {str(seed): {name: scores(rows)[name] for name in METRICS} for seed, rows in seeds}
    each = {name: [one[name] for one in of_seed.values()] for name in METRICS}
    few, most = GROUP_SIZES
    columns = [name for name in group_columns(table) if few <= table[name].nunique() <= most]
    return {
        "clips": found["n"],
        "speakers": int(table["speaker"].nunique()),
        "pooled": {
            name: {"value": value, "by_speaker": list(by_speaker[name]), "by_clip": list(by_clip[name])}
            for name, value in values.items()
        },
        "seeds": of_seed,
        "seed_mean": {name: float(np.mean(one)) for name, one in each.items()},
        "seed_std": {name: float(np.std(one, ddof=1)) if len(one) > 1 else None for name, one in each.items()},
        "groups": {
            name: scores_by(table, name).rename_axis("group").reset_index().to_dict("records")
            for name in ("fold", "speaker", *columns)
            if name in table
        },
        "calibration": calibration_error(table),
    }
