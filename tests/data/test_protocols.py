"""Published folds and those for any corpus, and what a split may call itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd
import pytest

from emolight.data.corpora import RAVDESS
from emolight.data.corpora.ravdess import ARTICLE, PROTOCOLS
from emolight.data.corpus import UNKNOWN, Corpus
from emolight.data.protocols import all_folds, check_label, folds_of, make_split, protocols_of
from emolight.data.splits import ALL_TEST, BEST_EPOCH, INDEPENDENT, LAST_EPOCH, Split
from emolight.errors import EmolightError

RAV = RAVDESS()


class Mine(Corpus):
    name = "mine"


MINE = Mine()


@pytest.fixture(scope="module")
def article() -> pd.DataFrame:
    clips = RAV.expected()
    assert clips is not None
    return clips[clips["emotion"].isin(ARTICLE)]


def people(sexes: str, clips: list[int] | int = 12) -> pd.DataFrame:
    """A clip table of speakers with these sexes and numbers of clips."""
    counts = clips if isinstance(clips, list) else [clips] * len(sexes)
    rows = [
        {"clip_id": f"{who:02d}-{n:03d}", "emotion": ("sad", "happy")[n % 2], "speaker": f"{who:02d}", "sex": sex}
        for who, (sex, count) in enumerate(zip(sexes, counts, strict=True))
        for n in range(count)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_speaker_is_in_two_subsets_and_every_speaker_is_tested_once(protocol: str, article: pd.DataFrame) -> None:
    tested: list[str] = []
    for fold in folds_of(RAV, protocol, article):
        split = make_split(article, RAV, protocol, fold)
        assert split.speaker_independent()
        assert split.meaning == INDEPENDENT
        assert split.selection == BEST_EPOCH
        assert (split.label, split.protocol, split.fold) == (f"{protocol} fold {fold}", protocol, fold)
        assert sum(len(split.clips(name)) for name in ("train", "val", "test")) == len(article)
        tested += split.speakers("test")
    assert sorted(tested) == [f"{actor:02d}" for actor in range(1, 25)]


def test_published_folds_without_a_test_clip_are_left_out(article: pd.DataFrame) -> None:
    songs, women = article[article["channel"] == "song"], article[article["sex"] == "female"]
    assert folds_of(RAV, "loso", songs) == [*range(1, 18), *range(19, 25)]  # actor 18's songs are lost
    with pytest.raises(EmolightError, match=r"has no fold 18\..*\n.* 17, 19, "):
        make_split(songs, RAV, "loso", 18)
    assert make_split(women, RAV, "loso").label == "loso fold 2"


def test_emobox6_test_folds_have_the_published_sizes(article: pd.DataFrame) -> None:
    sizes = {fold: len(make_split(article, RAV, "emobox6", fold).clips("test")) for fold in range(1, 7)}
    assert sizes == {1: 320, 2: 320, 3: 320, 4: 320, 5: 280, 6: 320}


@pytest.mark.parametrize(
    ("sexes", "sizes", "women"),
    [("mf" * 12, [4, 5, 5, 5, 5], [2, 2, 2, 3, 3]), ("ffffmmmmm", [1, 2, 2, 2, 2], [0, 1, 1, 1, 1])],
)
def test_speakers5_balances_speakers_and_sexes_by_seed(sexes: str, sizes: list[int], women: list[int]) -> None:
    clips = people(sexes)
    sex = dict(zip(clips["speaker"], clips["sex"], strict=True))
    seen = set()
    for seed in range(4):
        folds = all_folds(MINE, "speakers5", clips, seed)
        parts = [fold.test for fold in folds.values()]
        assert sorted(speaker for part in parts for speaker in part) == sorted(sex)
        assert sorted(map(len, parts)) == sizes
        assert sorted(sum(sex[who] == "f" for who in part) for part in parts) == women
        assert [fold.val for fold in folds.values()] == parts[1:] + parts[:1]
        assert folds == all_folds(MINE, "speakers5", clips.sample(frac=1, random_state=1), seed)
        seen.add(tuple(parts))
    assert len(seen) == 4


def test_speakers5_balances_clips_where_speakers_say_unequally_much() -> None:
    clips = people("m" * 20, [*range(10, 210, 10)]).drop(columns="sex")
    folds = all_folds(MINE, "speakers5", clips)
    sizes = [clips["speaker"].isin(fold.test).sum() for fold in folds.values()]
    assert max(sizes) - min(sizes) <= 0.1 * len(clips) / 5


def test_speakers5_takes_corpora_into_every_fold() -> None:
    clips = pd.concat([people("m" * 5).assign(corpus="a"), people("m" * 5).assign(corpus="b")])
    clips["speaker"] = clips["corpus"] + "/" + clips["speaker"]
    for fold in all_folds(MINE, "speakers5", clips).values():
        assert Counter(speaker[0] for speaker in fold.test) == {"a": 1, "b": 1}


def test_loso_holds_each_speaker_out_once() -> None:
    clips = people("mfm")
    splits = [make_split(clips, MINE, "loso", fold) for fold in folds_of(MINE, "loso", clips)]
    assert [split.speakers("test") for split in splits] == [["00"], ["01"], ["02"]]
    assert [split.speakers("val") for split in splits] == [["01"], ["02"], ["00"]]
    assert all(split.speaker_independent() for split in splits)


def test_random_holds_320_clips_out_and_follows_its_seed(article: pd.DataFrame) -> None:
    first, again, other = (make_split(article, RAV, "random", seed=seed) for seed in (0, 0, 1))
    assert len(first.clips("val")) == 320
    assert first.clips("test") == []
    assert first.hash == again.hash != other.hash
    assert first.meaning.startswith("speaker-dependent: 24 of 24 speakers of the validation clips are in training")
    assert (first.selection, first.fold) == (LAST_EPOCH, None)
    assert len(make_split(article.head(100), RAV, "random").clips("val")) == 20


def test_a_subset_column_is_the_split_and_judged_by_its_speakers() -> None:
    clips = people("mfmf")
    clips["subset"] = clips["speaker"].map({"00": "train", "01": "train", "02": "val", "03": "test"})
    assert make_split(clips, MINE, "subset").meaning == INDEPENDENT
    shared = clips.assign(subset=clips["subset"].where(clips["clip_id"] != "00-003", "test"))
    split = make_split(shared, MINE, "subset")
    assert (split.speaker_independent("val"), split.speaker_independent("test")) == (True, False)
    assert "1 of 2 speakers of the test clips are in training too" in split.meaning
    for changed, message in (({"val": "test"}, "no clip for 'val'"), ({"val": ""}, "has ''")):
        with pytest.raises(EmolightError, match=message):
            make_split(clips.assign(subset=clips["subset"].replace(changed)), MINE, "subset")
    with pytest.raises(EmolightError, match="needs a column `subset`"):
        make_split(people("mfmf"), MINE, "subset")


def test_unknown_speakers_make_every_split_speaker_dependent() -> None:
    clips = people("mfmfm").assign(speaker=UNKNOWN)
    assert "nobody knows" in make_split(clips, MINE, "random").meaning
    with pytest.raises(EmolightError, match=r"Nobody knows the speakers.*random"):
        make_split(clips, MINE, "speakers5")
    some = people("mfmfm")
    some["speaker"] = some["speaker"].replace("04", UNKNOWN)
    assert not make_split(some, MINE, "speakers5").speaker_independent()


@pytest.mark.parametrize(
    ("protocol", "fold", "message"),
    [
        ("embox6", None, "Did you mean 'emobox6'"),
        ("emobox6", 0, "'emobox6' has no fold 0"),
        ("speakers5", 6, "'speakers5' has no fold 6"),
        ("random", 1, "'random' has no folds"),
    ],
)
def test_unknown_protocols_and_folds_are_named(
    article: pd.DataFrame, protocol: str, fold: int | None, message: str
) -> None:
    with pytest.raises(EmolightError, match=message):
        make_split(article, RAV, protocol, fold)


def test_too_few_speakers_are_told_the_way_out() -> None:
    with pytest.raises(EmolightError, match=r"needs 5 speakers or more; mine has 4.\n.*loso"):
        make_split(people("mfmf"), MINE, "speakers5")
    with pytest.raises(EmolightError, match=r"leaves no clip for 'val'; the corpus has speakers 00, 01"):
        make_split(people("mf"), RAV, "emobox6")
    assert set(protocols_of(MINE)) == {"speakers5", "loso", "random", "subset"}
    assert set(protocols_of(RAV)) == {*PROTOCOLS, "speakers5", "random", "subset"}


def moved(split: Split, speaker: str, subset: str, **changed: Any) -> Split:
    """The split with one of a speaker's clips in another subset."""
    row = split.table.index[split.table["speaker"] == speaker][0]
    table = split.table.copy()
    table.loc[row, "subset"] = subset
    return Split(table, changed.get("label", split.label))


