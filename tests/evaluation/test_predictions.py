from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from emolight.errors import EmolightError
from emolight.evaluation.predictions import (
    class_names,
    confusion,
    group_columns,
    predictions_table,
    read_predictions,
    scores,
    scores_by,
    wilson_interval,
)
from emolight.files import write_table

CLASSES = ("calm", "happy", "sad", "angry", "fearful")


GROUPS = ("sex", "channel", "statement")


def clip_table(labels: list[str], speakers: list[int] | None = None) -> pd.DataFrame:
    """A clip table as a corpus gives it; the speakers are numbers here, and texts in the table."""
    speakers = speakers or [1 + place % 4 for place in range(len(labels))]
    return pd.DataFrame(
        {
            "clip_id": [f"clip-{place:03d}" for place in range(len(labels))],
            "path": [f"folder/clip-{place:03d}.wav" for place in range(len(labels))],
            "emotion": labels,
            "speaker": [f"{speaker:02d}" for speaker in speakers],
            "sex": ["male" if speaker % 2 else "female" for speaker in speakers],
            "channel": [("speech", "song")[place % 2] for place in range(len(labels))],
            "statement": [1 + place // 2 % 2 for place in range(len(labels))],
            "repetition": 2,
        }
    )


def table_of(
    labels: list[str], predicted: list[str], classes: tuple[str, ...] = CLASSES, speakers: list[int] | None = None
) -> pd.DataFrame:
    probabilities = np.full((len(labels), len(classes)), 0.1)
    probabilities[np.arange(len(labels)), [classes.index(name) for name in predicted]] = 1.1 - 0.1 * len(classes)
    return predictions_table(clip_table(labels, speakers), classes, probabilities, GROUPS)


@pytest.fixture
def table() -> pd.DataFrame:
    """60 random clips, about half of them right."""
    generator = np.random.default_rng(0)
    labels = [str(name) for name in generator.choice(CLASSES, 60, p=(0.1, 0.2, 0.4, 0.2, 0.1))]
    guesses = [str(name) for name in generator.choice(CLASSES, 60)]
    right = generator.random(60) < 0.5
    return table_of(labels, [a if same else b for a, b, same in zip(labels, guesses, right, strict=True)])


def test_table_pairs_each_clip_with_its_probabilities_and_sorts_by_clip_id() -> None:
    clips = clip_table(["sad", "calm", "angry"]).iloc[[2, 0, 1]]
    probabilities = np.array([[0.1, 0.0, 0.2, 0.7, 0.0], [0.2, 0.2, 0.5, 0.1, 0.0], [0.3, 0.4, 0.1, 0.1, 0.1]])
    found = predictions_table(clips, CLASSES, probabilities.astype(np.float32), ("sex", "channel", "absent"))
    assert found["clip_id"].tolist() == ["clip-000", "clip-001", "clip-002"]
    assert found["label"].tolist() == ["sad", "calm", "angry"]
    assert found["prediction"].tolist() == ["sad", "happy", "angry"]
    np.testing.assert_allclose(found.filter(like="prob_").to_numpy(), probabilities[[1, 2, 0]], rtol=1e-6)
    assert found.columns.tolist() == [
        *("clip_id", "speaker", "sex", "channel", "label", "prediction"),
        *(f"prob_{name}" for name in CLASSES),
    ]


def test_groups_are_text_and_what_a_corpus_does_not_know_is_empty(tmp_path: Path) -> None:
    clips = clip_table(["sad", "calm"]).assign(sex=[None, "male"], age=[30, 4])
    table = predictions_table(clips, ("calm", "sad"), np.full((2, 2), 0.5), ("sex", "age"))
    assert group_columns(table.assign(fold=1, seed=0)) == ["sex", "age"]
    assert table[["speaker", "sex", "age"]].to_numpy().tolist() == [["01", "", "30"], ["02", "male", "4"]]
    write_table(tmp_path / "table.csv", table)
    pd.testing.assert_frame_equal(read_predictions(tmp_path / "table.csv"), table, check_dtype=False)


def test_table_refuses_probabilities_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 5\), expected \(3, 5\)"):
        predictions_table(clip_table(["sad"] * 3), CLASSES, np.full((2, 5), 0.2))


def test_table_refuses_an_emotion_that_is_no_class() -> None:
    with pytest.raises(ValueError, match="not a class: disgust"):
        predictions_table(clip_table(["sad", "disgust"]), CLASSES, np.full((2, 5), 0.2))


def test_class_names_keep_class_order(table: pd.DataFrame) -> None:
    assert class_names(table) == list(CLASSES)


