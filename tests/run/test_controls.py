from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from emolight.data.datamodule import EmotionDataModule
from emolight.errors import EmolightError
from emolight.evaluation.predictions import PREFIX, scores
from emolight.evaluation.statistics import bootstrap
from emolight.models import features as front_ends
from emolight.run.controls import (
    CONTROLS,
    DURATION,
    HOP,
    MAJORITY,
    MFCC,
    N_FFT,
    N_MELS,
    N_MFCC,
    PERMUTATIONS,
    PERMUTED,
    clip_statistics,
    control_features,
    control_tables,
    permute_within,
    score_controls,
)

FEATURES = {"n_fft": N_FFT, "hop_length": HOP, "n_mels": N_MELS, "n_mfcc": N_MFCC}


@pytest.fixture(scope="module")
def folds(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[EmotionDataModule]:
    """The six folds of the synthetic corpus; the first one's batches are shorter than the clips."""
    splits = tmp_path_factory.mktemp("splits")
    found = []
    for fold in range(1, 7):
        data = EmotionDataModule(
            "Synthetic",
            root=str(corpus),
            fold=fold,
            splits_dir=str(splits),
            cache_dir=str(corpus.parent / "cache"),
            duration=0.1,
        )
        data.setup()
        found.append(data)
    return found


@pytest.fixture(scope="module")
def features(folds: list[EmotionDataModule]) -> pd.DataFrame:
    return control_features(folds[0])


@pytest.fixture
def data(folds: list[EmotionDataModule], monkeypatch: pytest.MonkeyPatch) -> EmotionDataModule:
    """The first fold, with clips that a test may change."""
    monkeypatch.setattr(folds[0], "clips", folds[0].clips.copy())
    return folds[0]


def probabilities(table: pd.DataFrame) -> np.ndarray:
    return table.filter(like=PREFIX).to_numpy()


def pooled(
    folds: list[EmotionDataModule], features: pd.DataFrame, names: tuple[str, ...] = CONTROLS
) -> dict[str, pd.DataFrame]:
    tables = [control_tables(data, "test", features) for data in folds]
    return {name: pd.concat([one[name] for one in tables], ignore_index=True) for name in names}


def test_a_clips_statistics_are_those_of_its_frames() -> None:
    waveform = np.random.default_rng(0).normal(0, 0.1, 1100).astype(np.float32)
    front_end = front_ends.MFCC(16000, **FEATURES)
    found = clip_statistics(waveform, front_end).reshape(4, 2, 21)

    padded = np.concatenate([np.zeros(256), waveform, np.zeros(256)])
    frames = [padded[start : start + 512] for start in range(0, 1100 + 1, 256)]
    level = np.array([20 * np.log10(np.sqrt(np.mean(frame**2))) for frame in frames])
    np.testing.assert_allclose(found[:, 0, 20], [level.mean(), level.std(), level.min(), level.max()], rtol=1e-4)
    change = np.array([0, *(level[1:] - level[:-1])])
    expected = [change.mean(), change.std(), change.min(), change.max()]
    np.testing.assert_allclose(found[:, 1, 20], expected, rtol=1e-3, atol=1e-4)

    mfcc = front_end(torch.from_numpy(waveform)[None])[0, 0].numpy()
    np.testing.assert_allclose(found[0, 0, :20], mfcc.mean(axis=1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[3, 0, :20], mfcc.max(axis=1), rtol=1e-4, atol=1e-4)


def test_features_are_finite_and_of_the_whole_clip(data: EmotionDataModule, features: pd.DataFrame) -> None:
    assert features.index.tolist() == data.clips["clip_id"].tolist()
    assert features.columns.is_unique
    assert np.isfinite(features.to_numpy()).all()
    clip_id = data.clips["clip_id"].iloc[7]
    whole = data.cache.waveform(clip_id)
    assert len(whole) > data.length
    assert features.loc[clip_id, "seconds"] == pytest.approx(len(whole) / 16000)
    assert features.loc[clip_id, "log_seconds"] == pytest.approx(np.log(len(whole) / 16000))
    expected = clip_statistics(whole, front_ends.MFCC(16000, **FEATURES))
    np.testing.assert_allclose(features.loc[clip_id].iloc[2:], expected, rtol=1e-6)


def test_shortest_clip_of_one_frame_has_features() -> None:
    waveform = np.full(50, 0.1, dtype=np.float32)
    assert np.isfinite(clip_statistics(waveform, front_ends.MFCC(1000, **{**FEATURES, "n_mels": 20}))).all()


def test_tables_hold_the_evaluated_clips(data: EmotionDataModule, features: pd.DataFrame) -> None:
    for subset in ("val", "test"):
        tables = control_tables(data, subset, features)
        expected = data.clips.iloc[data.subset(subset)]
        assert tuple(tables) == CONTROLS
        for name, table in tables.items():
            np.testing.assert_allclose(probabilities(table).sum(axis=1), 1)
            repeated = table.groupby("seed") if name == PERMUTED else [(0, table)]
            assert len(list(repeated)) == (PERMUTATIONS if name == PERMUTED else 1)
            for _, rows in repeated:
                assert rows["clip_id"].tolist() == expected["clip_id"].tolist()
                assert rows["label"].tolist() == expected["emotion"].tolist()


def test_features_may_be_in_any_order_and_of_more_clips(data: EmotionDataModule, features: pd.DataFrame) -> None:
    more = pd.concat([features.sample(frac=1, random_state=0), features.iloc[:3].set_axis(["a", "b", "c"])])
    found, expected = (control_tables(data, "test", one) for one in (more, features))
    for name in CONTROLS:
        pd.testing.assert_frame_equal(found[name], expected[name])


def test_features_of_folds_with_other_clips_are_added_to_the_known(
    data: EmotionDataModule, features: pd.DataFrame
) -> None:
    both = control_features(data, features.iloc[::2])
    pd.testing.assert_frame_equal(both.loc[features.index], features)
    assert control_features(data, both) is both


def test_majority_predicts_the_most_frequent_training_class(data: EmotionDataModule, features: pd.DataFrame) -> None:
    train = data.subset("train")
    emotions = np.array(data.classes)
    data.clips["emotion"] = "calm"  # the other subsets must not count
    data.clips.loc[train, "emotion"] = emotions[np.arange(len(train)) % 5]
    data.clips.loc[train[:2], "emotion"] = "angry"
    counts = [list(data.clips["emotion"].iloc[train]).count(name) for name in emotions]
    table = control_tables(data, "test", features)[MAJORITY]
    assert set(table["prediction"]) == {"angry"}
    assert emotions[np.argmax(counts)] == "angry"
    np.testing.assert_allclose(probabilities(table), np.tile(np.array(counts) / len(train), (len(table), 1)))
    assert scores(table)["accuracy"] == 0


def test_durations_that_tell_are_learned(data: EmotionDataModule, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    mean = {"calm": 4.0, "happy": 2.0, "sad": 2.8, "angry": 1.0, "fearful": 1.4}
    clips = zip(data.clips["clip_id"], data.clips["emotion"], strict=True)
    durations = {clip_id: mean[emotion] * np.exp(random.normal(0, 0.02)) for clip_id, emotion in clips}
    monkeypatch.setattr(data.cache, "durations", durations)
    assert scores(control_tables(data, "test")[DURATION])["uar"] > 0.9


def test_mfcc_statistics_beat_chance_and_permuted_labels_do_not(
    folds: list[EmotionDataModule], features: pd.DataFrame
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a fit that does not converge
        tables = pooled(folds, features)
    assert bootstrap(tables[MFCC], "speaker", 500)["uar"].low > 0.4
    assert abs(scores(tables[PERMUTED])["uar"] - 0.2) < 0.05


def test_a_control_of_several_seeds_is_scored_by_their_mean(data: EmotionDataModule, features: pd.DataFrame) -> None:
    tables = control_tables(data, "test", features)
    rows = {row["name"]: row for row in score_controls(tables)}
    assert tuple(rows) == CONTROLS
    uars = [scores(rows.drop(columns="seed"))["uar"] for _, rows in tables[PERMUTED].groupby("seed")]
    assert rows[PERMUTED]["uar"] == pytest.approx(np.mean(uars))
    assert len(uars) == PERMUTATIONS
    for row in rows.values():
        assert row["uar_low"] <= row["uar"] + 1e-9
        assert row["uar"] <= row["uar_high"] + 1e-9


def test_permuted_labels_land_at_chance_where_labels_can_be_learned(folds: list[EmotionDataModule]) -> None:
    clips = folds[0].clips
    random = np.random.default_rng(0)
    values = random.normal(size=(len(clips), 20))
    values[:, :5] += 1.5 * np.eye(5)[clips["emotion"].map(folds[0].classes.index)]
    simulated = pd.DataFrame(values, index=clips["clip_id"]).assign(seconds=1.0, log_seconds=0.0)
    tables = pooled(folds, simulated, (MFCC, PERMUTED))
    low, high = bootstrap(tables[PERMUTED], "speaker", 1000)["uar"]
    assert low < 0.2 < high < 0.3
    assert bootstrap(tables[MFCC], "speaker", 1000)["uar"].low > 0.4


def test_permutation_keeps_each_speakers_label_counts() -> None:
    random = np.random.default_rng(0)
    labels, speakers = random.integers(0, 5, 300), random.integers(1, 8, 300)
    before = labels.copy()
    permuted = permute_within(labels, speakers, seed=0)
    for speaker in np.unique(speakers):
        mine = speakers == speaker
        assert np.bincount(permuted[mine], minlength=5).tolist() == np.bincount(labels[mine], minlength=5).tolist()
        assert (permuted[mine] != labels[mine]).mean() > 0.5
    assert labels.tolist() == before.tolist()
    assert permuted.tolist() == permute_within(labels, speakers, seed=0).tolist()
    assert permuted.tolist() != permute_within(labels, speakers, seed=1).tolist()


def test_where_each_speaker_has_one_emotion_there_is_nothing_to_permute(
    data: EmotionDataModule, features: pd.DataFrame
) -> None:
    """As of sex: the labels would stay as they are, and what they teach would be called chance."""
    data.clips["emotion"] = [data.classes[int(speaker) % 5] for speaker in data.clips["speaker"]]
    assert set(control_tables(data, "test", features)) == {*CONTROLS} - {PERMUTED}


def test_nothing_of_the_other_clips_enters_training(data: EmotionDataModule, features: pd.DataFrame) -> None:
    before = control_tables(data, "test", features)
    others = np.concatenate([data.subset("val"), data.subset("test")])
    data.clips.loc[others, "emotion"] = data.clips["emotion"].iloc[others[::-1]].to_numpy()
    changed = features.copy()
    spared = data.clips["clip_id"].iloc[data.subset("test")[0]]
    changed.loc[data.clips["clip_id"].iloc[others].drop(data.subset("test")[0])] += 100.0
    after = control_tables(data, "test", changed)
    for name in CONTROLS:
        assert before[name]["label"].tolist() != after[name]["label"].tolist()
        kept = [probabilities(tables[name][tables[name]["clip_id"] == spared]) for tables in (before, after)]
        np.testing.assert_allclose(*kept, atol=1e-12)


def test_a_class_without_training_clips_has_probability_0(data: EmotionDataModule, features: pd.DataFrame) -> None:
    train = data.subset("train")
    data.clips.loc[train, "emotion"] = data.clips["emotion"].iloc[train].replace("happy", "sad")
    for table in control_tables(data, "test", features).values():
        assert not table[PREFIX + "happy"].any()
        np.testing.assert_allclose(probabilities(table).sum(axis=1), 1)


def test_a_split_that_cannot_be_used_is_named(data: EmotionDataModule, features: pd.DataFrame) -> None:
    data.clips.loc[data.subset("train"), "emotion"] = "sad"
    with pytest.raises(EmolightError, match="of split 'emobox6 fold 1' are all sad"):
        control_tables(data, "test", features)
    data.clips.loc[data.subset("test"), "subset"] = "val"
    with pytest.raises(EmolightError, match="'emobox6 fold 1' has no test clips"):
        control_tables(data, "test", features)