def test_a_split_may_not_call_itself_what_it_is_not(article: pd.DataFrame) -> None:
    published = make_split(article, RAV, "emobox6", 1)
    check_label(published, RAV)
    check_label(Split(published.table, "emobox6 fold 1 trained on song"), RAV)
    check_label(published.without(published.clips("train")[:100]), RAV)
    check_label(moved(published, "05", "test", label="custom"), RAV)
    for split, message in (
        (moved(published, "05", "test"), "speaker 05 in 'test', not in 'train'"),
        (Split(published.table, "emobox6 fold 2"), "has speaker 01 in 'test', not in 'train'"),
        (Split(published.table, "emobox6 fold 9"), "no such fold"),
        (Split(published.table, "emobox6"), "no such fold"),
        (Split(published.table, ALL_TEST), "other subsets"),
    ):
        with pytest.raises(EmolightError, match=message):
            check_label(split, RAV)
    with pytest.raises(EmolightError, match="mine has no such protocol"):
        check_label(published, MINE)
    own = make_split(people("mfmfmf"), MINE, "speakers5", 2, seed=3)
    check_label(own, MINE)
    assert own.label == "speakers5 fold 2 seed 3"
    with pytest.raises(EmolightError, match="in two subsets"):
        check_label(moved(own, own.speakers("train")[0], "test"), MINE)