def test_scores_agree_with_scikit_learn(table: pd.DataFrame) -> None:
    found = scores(table)
    label, prediction = table["label"], table["prediction"]
    assert found["uar"] == pytest.approx(metrics.balanced_accuracy_score(label, prediction))
    assert found["accuracy"] == pytest.approx((label == prediction).mean())
    assert found["macro_f1"] == pytest.approx(
        np.mean([metrics.f1_score(label == name, prediction == name) for name in CLASSES])
    )
    assert list(found["recall"]) == list(CLASSES)
    for name, recall in found["recall"].items():
        assert recall == pytest.approx((prediction[label == name] == name).mean())
    assert found["n"] == 60


def test_scores_by_hand_with_unequal_classes() -> None:
    found = scores(table_of(["calm"] * 4 + ["sad"], ["calm", "calm", "calm", "sad", "sad"], ("calm", "sad")))
    assert found["uar"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["accuracy"] == pytest.approx(4 / 5)
    assert found["macro_f1"] == pytest.approx((6 / 7 + 2 / 3) / 2)


def test_uar_ignores_a_class_that_is_predicted_but_never_occurs() -> None:
    found = scores(table_of(["calm", "calm", "sad"], ["calm", "angry", "sad"]))
    assert found["recall"] == {"calm": 0.5, "sad": 1.0}
    assert found["uar"] == pytest.approx(0.75)


def test_scores_are_plain_numbers(table: pd.DataFrame) -> None:
    found = scores(table)
    assert {type(found[name]) for name in ("uar", "accuracy", "macro_f1")} == {float}
    assert {type(value) for value in found["recall"].values()} == {float}


@pytest.mark.parametrize("column", ["speaker", "sex", "channel", "statement"])
def test_scores_by_group_equal_the_scores_of_its_clips(table: pd.DataFrame, column: str) -> None:
    found = scores_by(table, column)
    assert found.columns.tolist() == ["n", "uar", "accuracy"]
    assert found.index.tolist() == sorted(set(table[column]))
    assert found["n"].sum() == len(table)
    for group, row in found.iterrows():
        alone = scores(table[table[column] == group])
        assert row.to_dict() == {name: alone[name] for name in ("n", "uar", "accuracy")}


def test_groups_that_are_numbers_stand_by_their_value_and_before_texts() -> None:
    table = table_of(["calm"] * 5, ["calm"] * 5).assign(speaker=["10", "9", "b", "1001", "a"])
    assert scores_by(table, "speaker").index.tolist() == ["9", "10", "1001", "a", "b"]


def test_every_score_of_several_seeds_is_their_mean() -> None:
    """One quantity everywhere; the ensemble of the seeds would have every clip right."""
    labels, n = ["calm", "sad"] * 6, 12
    seeds = []
    for seed in range(3):
        sure = np.where(np.arange(n) % 3 == seed, 0.4, 0.9)  # each seed has other clips wrong
        right = np.array([name == "calm" for name in labels])
        calm = np.where(right, sure, 1 - sure)
        seeds.append(predictions_table(clip_table(labels), ("calm", "sad"), np.stack([calm, 1 - calm], 1)))
    table = pd.concat([one.assign(seed=seed) for seed, one in enumerate(seeds)], ignore_index=True)
    found, each = scores(table), [scores(one) for one in seeds]
    assert found["n"] == n
    for name in ("uar", "accuracy", "macro_f1"):
        assert found[name] == pytest.approx(np.mean([one[name] for one in each]))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["recall"]["sad"] == pytest.approx(np.mean([one["recall"]["sad"] for one in each]))
    np.testing.assert_allclose(confusion(table), sum(confusion(one) for one in seeds) / 3)
    by_speaker = pd.concat([scores_by(one, "speaker") for one in seeds]).groupby(level=0).mean()
    pd.testing.assert_frame_equal(scores_by(table, "speaker"), by_speaker, check_dtype=False)


def test_confusion_has_true_rows_and_predicted_columns_in_class_order() -> None:
    counts = confusion(table_of(["sad", "sad", "calm"], ["sad", "calm", "calm"], ("sad", "happy", "calm")))
    assert counts.tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 1]]


def test_wilson_interval_of_published_figures() -> None:
    # The article's MFCC result: 65.94 % of 320 clips, ±5.2.
    low, high = wilson_interval(211, 320)
    assert (high - low) / 2 == pytest.approx(0.052, abs=5e-4)
    # Newcombe 1998, Statistics in Medicine 17:857, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for correct, n, expected in ((81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605))):
        assert wilson_interval(correct, n) == pytest.approx(expected, abs=1e-4)
    for correct, n, expected in ((0, 20, (0.0, 0.1611)), (1, 29, (0.0061, 0.1718))):
        assert wilson_interval(correct, n) == pytest.approx(expected, abs=1e-4)


