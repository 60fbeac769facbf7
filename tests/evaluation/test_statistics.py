from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from sklearn import metrics
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
)

from emolight.evaluation import statistics
from emolight.evaluation.predictions import confusion, metrics_of, predictions_table, scores, unit_counts
from emolight.evaluation.statistics import (
    EXACT,
    FEW_SPEAKERS,
    bootstrap,
    calibration_error,
    few_speakers,
    holm,
    mean_over_seeds,
    paired_difference,
    percentiles,
    resampled_counts,
    sign_flip,
    speaker_shares,
    summarise,
)

from .test_predictions import CLASSES, clip_table, table_of

ABC = ("a", "b", "c")


def random_table(seed: int = 0, speakers: int = 6, clips_each: int = 20, right: float = 0.5) -> pd.DataFrame:
    """Random labels, of unequal frequency; about ``right`` of the clips are right."""
    random = np.random.default_rng(seed)
    # Labels and speakers do not depend on the seed: two tables can be paired.
    number = speakers * clips_each
    labels = [str(name) for name in np.random.default_rng(99).choice(CLASSES, number, p=(0.1, 0.2, 0.4, 0.2, 0.1))]
    probabilities = random.dirichlet(np.full(5, 0.5), number)
    for row, name in enumerate(labels):
        if random.random() < right:
            place = probabilities[row].argmax()
            swap = [place, CLASSES.index(name)]
            probabilities[row, swap] = probabilities[row, swap[::-1]]
    return predictions_table(
        clip_table(labels, [1 + row // clips_each for row in range(number)]), CLASSES, probabilities
    )


def recalls_table(by_speaker: Sequence[tuple[int, ...]], each: int = 10) -> pd.DataFrame:
    """``each`` clips of every class and speaker, of which as many are right as ``by_speaker`` says."""
    labels, predicted, speakers = [], [], []
    for speaker, right in enumerate(by_speaker, start=1):
        for place, number in enumerate(right):
            labels += [ABC[place]] * each
            predicted += [ABC[place]] * number + [ABC[(place + 1) % 3]] * (each - number)
            speakers += [speaker] * each
    return table_of(labels, predicted, ABC, speakers)


def seeds_table() -> pd.DataFrame:
    """Three seeds of one cross-validation of two folds."""
    tables = [random_table(seed).assign(seed=seed) for seed in range(3)]
    table = pd.concat(tables, ignore_index=True)
    return table.assign(fold=1 + (table["speaker"] > "03"))


def test_counts_of_speakers_add_up_to_the_confusion_matrix() -> None:
    table = random_table()
    counts = unit_counts(table, "speaker")[:, 0]
    assert counts.shape == (6, 5, 5)
    np.testing.assert_array_equal(counts.sum(axis=0), confusion(table))
    np.testing.assert_array_equal(counts[1], confusion(table[table["speaker"] == "02"]))
    assert unit_counts(table, "clip_id").sum(axis=(1, 2, 3)).tolist() == [1] * len(table)


def test_metrics_agree_with_scikit_learn_torchmetrics_and_scores() -> None:
    table = random_table()
    found = metrics_of(unit_counts(table, "speaker").sum(axis=0))
    label, prediction = table["label"], table["prediction"]
    assert found["uar"] == pytest.approx(metrics.balanced_accuracy_score(label, prediction))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(label, prediction))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(label, prediction, average="macro"))
    tensors = [torch.tensor(column.map(CLASSES.index).to_numpy()) for column in (prediction, label)]
    assert found["uar"] == pytest.approx(multiclass_accuracy(*tensors, num_classes=5, average="macro").item())
    assert found["macro_f1"] == pytest.approx(multiclass_f1_score(*tensors, num_classes=5, average="macro").item())
    assert found == pytest.approx({name: scores(table)[name] for name in found})


def test_metrics_of_absent_classes_are_those_of_scores() -> None:
    # happy is predicted and never true, fearful neither.
    table = table_of(["calm", "calm", "sad", "angry"], ["calm", "happy", "sad", "sad"])
    found = metrics_of(unit_counts(table, "speaker").sum(axis=0))
    assert found == pytest.approx({name: scores(table)[name] for name in found})
    assert found["uar"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0 + 2 / 3 + 0) / 4)


