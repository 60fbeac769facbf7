"""Intervals, tests and calibration errors of predictions tables.

A table may hold several predictions of a clip, one for each ``seed``: recalls and accuracies are then means over
the seeds, and a resample draws actors (or clips) with all their seeds. Clips of one actor are not independent, so
the intervals that count resample actors; the ones by clip stand beside them to show how much too narrow they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emolight.evaluation.predictions import PREFIX, class_names, scores

RESAMPLES = 10_000
METRICS = ("uar", "wa", "macro_f1")
GROUPS = ("fold", "actor", "sex", "intensity", "statement", "channel")
CHUNK = 2000
"""Resamples at a time, which bounds the memory."""

Counts = NDArray[np.float64]


class Interval(NamedTuple):
    """Ends of a 95 % interval, as fractions."""

    low: float
    high: float


class Difference(NamedTuple):
    """A score minus another's, as a fraction, with its interval by actor."""

    value: float
    interval: Interval


def unit_counts(table: pd.DataFrame, unit: str) -> Counts:
    """Confusion counts of each unit, ``[U, C, C]``: true class, predicted class; units sorted.

    Args:
        table: predictions table.
        unit: column of what is resampled, ``actor`` or ``clip_id``.
    """
    names = class_names(table)
    codes = {name: number for number, name in enumerate(names)}
    units, place = np.unique(table[unit].to_numpy(), return_inverse=True)
    counts = np.zeros((len(units), len(names), len(names)))
    np.add.at(counts, (place, table["label"].map(codes), table["prediction"].map(codes)), 1)
    return counts


def metrics_of(counts: Counts) -> dict[str, NDArray[np.float64]]:
    """UAR, WA and macro-F1 of confusion counts ``[..., C, C]``.

    UAR is over the classes that occur, macro-F1 over those that occur or are predicted, as in
    :func:`~emolight.evaluation.predictions.scores`.
    """
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    true, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    recall = np.divide(right, true, out=np.full_like(right, np.nan), where=true > 0)
    seen = true + predicted
    f1 = np.divide(2 * right, seen, out=np.full_like(right, np.nan), where=seen > 0)
    total = counts.sum(axis=(-2, -1))
    return {
        "uar": np.nanmean(recall, axis=-1),
        "wa": right.sum(axis=-1) / total,
        "macro_f1": np.nanmean(f1, axis=-1),
    }


def resampled_counts(counts: Counts, resamples: int = RESAMPLES, seed: int = 0) -> Counts:
    """Confusion counts ``[R, C, C]`` of bootstrap samples: units of ``counts`` [U, C, C] drawn with replacement."""
    units, classes = counts.shape[0], counts.shape[1]
    flat = counts.reshape(units, -1)
    random = np.random.default_rng(seed)
    parts = []
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        weights = random.multinomial(units, np.full(units, 1 / units), size=size)
        parts.append(weights.astype(np.float64) @ flat)
    return np.concatenate(parts).reshape(resamples, classes, classes)