def test_wilson_interval_stays_between_0_and_1() -> None:
    assert wilson_interval(0, 1)[0] == 0
    assert wilson_interval(1, 1)[1] == 1
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_written_table_comes_back(tmp_path: Path, table: pd.DataFrame) -> None:
    path = tmp_path / "run" / "predictions_val.csv"
    write_table(path, table)
    pd.testing.assert_frame_equal(read_predictions(path), table, atol=1e-6, rtol=0, check_dtype=False)
    assert [found.name for found in path.parent.iterdir()] == ["predictions_val.csv"]


def test_written_bytes_are_utf8_with_six_decimals_and_plain_line_ends(tmp_path: Path) -> None:
    classes = ("fröhlich", "sad")
    path = tmp_path / "predictions.csv"
    write_table(path, predictions_table(clip_table(["sad"]), classes, np.array([[1 / 3, 2 / 3]])))
    assert path.read_bytes().decode("utf-8") == (
        "clip_id,speaker,label,prediction,prob_fröhlich,prob_sad\nclip-000,01,sad,sad,0.333333,0.666667\n"
    )
    assert class_names(read_predictions(path)) == list(classes)


def test_reading_takes_windows_line_ends_another_order_and_blank_lines(tmp_path: Path, table: pd.DataFrame) -> None:
    path = tmp_path / "predictions.csv"
    text = table.iloc[::-1].to_csv(index=False, lineterminator="\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n\r\n")
    pd.testing.assert_frame_equal(read_predictions(path), table, atol=1e-6, rtol=0, check_dtype=False)


def test_reading_keeps_seeds_and_folds_as_numbers(tmp_path: Path, table: pd.DataFrame) -> None:
    many = pd.concat([table.assign(fold=2, seed=seed) for seed in (10, 9)])
    write_table(tmp_path / "predictions.csv", many)
    found = read_predictions(tmp_path / "predictions.csv")
    assert found["seed"].tolist()[:4] == [9, 10, 9, 10]
    assert set(found["fold"]) == {2}


FIRST = "clip-000,1,male,sad,calm,0.7,0.3"
SECOND = "clip-001,2,female,calm,calm,0.6,0.4"
HEADER = "clip_id,speaker,sex,label,prediction,prob_calm,prob_sad"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((HEADER.replace("label,", ""), FIRST[:-4]), "line 1: no column label"),
        ((HEADER.replace("prob_calm,prob_sad", "a,b"), FIRST), "line 1: 0 columns prob_<emotion>"),
        ((HEADER,), "line 1: there is no clip"),
        ((), "line 1: no column clip_id"),
        (
            (HEADER, FIRST, SECOND.replace("calm,calm", "clam,calm")),
            "line 3: unknown label 'clam'.\nDid you mean 'calm'?",
        ),
        ((HEADER, FIRST.replace("sad,calm", "sad,{x}")), "line 2: unknown prediction '{x}'"),
        ((HEADER, FIRST, SECOND, FIRST), "line 4: clip 'clip-000' stands twice"),
        ((HEADER, FIRST, "", FIRST), "line 4: clip 'clip-000' stands twice"),
        ((HEADER, FIRST.replace("0.7", "nan")), "line 2: prob_calm is 'nan'"),
        ((HEADER, FIRST.replace("0.7", "inf")), "line 2: prob_calm is 'inf'"),
        ((HEADER, FIRST, SECOND.replace("0.4", "")), "line 3: prob_sad is ''"),
        ((HEADER, FIRST.replace("0.7,0.3", "1.2,-0.2")), "line 2: prob_calm is '1.2'"),
        ((HEADER, FIRST.replace("0.7", "0.702")), "line 2: the probabilities sum to 1.002000"),
        ((HEADER, FIRST.replace("clip-000,1", "clip-000,")), "line 2: there is no speaker"),
        ((HEADER + ",seed", FIRST + ",one"), "line 2: seed 'one' is no whole number"),
        ((HEADER, FIRST, SECOND + ",0"), "Expected 7 fields in line 3, saw 8"),
        ((HEADER, FIRST + ",0"), "line 2 has more fields than the header"),
        ((HEADER, FIRST[:29]), "line 2: prob_sad is ''"),
    ],
)
def test_reading_refuses_with_the_line_number(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(EmolightError) as caught:
        read_predictions(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_reading_accepts_sums_within_the_rounding(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(f"{HEADER}\n{FIRST.replace('0.7', '0.7009')}\n", encoding="utf-8")
    assert len(read_predictions(path)) == 1


def test_reading_names_a_missing_file_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(EmolightError, match=r"no predictions file .*absent\.csv"):
        read_predictions(tmp_path / "absent.csv")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(EmolightError, match=r"image\.png is not a CSV file"):
        read_predictions(tmp_path / "image.png")