def test_resampled_counts_are_a_naive_loop_over_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "CHUNK", 7)
    table = random_table()
    found = resampled_counts(unit_counts(table, "speaker"), 20, seed=5)
    random = np.random.default_rng(5)
    weights = np.concatenate([random.multinomial(6, np.full(6, 1 / 6), size=size) for size in (7, 7, 6)])
    assert (weights.sum(axis=1) == 6).all()
    for counts, weight in zip(found, weights, strict=True):
        naive = sum(
            times * confusion(table[table["speaker"] == f"{speaker:02d}"])
            for speaker, times in enumerate(weight, start=1)
        )
        np.testing.assert_array_equal(counts[0], naive)


def test_bootstrap_is_a_naive_loop_over_copies_of_speakers() -> None:
    table = random_table()
    found = bootstrap(table, resamples=60, seed=3)
    weights = np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), size=60)
    drawn: dict[str, list[float]] = {}
    for weight in weights:
        copies = [
            table[table["speaker"] == f"{speaker:02d}"] for speaker in range(1, 7) for _ in range(weight[speaker - 1])
        ]
        one = scores(pd.concat(copies))
        for name in ("uar", "accuracy", "macro_f1"):
            drawn.setdefault(name, []).append(one[name])
        for name, value in one["recall"].items():
            drawn.setdefault(f"recall {name}", []).append(value)
    assert found.keys() == drawn.keys()
    for name, values in drawn.items():
        assert found[name] == pytest.approx(np.percentile(values, (2.5, 97.5)))


def test_bootstrap_by_clip_is_near_that_of_scipy() -> None:
    table = random_table()
    right = (table["label"] == table["prediction"]).to_numpy()
    expected = scipy.stats.bootstrap(
        (right,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(0)
    )
    found = bootstrap(table, "clip_id", resamples=5000)["accuracy"]
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=0.01)


def test_bootstrap_by_speaker_is_near_that_of_scipy() -> None:
    table = random_table(speakers=24)
    counts = unit_counts(table, "speaker")

    def uar(rows: Any) -> Any:
        return metrics_of(counts[rows].sum(axis=-4))["uar"]

    expected = scipy.stats.bootstrap(
        (np.arange(24),),
        lambda rows, axis: uar(rows),
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    found = bootstrap(table, resamples=2000)["uar"]
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=0.01)


def test_a_seed_tells_the_drawing() -> None:
    table = random_table()
    assert bootstrap(table, resamples=50) == bootstrap(table, resamples=50)
    assert bootstrap(table, resamples=50, seed=1) != bootstrap(table, resamples=50)


def test_percentiles_leave_out_resamples_without_the_class() -> None:
    values = np.append(np.arange(101) / 100, np.nan)
    assert percentiles(values) == pytest.approx((0.025, 0.975))


def test_every_seed_of_an_speaker_is_drawn_with_it() -> None:
    table = random_table()
    tripled = pd.concat([table.assign(seed=seed) for seed in range(3)])
    found, expected = bootstrap(tripled, resamples=50), bootstrap(table, resamples=50)
    assert found.keys() == expected.keys()
    for name, interval in expected.items():
        assert found[name] == pytest.approx(interval)