def bootstrap(
    table: pd.DataFrame, unit: str = "actor", resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """95 % percentile intervals of ``uar``, ``wa`` and ``macro_f1``, and of ``recall <emotion>``.

    Args:
        table: predictions table.
        unit: column of what is resampled: ``actor`` for the interval that counts, ``clip_id`` beside it. Of a
            single one nothing is known, and the interval is 0 to 1.
        resamples: bootstrap samples.
        seed: of the drawing.

    Source:
        Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13; clustered by ``unit``.
    """
    counts = unit_counts(table, unit)
    drawn = resampled_counts(counts, resamples, seed)
    values = metrics_of(drawn)
    true = drawn.sum(axis=2)
    right = np.diagonal(drawn, axis1=1, axis2=2)
    recall = np.divide(right, true, out=np.full_like(right, np.nan), where=true > 0)
    for number, name in enumerate(class_names(table)):
        if np.isfinite(recall[:, number]).any():
            values[f"recall {name}"] = recall[:, number]
    return {name: percentiles(value) if len(counts) > 1 else Interval(0.0, 1.0) for name, value in values.items()}


def percentiles(values: NDArray[np.float64]) -> Interval:
    """The middle 95 % of resampled values."""
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return Interval(float(low), float(high))


def paired_difference(
    one: pd.DataFrame, other: pd.DataFrame, metric: str = "uar", resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """``metric`` of ``one`` minus that of ``other`` on the same actors, resampled together.

    Raises:
        ValueError: the tables are of different clips.
    """
    check_paired(one, other)
    value = metrics_of(unit_counts(one, "actor").sum(axis=0))[metric]
    value = value - metrics_of(unit_counts(other, "actor").sum(axis=0))[metric]
    drawn = [
        metrics_of(resampled_counts(unit_counts(table, "actor"), resamples, seed))[metric] for table in (one, other)
    ]
    return Difference(float(value), percentiles(drawn[0] - drawn[1]))


def check_paired(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Raise ValueError unless both tables are of the same clips."""
    if set(one["clip_id"]) != set(other["clip_id"]):
        raise ValueError("the tables are of different clips")


def wilcoxon_actors(one: pd.DataFrame, other: pd.DataFrame) -> float:
    """p of Wilcoxon's signed-rank test on the two UARs of every actor; 1 when all are equal.

    Source:
        Wilcoxon, *Individual comparisons by ranking methods*, 1945.
    """
    from scipy.stats import wilcoxon

    check_paired(one, other)
    difference = metrics_of(unit_counts(one, "actor"))["uar"] - metrics_of(unit_counts(other, "actor"))["uar"]
    difference = difference.round(12)  # what is equal but for rounding must not count as a difference
    return float(wilcoxon(difference).pvalue) if np.any(difference) else 1.0


def mcnemar_clips(one: pd.DataFrame, other: pd.DataFrame) -> float:
    """p of McNemar's exact test on clips that one table has right and the other wrong.

    With several seeds, a clip is right by the mean of its probabilities.

    Source:
        McNemar, *Note on the sampling error of the difference between correlated proportions*, 1947; exact, by
        the binomial distribution.
    """
    from scipy.stats import binomtest

    check_paired(one, other)
    right = [_right(table) for table in (one, other)]
    first, second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return float(binomtest(first, first + second).pvalue) if first + second else 1.0


def _right(table: pd.DataFrame) -> NDArray[np.bool_]:
    merged = mean_over_seeds(table) if table["clip_id"].duplicated().any() else table.sort_values("clip_id")
    result: NDArray[np.bool_] = (merged["label"] == merged["prediction"]).to_numpy()
    return result


def mean_over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """One row a clip, sorted by clip id: the mean probabilities of its rows, and the class that they favour."""
    columns = [PREFIX + name for name in class_names(table)]
    rest = [name for name in table.columns if name not in (*columns, "prediction", "seed", "fold")]
    groups = table.groupby("clip_id")
    merged = groups[rest].first().reset_index(drop=True)
    means = groups[columns].mean().reset_index(drop=True)
    merged["prediction"] = np.array(class_names(table))[means.to_numpy().argmax(axis=1)]
    merged[columns] = means
    return merged


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p values for several comparisons, in the order given.

    Source:
        Holm, *A simple sequentially rejective multiple test procedure*, 1979.
    """
    order = np.argsort(p_values)
    corrected = np.empty(len(p_values))
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return [float(value) for value in corrected]


def calibration_error(table: pd.DataFrame, bins: int = 15) -> dict[str, Any]:
    """How far the probabilities are from what happens.

    Args:
        table: predictions table.
        bins: equal bins of confidence, the probability of the prediction.

    Returns:
        ``ece``: expected calibration error, the mean gap between confidence and accuracy, weighted by clips;
        ``brier``: mean squared distance of the probabilities from the one-hot label, 0 to 2; ``bins``: for each
        that has clips ``low``, ``high``, ``confidence``, ``accuracy``, ``n``.

    Source:
        Naeini et al. 2015 (ECE); Brier 1950, the form over all classes.
    """
    names = class_names(table)
    probabilities = table[[PREFIX + name for name in names]].to_numpy(dtype=float)
    labels = table["label"].map(names.index).to_numpy()
    predictions = table["prediction"].map(names.index).to_numpy()
    rows = np.arange(len(table))
    confidence, right = probabilities[rows, predictions], labels == predictions
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    found = []
    for number in np.unique(place):
        inside = place == number
        found.append(
            {
                "low": number / bins,
                "high": (number + 1) / bins,
                "confidence": float(confidence[inside].mean()),
                "accuracy": float(right[inside].mean()),
                "n": int(inside.sum()),
            }
        )
    ece = sum(one["n"] * abs(one["confidence"] - one["accuracy"]) for one in found) / len(table)
    truth = np.eye(len(names))[labels]
    return {"ece": float(ece), "brier": float(((probabilities - truth) ** 2).sum(axis=1).mean()), "bins": found}


def group_scores(table: pd.DataFrame, column: str) -> list[dict[str, Any]]:
    """``group``, ``n`` clips, ``uar`` and ``wa`` of each group of clips, means over the seeds, sorted by group.

    Args:
        table: predictions table.
        column: one of :data:`GROUPS`. UAR is over the emotions that occur in the group.
    """
    found = []
    for group, rows in table.groupby(column):
        values = metrics_of(unit_counts(rows, column)[0])
        clips = int(rows["clip_id"].nunique())
        found.append({"group": group, "n": clips, "uar": float(values["uar"]), "wa": float(values["wa"])})
    return found


def summarise(table: pd.DataFrame, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Every figure of a predictions table, in plain values that JSON can hold.

    Args:
        table: predictions table; columns ``seed`` and ``fold`` may be missing.
        resamples: bootstrap samples of the intervals.

    Returns:
        ``clips``, ``actors``; ``pooled``: metric (``uar``, ``wa``, ``macro_f1``, ``recall <emotion>``) to
        ``value``, ``by_actor`` and ``by_clip``, the two intervals as ``[low, high]``; ``seeds``: seed to its
        metrics; ``seed_mean`` and ``seed_std`` (n - 1; null for one seed); ``groups``: column to
        :func:`group_scores`; ``calibration`` as :func:`calibration_error`.
    """
    values = {name: float(value) for name, value in metrics_of(unit_counts(table, "actor").sum(axis=0)).items()}
    values |= {f"recall {name}": value for name, value in scores(table)["recall"].items()}
    by_actor, by_clip = bootstrap(table, "actor", resamples), bootstrap(table, "clip_id", resamples)
    seeds = table.groupby("seed") if "seed" in table else [(0, table)]
    of_seed = {str(seed): {name: scores(rows)[name] for name in METRICS} for seed, rows in seeds}
    each = {name: [one[name] for one in of_seed.values()] for name in METRICS}
    return {
        "clips": int(table["clip_id"].nunique()),
        "actors": int(table["actor"].nunique()),
        "pooled": {
            name: {"value": value, "by_actor": list(by_actor[name]), "by_clip": list(by_clip[name])}
            for name, value in values.items()
        },
        "seeds": of_seed,
        "seed_mean": {name: float(np.mean(found)) for name, found in each.items()},
        "seed_std": {
            name: float(np.std(found, ddof=1)) if len(found) > 1 else None for name, found in each.items()
        },
        "groups": {column: group_scores(table, column) for column in GROUPS if column in table},
        "calibration": calibration_error(table),
    }
