"""Simple predictors of the same clips and the same split, which a trained network must beat.

Their settings are fixed beforehand and chosen on no clips: whole clips, 20 MFCC of 64 mel bins (512 samples, hop
256), standardised features, multinomial logistic regression with balanced class weights and C = 0.1.

Labels permuted within actor teach nothing, so what they score is chance; more than that would be a leak. Where an
actor's clips stand on both sides of the split, it is a little below 1 / classes: the more of an actor's clips of an
emotion are evaluated, the fewer of them are left to train on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from emolight.data.audio import Waveform
from emolight.data.datamodule import EmotionDataModule
from emolight.errors import EmolightError
from emolight.evaluation.predictions import predictions_table
from emolight.models.frontend import AMIN, Features, FrontEnd

MAJORITY = "majority class"
DURATION = "duration only"
MFCC = "MFCC statistics + logistic regression"
PERMUTED = "labels permuted within actor"
CONTROLS = (MAJORITY, DURATION, MFCC, PERMUTED)
PERMUTATIONS = 5
"""Permutations of the training labels, each a ``seed`` of the table."""
C = 0.1
"""Inverse strength of the L2 penalty, as in scikit-learn."""
FEATURES = Features(mode="mfcc", n_fft=512, hop_length=256, n_mels=64, n_mfcc=20)
STATISTICS = ("mean", "std", "min", "max")

Array = NDArray[np.float64]
Labels = NDArray[np.integer]


class ControlFeatures(NamedTuple):
    """Features of clips, whatever their fold; both tables have the clip id as index.

    Attributes:
        duration: ``seconds`` of the trimmed recording, and their natural logarithm ``log_seconds``.
        mfcc: the statistics of :func:`clip_statistics`.
    """

    duration: pd.DataFrame
    mfcc: pd.DataFrame


def control_features(data: EmotionDataModule, known: ControlFeatures | None = None) -> ControlFeatures:
    """The controls' features of all clips of ``data``, which is set up, and of the ``known`` ones.

    Args:
        data: one fold of a task.
        known: features of other folds; what they hold is not computed again. Folds may hold different clips.

    Raises:
        EmolightError: a sample rate at which mel bins are empty, or a cache that was removed.
    """
    clip_ids = [one for one in data.clips["clip_id"] if known is None or one not in known.mfcc.index]
    if known is not None and not clip_ids:
        return known
    index = pd.Index(clip_ids, name="clip_id")
    front_end = FrontEnd(FEATURES, data.sample_rate)
    statistics = [clip_statistics(data.cache.waveform(clip_id), front_end) for clip_id in clip_ids]
    rows = [*(f"mfcc {number}" for number in range(FEATURES.n_mfcc)), "level"]
    rows += [f"change of {row}" for row in rows]
    names = [f"{statistic} {row}" for statistic in STATISTICS for row in rows]
    seconds = np.array([data.cache.durations[clip_id] for clip_id in clip_ids])
    found = ControlFeatures(
        pd.DataFrame({"seconds": seconds, "log_seconds": np.log(seconds)}, index=index),
        pd.DataFrame(np.array(statistics), columns=names, index=index),
    )
    if known is None:
        return found
    return ControlFeatures(pd.concat([known.duration, found.duration]), pd.concat([known.mfcc, found.mfcc]))


def clip_statistics(waveform: Waveform, front_end: FrontEnd) -> Array:
    """Mean, standard deviation, minimum and maximum over time of a clip's MFCC and level, and of their changes.

    Args:
        waveform: samples [T] of the whole clip.
        front_end: gives M MFCC of each frame.

    Returns:
        ``[4 * 2 * (M + 1)]``: a statistic at a time; in each the M MFCC, the level of the frame (root mean square,
        dB of full scale, -100 at least), and the differences of these from the frame before. The first frame's
        differences are 0, so that a clip of one frame has some.
    """
    features = front_end.features
    samples = torch.tensor(waveform).unsqueeze(0)
    half = features.n_fft // 2
    frames = torch.nn.functional.pad(samples, (half, half)).unfold(-1, features.n_fft, features.hop_length)
    level = 10 * frames.square().mean(dim=-1).clamp(min=AMIN).log10()
    rows = torch.cat([front_end(samples)[0, 0], level]).numpy().astype(np.float64)
    rows = np.concatenate([rows, np.diff(rows, axis=1, prepend=rows[:, :1])])
    return np.concatenate([rows.mean(axis=1), rows.std(axis=1), rows.min(axis=1), rows.max(axis=1)])


def control_tables(
    data: EmotionDataModule, subset: str, features: ControlFeatures | None = None
) -> dict[str, pd.DataFrame]:
    """Train every control on the training clips of ``data``, and let it predict another subset.

    Args:
        data: after ``setup``.
        subset: the evaluated clips: ``test``, or ``val`` under the random protocol.
        features: of :func:`control_features`, of these clips at least; None computes them.

    Returns:
        Control, one of :data:`CONTROLS`, to its predictions table. The majority class gives each class its share of
        the training clips; of equally frequent classes it predicts the first. The control of permuted labels has
        :data:`PERMUTATIONS` rows a clip, told apart by the column ``seed``.

    Raises:
        EmolightError: the split has no clips in one of the two subsets, or training clips of one class only.
    """
    train, evaluated = data.subset("train"), data.subset(subset)
    protocol = data.split["protocol"].iloc[0]
    for name, rows in (("train", train), (subset, evaluated)):
        if not len(rows):
            raise EmolightError(f"Split '{protocol}' has no {name} clips.", "Evaluate val, or change the protocol.")
    codes = {name: number for number, name in enumerate(data.emotions)}
    labels = data.clips["emotion"].iloc[train].map(codes).to_numpy(dtype=np.int64)
    if len(np.unique(labels)) < 2:
        raise EmolightError(
            f"The training clips of split '{protocol}' are all {data.emotions[labels[0]]}.",
            "The controls need training clips of two classes or more: choose another split.",
        )
    features = control_features(data) if features is None else features
    clips, actors = data.clips.iloc[evaluated], data.clips["actor"].to_numpy()[train]
    clip_ids, classes = data.clips["clip_id"], len(data.emotions)

    def table(probabilities: Array) -> pd.DataFrame:
        return predictions_table(clips, data.emotions, probabilities)

    def fitted(values: pd.DataFrame, targets: Labels) -> pd.DataFrame:
        known, unseen = (values.loc[clip_ids.iloc[rows]].to_numpy() for rows in (train, evaluated))
        return table(_logistic_regression(known, targets, unseen, classes))

    shares = np.bincount(labels, minlength=classes) / len(labels)
    seeds = range(PERMUTATIONS)
    permuted = [fitted(features.mfcc, permute_within(labels, actors, seed)).assign(seed=seed) for seed in seeds]
    return {
        MAJORITY: table(np.tile(shares, (len(clips), 1))),
        DURATION: fitted(features.duration, labels),
        MFCC: fitted(features.mfcc, labels),
        PERMUTED: pd.concat(permuted, ignore_index=True),
    }


def permute_within(labels: Labels, groups: NDArray[np.integer], seed: int) -> Labels:
    """Labels [N] shuffled among the clips of each of the ``groups`` [N]: every group keeps its labels' counts."""
    random = np.random.default_rng(seed)
    permuted = labels.copy()
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        permuted[rows] = labels[random.permutation(rows)]
    return permuted


def _logistic_regression(known: Array, labels: Labels, unseen: Array, classes: int) -> Array:
    """Probabilities ``[E, classes]`` of ``unseen`` [E, F], from ``known`` [N, F]; 0 for a class without labels."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=C, class_weight="balanced", max_iter=1000))
    model.fit(known, labels)
    probabilities = np.zeros((len(unseen), classes))
    probabilities[:, model.classes_] = model.predict_proba(unseen)
    return probabilities
