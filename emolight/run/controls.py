"""Controls: simple predictors of the same clips and the same split, which a trained network must beat.

Their settings are fixed beforehand and chosen on no clips: whole clips, standardised features, multinomial logistic
regression with balanced class weights.
Labels permuted within speaker teach nothing, so what they score is chance; more than that would be a leak. Where a
speaker's clips stand on both sides of the split, it is a little below 1 / classes: the more of a speaker's clips of an
emotion are evaluated, the fewer of them are left to train on.
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from emolight.data.audio import Waveform
from emolight.data.datamodule import EmotionDataModule
from emolight.errors import EmolightError
from emolight.evaluation.predictions import METRICS, predictions_table, scores
from emolight.evaluation.statistics import bootstrap
from emolight.models import features as front_ends

MAJORITY = "majority class"
DURATION = "duration only"
MFCC = "MFCC statistics + logistic regression"
PERMUTED = "labels permuted within speaker"
CONTROLS = (MAJORITY, DURATION, MFCC, PERMUTED)
PERMUTATIONS = 5
"""Permutations of the training labels, each a ``seed`` of the table."""
C = 0.1
"""Inverse strength of the L2 penalty, as in scikit-learn."""
N_FFT, HOP, N_MELS, N_MFCC = 512, 256, 64, 20
"""Of the MFCC: samples of a window, samples between two, mel bins, coefficients."""
SECONDS = ("seconds", "log_seconds")
STATISTICS = ("mean", "std", "min", "max")
"""Methods of an array."""

Array = NDArray[np.float64]
Labels = NDArray[np.integer]


def control_features(data: EmotionDataModule, known: pd.DataFrame | None = None) -> pd.DataFrame:
    """Features of all clips of ``data``, which is set up, by clip id: the duration, then :func:`clip_statistics`.

    The ``known`` ones of other folds are kept, and not computed again.
    """
    clip_ids = [one for one in data.clips["clip_id"] if known is None or one not in known.index]
    if known is not None and not clip_ids:
        return known
    front_end = front_ends.MFCC(data.sample_rate, n_fft=N_FFT, hop_length=HOP, n_mels=N_MELS, n_mfcc=N_MFCC)
    rows = [*(f"mfcc {number}" for number in range(N_MFCC)), "level"]
    names = [f"{which} {change}{row}" for which in STATISTICS for change in ("", "change of ") for row in rows]
    seconds = [data.cache.durations[clip_id] for clip_id in clip_ids]
    with threadpool_limits(1):  # several would fight where other runs compute, and take many times as long
        statistics = [clip_statistics(data.cache.waveform(clip_id), front_end) for clip_id in clip_ids]
    values = np.column_stack([seconds, np.log(seconds), statistics])
    return pd.concat([known, pd.DataFrame(values, pd.Index(clip_ids, name="clip_id"), [*SECONDS, *names])])


def clip_statistics(waveform: Waveform, front_end: front_ends.MFCC) -> Array:
    """Mean, standard deviation, minimum and maximum over time of a clip's MFCC and level, and of their changes.

    Returns:
        ``[4 * 2 * (M + 1)]`` of samples [T]: a statistic at a time; in each the M MFCC, the level of the frame (root
        mean square, dB of full scale, -100 at least), and the differences of these from the frame before.
    """
    samples = torch.tensor(waveform).unsqueeze(0)
    frames = torch.nn.functional.pad(samples, (N_FFT // 2, N_FFT // 2)).unfold(-1, N_FFT, HOP)
    level = 10 * frames.square().mean(dim=-1).clamp(min=1e-10).log10()
    rows = torch.cat([front_end(samples)[0, 0], level]).numpy().astype(np.float64)
    rows = np.concatenate([rows, np.diff(rows, axis=1, prepend=rows[:, :1])])
    return np.concatenate([getattr(rows, statistic)(axis=1) for statistic in STATISTICS])


def control_tables(
    data: EmotionDataModule, subset: str, features: pd.DataFrame | None = None
) -> dict[str, pd.DataFrame]:
    """Train every control on the training clips of ``data``, and let it predict those of ``subset``.

    ``subset`` is ``test``, or ``val`` under the random protocol; ``features`` are of these clips at least.

    Returns:
        Control, one of :data:`CONTROLS`, to its predictions table. The majority class gives each class its share of
        the training clips; permuted labels have :data:`PERMUTATIONS` rows a clip, told apart by the column ``seed``,
        and are left out where each speaker has one label alone: there is nothing to permute.

    Raises:
        EmolightError: the split has no clips in one of the two subsets, or training clips of one class only.
    """
    train, evaluated, label = data.subset("train"), data.subset(subset), data.split.label
    for name, rows in (("train", train), (subset, evaluated)):
        if not len(rows):
            raise EmolightError(f"Split '{label}' has no {name} clips.", "Evaluate val, or change the protocol.")
    labels = data.clips["emotion"].iloc[train].map(data.classes.index).to_numpy(dtype=np.int64)
    if len(np.unique(labels)) < 2:
        problem = f"The training clips of split '{label}' are all {data.classes[labels[0]]}."
        raise EmolightError(problem, "The controls need two classes or more: choose another split.")
    features = control_features(data) if features is None else features
    clips, speakers = data.clips.iloc[evaluated], data.clips["speaker"].to_numpy()[train]
    ids, classes = [data.clips["clip_id"].iloc[rows] for rows in (train, evaluated)], len(data.classes)

    def table(probabilities: Array) -> pd.DataFrame:
        return predictions_table(clips, data.classes, probabilities, data.groups)

    def fitted(values: pd.DataFrame, targets: Labels) -> pd.DataFrame:
        known, unseen = (values.loc[one].to_numpy() for one in ids)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=C, class_weight="balanced", max_iter=1000))
        probabilities = np.zeros((len(unseen), classes))
        with threadpool_limits(1):
            model.fit(known, targets)
            probabilities[:, model.classes_] = model.predict_proba(unseen)
        return table(probabilities)

    mfcc = features.drop(columns=list(SECONDS))
    several = data.clips.groupby("speaker")["emotion"].nunique().max() > 1
    seeds = range(PERMUTATIONS) if several else ()
    permuted = [fitted(mfcc, permute_within(labels, speakers, seed)).assign(seed=seed) for seed in seeds]
    return {
        MAJORITY: table(np.tile(np.bincount(labels, minlength=classes) / len(labels), (len(clips), 1))),
        DURATION: fitted(features[list(SECONDS)], labels),
        MFCC: fitted(mfcc, labels),
        **({PERMUTED: pd.concat(permuted, ignore_index=True)} if permuted else {}),
    }


def permute_within(labels: Labels, groups: NDArray[Any], seed: int) -> Labels:
    """Labels [N] shuffled among the clips of each of the ``groups`` [N]: every group keeps its labels' counts."""
    random, permuted = np.random.default_rng(seed), labels.copy()
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        permuted[rows] = labels[random.permutation(rows)]
    return permuted


def score_controls(tables: dict[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """``name``, ``uar`` with ``uar_low`` and ``uar_high`` by speaker, ``accuracy`` and ``macro_f1`` of each control."""
    found = []
    for name, table in tables.items():
        (low, high), values = bootstrap(table)["uar"], scores(table)
        found.append({"name": name, **{one: values[one] for one in METRICS}, "uar_low": low, "uar_high": high})
    return found