def test_95_percent_intervals_by_speaker_hold_the_truth_and_those_by_clip_do_not() -> None:
    random = np.random.default_rng(0)
    speakers, clips, simulations = 24, 20, 200
    hits = {"speaker": 0, "clip_id": 0}
    labels = list(ABC[:2]) * (speakers * clips // 2)
    frame = table_of(labels, labels, ABC[:2], [1 + row // clips for row in range(len(labels))])
    other = np.array([ABC[1 - ABC.index(name)] for name in labels])
    # Recall is 0.6 for the mean speaker, with a standard deviation of 0.15 between speakers.
    for _ in range(simulations):
        skill = random.normal(0.6, 0.15, speakers).clip(0, 1)
        right = random.random(len(labels)) < np.repeat(skill, clips)
        table = frame.assign(prediction=np.where(right, labels, other))
        for unit in hits:
            low, high = bootstrap(table, unit, resamples=200)["uar"]
            hits[unit] += low <= 0.6 <= high
    coverage = {unit: number / simulations for unit, number in hits.items()}
    assert 0.90 <= coverage["speaker"] <= 0.98
    assert coverage["clip_id"] < coverage["speaker"] - 0.08


def test_paired_difference_draws_both_tables_together() -> None:
    one, other = random_table(1, right=0.7), random_table(2, right=0.5)
    found = paired_difference(one, other, resamples=60, seed=3)
    assert found.value == pytest.approx(scores(one)["uar"] - scores(other)["uar"])
    weights = np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), size=60)
    values = []
    for weight in weights:
        of_table = [
            scores(
                pd.concat([table[table["speaker"] == f"{a:02d}"] for a in range(1, 7) for _ in range(weight[a - 1])])
            )["uar"]
            for table in (one, other)
        ]
        values.append(of_table[0] - of_table[1])
    assert found.interval == pytest.approx(np.percentile(values, (2.5, 97.5)))


@pytest.mark.parametrize("metric", ["uar", "accuracy", "macro_f1"])
def test_paired_difference_changes_its_sign_with_the_order(metric: str) -> None:
    one, other = random_table(1, right=0.7), random_table(2, right=0.5)
    forth, back = (paired_difference(*pair, metric, resamples=99) for pair in ((one, other), (other, one)))
    assert forth.value == pytest.approx(scores(one)[metric] - scores(other)[metric])
    assert back.value == pytest.approx(-forth.value)
    assert back.interval == pytest.approx((-forth.interval.high, -forth.interval.low))
    assert paired_difference(one, one, metric, resamples=99) == (0, (0, 0))


def test_paired_difference_of_other_order_of_rows_and_of_seeds_is_the_same() -> None:
    one, other = random_table(1), random_table(2)
    shuffled = pd.concat([other.assign(seed=seed) for seed in (0, 1)]).sample(frac=1, random_state=0)
    expected = paired_difference(one, other, resamples=50)
    found = paired_difference(one, shuffled, resamples=50)
    assert (found.value, *found.interval) == pytest.approx((expected.value, *expected.interval))


def test_tables_of_other_clips_are_refused() -> None:
    table = random_table()
    with pytest.raises(ValueError, match="different clips"):
        paired_difference(table, table.iloc[1:])


def test_of_one_speaker_a_difference_has_no_interval() -> None:
    one, other = (table[table["speaker"] == "01"] for table in (random_table(1), random_table(2)))
    assert paired_difference(one, other, resamples=9).interval == (-1, 1)


def test_shares_of_speakers_add_up_to_the_uar_of_the_seeds() -> None:
    table = seeds_table()
    shares = speaker_shares(table)
    assert shares.shape == (6,)
    assert shares.sum() == pytest.approx(scores(table)["uar"])
    assert shares.sum() == pytest.approx(np.mean([scores(one)["uar"] for _, one in table.groupby("seed")]))
    lead = speaker_shares(random_table(1)) - speaker_shares(random_table(2))
    assert lead.sum() == pytest.approx(paired_difference(random_table(1), random_table(2), resamples=9).value)


def test_sign_flip_exact_by_hand() -> None:
    # All six are better, each by another amount: 2 of 2^6 signs reach as far. One of no difference changes nothing.
    assert sign_flip(np.array([1.0, 2, 3, 4, 5, 6])) == pytest.approx(2 / 64)
    assert sign_flip(np.array([1.0, 2, 3, 4, 5, 6, 0])) == pytest.approx(2 / 64)
    assert sign_flip(np.zeros(24)) == 1
    assert sign_flip(np.array([1.0, -1, 2, -2])) == 1
    # 1 + 1 - 1 is reached by 1 and 3 of either sign: all but none; 3 by one of eight and its mirror.
    assert sign_flip(np.array([0.1, 0.1, -0.1])) == 1
    assert sign_flip(np.array([0.1, 0.1, 0.1])) == pytest.approx(2 / 8)


@pytest.mark.parametrize("count", [2, 7, 12])
def test_sign_flip_is_that_of_scipy(count: int) -> None:
    differences = np.random.default_rng(count).normal(0.3, 1, count).round(1)
    expected = scipy.stats.permutation_test(
        (differences,), lambda values, axis: values.sum(axis=axis), permutation_type="samples", vectorized=True
    )
    assert sign_flip(differences) == pytest.approx(expected.pvalue)
    assert sign_flip(-differences) == pytest.approx(expected.pvalue)


def test_sign_flip_of_many_speakers_draws_signs() -> None:
    differences = np.random.default_rng(0).normal(0.2, 1, EXACT)
    more = np.append(differences, 1e-9)  # one more, which changes nothing, but is drawn
    assert sign_flip(more) == pytest.approx(sign_flip(differences), abs=0.005)


@pytest.mark.parametrize(("systems", "simulations"), [(2, 600), (10, 300), (20, 200)])
def test_of_equal_systems_hardly_any_pair_differs(systems: int, simulations: int) -> None:
    """Corrected for all pairs, since the leader is chosen from the same figures: at most 6 of 100 tables say so."""
    random = np.random.default_rng(0)
    speakers, clips = 24, 60
    one, other = np.triu_indices(systems, 1)
    said = said_by_leader = 0
    for _ in range(simulations):
        # Voices are hard or easy for all systems, and each system is better with some voices.
        skill = random.normal(0.6, 0.1, (speakers, 1)) + random.normal(0, 0.05, (speakers, systems))
        shares = random.binomial(clips, skill.clip(0.02, 0.98)) / clips / speakers
        differences = shares[:, one] - shares[:, other]
        spread = np.sqrt((differences**2).sum(axis=0))
        # The lowest p is among the largest differences by their spread.
        likely = np.argsort(-np.abs(differences.sum(axis=0)) / spread)[:5]
        p = min(sign_flip(differences[:, pair]) for pair in likely)
        said += holm([p] + [1.0] * (len(one) - 1))[0] <= 0.05
        said_by_leader += p * (systems - 1) <= 0.05
    assert said / simulations <= 0.06
    if systems == 20:  # the correction for the comparisons with the leader alone, as it was once
        assert said_by_leader / simulations > 0.12


def test_mean_over_seeds() -> None:
    clips = clip_table(["calm", "sad", "calm"])
    first = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    second = np.array([[0.4, 0.6], [0.1, 0.9], [0.3, 0.7]])
    tables = [
        predictions_table(clips, ("calm", "sad"), values).assign(seed=seed, fold=1)
        for seed, values in enumerate((first, second))
    ]
    found = mean_over_seeds(pd.concat(tables).sample(frac=1, random_state=0))
    expected = predictions_table(clips, ("calm", "sad"), (first + second) / 2)
    pd.testing.assert_frame_equal(found, expected)
    assert found["prediction"].tolist() == ["calm", "sad", "sad"]


def test_mean_over_one_seed_is_the_table() -> None:
    table = random_table()
    pd.testing.assert_frame_equal(mean_over_seeds(table.sample(frac=1, random_state=0)), table)


def test_the_ensemble_of_the_seeds_is_no_score() -> None:
    """Three seeds, each wrong in another third: their mean probabilities are always right, each is by 2 of 3."""
    clips, right = clip_table(["x"] * 6), np.tile([0.9, 0.1], (6, 1))
    seeds = []
    for seed in range(3):
        probabilities = right.copy()
        probabilities[seed * 2 : seed * 2 + 2] = 0.4, 0.6
        seeds.append(predictions_table(clips, ("x", "y"), probabilities).assign(seed=seed))
    table = pd.concat(seeds)
    assert scores(mean_over_seeds(table))["accuracy"] == 1
    assert scores(table)["accuracy"] == pytest.approx(2 / 3)
    assert summarise(table, 20)["pooled"]["accuracy"]["value"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("count", [1, 5, 6])
def test_few_speakers_are_named(count: int) -> None:
    words = {1: "One speaker, or none known: intervals by speaker say nothing", 5: "From only 5 speakers"}
    assert few_speakers(count).startswith(words.get(count, ""))
    assert bool(few_speakers(count)) == (count < FEW_SPEAKERS)
    assert few_speakers(6) == ""


def test_holm_by_hand() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: the last may not fall below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_calibration_error_is_that_of_torchmetrics() -> None:
    table = random_table(right=0.7)
    found = calibration_error(table)
    probabilities = torch.tensor(table.filter(like="prob_").to_numpy())
    labels = torch.tensor(table["label"].map(CLASSES.index).to_numpy())
    expected = multiclass_calibration_error(probabilities, labels, num_classes=5, n_bins=15, norm="l1")
    assert found["ece"] == pytest.approx(expected.item(), abs=1e-6)
    assert found["ece"] > 0.01
    assert sum(one["n"] for one in found["bins"]) == len(table)
    for one in found["bins"]:
        assert one["low"] <= one["confidence"] <= one["high"]
        assert one["high"] - one["low"] == pytest.approx(1 / 15)


def test_calibration_by_hand() -> None:
    probabilities = np.array([[0.8, 0.2], [0.7, 0.3], [0.0, 1.0]])
    found = calibration_error(predictions_table(clip_table(["x", "y", "y"]), ("x", "y"), probabilities), bins=2)
    # All are confident by more than half: mean 2.5 / 3, of which 2 / 3 are right.
    assert found["ece"] == pytest.approx(0.5 / 3)
    assert found["brier"] == pytest.approx((2 * 0.2**2 + 2 * 0.7**2 + 0) / 3)
    (only,) = found["bins"]
    assert only == pytest.approx({"low": 0.5, "high": 1, "confidence": 2.5 / 3, "accuracy": 2 / 3, "n": 3})


def test_groups_of_a_summary_by_hand() -> None:
    # Speech is even rows: calm right, calm wrong, sad right. Song: sad right, sad wrong, sad right.
    table = table_of(["calm", "sad", "calm", "sad", "sad", "sad"], ["calm", "sad", "sad", "calm", "sad", "sad"])
    groups = summarise(table, 20)["groups"]
    song, speech = groups["channel"]
    assert song == pytest.approx({"group": "song", "n": 3, "uar": 2 / 3, "accuracy": 2 / 3})
    assert speech == pytest.approx({"group": "speech", "n": 3, "uar": 0.75, "accuracy": 2 / 3})
    assert [one["group"] for one in groups["speaker"]] == ["01", "02", "03", "04"]


def test_groups_count_clips_once_and_average_seeds() -> None:
    table = seeds_table()
    for one in summarise(table, 20)["groups"]["fold"]:
        rows = table[table["fold"] == one["group"]]
        assert one["n"] == 60
        assert one["uar"] == pytest.approx(np.mean([scores(seed)["uar"] for _, seed in rows.groupby("seed")]))


def test_summary_of_seeds() -> None:
    table = seeds_table()
    found = summarise(table, resamples=100)
    of_seed = [scores(random_table(seed)) for seed in range(3)]
    assert (found["clips"], found["speakers"]) == (120, 6)
    assert [found["seeds"][str(seed)]["macro_f1"] for seed in range(3)] == [one["macro_f1"] for one in of_seed]
    uars = [one["uar"] for one in of_seed]
    assert found["pooled"]["uar"]["value"] == pytest.approx(np.mean(uars))
    assert found["seed_mean"]["uar"] == pytest.approx(np.mean(uars))
    assert found["seed_std"]["uar"] == pytest.approx(np.std(uars, ddof=1))
    assert found["pooled"]["recall sad"]["value"] == pytest.approx(np.mean([one["recall"]["sad"] for one in of_seed]))
    assert found["pooled"]["uar"]["by_speaker"] == list(bootstrap(table, "speaker", 100)["uar"])
    assert found["pooled"]["accuracy"]["by_clip"] == list(bootstrap(table, "clip_id", 100)["accuracy"])
    assert found["calibration"] == calibration_error(table)


@pytest.mark.parametrize(
    "table",
    [
        seeds_table(),
        random_table(),
        random_table(speakers=1),
        table_of(["calm", "calm", "sad", "sad"] * 4, ["calm", "happy", "sad", "angry"] * 4),
        random_table().assign(seed=7, fold=1),
    ],
    ids=["three seeds", "no seed", "one speaker", "absent classes", "one seed"],
)
def test_summary_is_plain_json(table: pd.DataFrame) -> None:
    found = summarise(table, resamples=100)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    occurring = set(table["label"])
    assert {name for name in found["pooled"] if name.startswith("recall")} == {f"recall {name}" for name in occurring}
    if table.get("seed", pd.Series([0])).nunique() == 1:
        assert found["seed_std"] == {"uar": None, "accuracy": None, "macro_f1": None}
    for value in found["pooled"].values():
        for low, high in (value["by_speaker"], value["by_clip"]):
            assert 0 <= low <= high <= 1
