"""Which clips are meant: tasks, labels renamed, filters, several corpora; and what a reader must know of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from emolight.data.corpora import NEMO, RAVDESS, Table
from emolight.data.corpora.ravdess import ARTICLE, EMOTIONS
from emolight.data.corpus import UNKNOWN, Corpus, Discovery
from emolight.data.datamodule import EmotionDataModule
from emolight.data.selection import Choice, Selection, corpora_of, select
from emolight.errors import EmolightError

REAL_NEMO = Path(__file__).resolve().parents[3] / "shared" / "nemo"


class Published(RAVDESS):
    """RAVDESS without its files."""

    reads = 0

    def find(self, root: str | Path, strict: bool = True) -> Discovery:
        self.reads += 1
        clips = self.expected()
        assert clips is not None
        return Discovery(clips)


def of(corpus: Corpus | list[Corpus], **choice: Any) -> Selection:
    corpora = corpus if isinstance(corpus, list) else [corpus]
    return select([(one, Path("root")) for one in corpora], Choice(**choice))


def test_the_labels_may_be_another_column_of_the_clips_of_the_task() -> None:
    sung = of(Published(), label="channel")
    assert (sung.task, sung.classes, len(sung.clips)) == ("article channel", ["song", "speech"], 1880)
    sexes = of(Published(), task="all", label="sex")
    assert (sexes.task, set(sexes.clips["emotion"])) == ("all-female-male sex", {"female", "male"})
    # Five emotions of speech are not the full task, which has eight of speech.
    assert of(Published(), label="sex", filter={"channel": ["speech"]}).task == "article-female-male-speech sex"
    assert of(
        Published(), label="channel", filter={"channel": ["song", "speech"]}, label_map={"song": "sung"}
    ).classes == ["sung", "speech"]
    assert sung.notes == []
    words = Rows("mine", "sad 1", "sad 2", "happy 1", "happy 2", "sad 3", size=["big", "small", "", "big", "NaN"])
    found = of(words, label="size")
    assert (found.classes, found.clips["clip_id"].tolist()) == (["big", "small"], ["0", "1", "3"])
    assert (found.left_out, found.notes) == ({"no size": 2}, ["2 files passed over: no size"])
    with pytest.raises(
        EmolightError, match=r"data.label is 'sise', which is no column of mine with labels.\nDid you mean 'size'"
    ):
        of(words, label="sise")
    with pytest.raises(EmolightError, match="no column of mine with labels"):
        of(words, label="speaker")


class Rows(Corpus):
    """A corpus of (emotion, speaker) pairs."""

    def __init__(self, name: str, *rows: str, **columns: list[Any]) -> None:
        self.name = name  # type: ignore[misc]
        fields = [row.split() for row in rows]
        self.clips = pd.DataFrame(
            {"clip_id": [f"{n}" for n in range(len(rows))], "path": [f"{n}.wav" for n in range(len(rows))]}
            | {"emotion": [field[0] for field in fields], "speaker": [field[1] for field in fields]}
            | columns
        )

    def find(self, root: str | Path, strict: bool = True) -> Discovery:
        return Discovery(self.clips)


def test_tasks_are_emotions_and_a_filter() -> None:
    article = of(Published())
    assert (article.task, article.classes, len(article.clips)) == ("article", list(ARTICLE), 1880)
    assert article.left_out == {"clips of RAVDESS outside of the task": 2452 - 1880}
    assert article.notes == []
    assert article.clips["file"][0] == str(Path("root", article.clips["path"][0]).absolute())
    full = of(Published(), task="full")
    assert (full.task, full.classes, len(full.clips)) == ("full", list(EMOTIONS), 1440)
    every = of(Published(), task="all")
    assert (every.classes, len(every.clips)) == (list(EMOTIONS), 2452)
    some = of(Published(), emotions=["sad", "happy"], filter={"channel": ["song"]})
    assert (some.task, some.classes) == ("sad-happy-song", ["sad", "happy"])  # the order that is asked for
    assert of(Published(), emotions=list(EMOTIONS), filter={"channel": "speech"}).task == "full"


def test_any_column_filters() -> None:
    clips = of(Published(), filter={"speaker": ["01", "02"], "intensity": ["strong"]}).clips
    assert set(clips["speaker"]) == {"01", "02"}
    assert set(clips["intensity"]) == {"strong"}
    mine = Rows("mine", "sad a", "sad b", "happy b", age=[20, 30, 30])
    assert list(of(mine, filter={"age": [30]}).clips["clip_id"]) == ["1", "2"]


def test_labels_are_renamed_within_the_task() -> None:
    renamed = of(Published(), label_map={"calm": "neutral", "fearful": "neutral"})
    assert renamed.classes == ["neutral", "happy", "sad", "angry"]
    assert len(renamed.clips) == 1880  # and none of the clips that were published as neutral
    assert renamed.task == "neutral-happy-sad-angry"
    both = of(Published(), label_map={"calm": "neutral"}, emotions=["neutral", "happy"])
    assert (both.clips["emotion"] == "neutral").sum() > (both.clips["emotion"] == "happy").sum()
    numbers = EmotionDataModule(emotions=[0, "happy"], label_map={0: "sad"}).choice  # type: ignore[dict-item]
    assert (numbers.emotions, numbers.label_map) == (["0", "happy"], {"0": "sad"})
    swapped = of(Published(), label_map={"sad": "happy", "happy": "sad"})
    assert (swapped.task, len(swapped.clips)) == ("calm-sad-happy-angry-fearful", 1880)
    assert swapped.clips["emotion"].ne(of(Published()).clips["emotion"]).sum() == 2 * 376


def test_rows_are_filtered_by_their_own_labels_and_renamed_then() -> None:
    some = of(Published(), label_map={"calm": "neutral"}, filter={"emotion": ["calm", "sad"]})
    assert (some.classes, len(some.clips)) == (["neutral", "sad"], 2 * 376)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"task": "articel"}, "RAVDESS has no task 'articel'.\nDid you mean 'article'"),
        ({"emotions": ["hapy", "sad"]}, "No clip is left of emotion 'hapy', by data.emotions"),
        ({"emotions": ["sad", "happy", "sad"]}, "names one twice: sad, happy, sad"),
        ({"emotions": ["sad"]}, "The classes are [sad]; a classifier needs at least two"),
        ({"emotions": []}, "emotions none"),
        ({"emotions": ["disgust", "sad"], "filter": {"channel": ["song"]}}, "No clip is left of emotion 'disgust'"),
        ({"filter": {"chanel": ["song"]}}, "'chanel', which is no column of RAVDESS.\nDid you mean 'channel'"),
        ({"filter": {"channel": ["spech"]}}, "no clip of RAVDESS has channel 'spech'.\nDid you mean 'speech'"),
        ({"task": "full", "filter": {"speaker": ["18"], "channel": ["song"]}}, "No clip of RAVDESS is left: emo"),
        ({"label_map": {"hapy": "joy"}}, "data.label_map renames 'hapy', which no clip has.\nDid you mean 'happy'"),
    ],
)
def test_what_cannot_be_meant_is_named(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(EmolightError) as caught:
        of(Published(), **choice)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("sad a", "Sad b", "happy c"), "The labels of mine 'Sad' and 'sad' differ in writing only."),
        (("very-sad a", "very_sad b", "happy c"), "The labels of mine 'very-sad' and 'very_sad' differ"),
        (("fro\u0308hlich a", "fr\u00f6hlich b", "sad c"), "differ in writing only"),
        (("sad a", "happy A", "sad b"), "The speakers of mine 'a' and 'A' differ in writing only."),
        (("sad 1", "happy 01", "sad 2"), "The speakers of mine '1' and '01' differ in writing only."),
        (("sad 1", "happy 1.0", "sad 2"), "The speakers of mine '1' and '1.0' differ in writing only."),
    ],
)
def test_what_is_written_in_two_ways_is_refused(rows: tuple[str, ...], message: str) -> None:
    with pytest.raises(EmolightError) as caught:
        of(Rows("mine", *rows))
    assert message in str(caught.value)


def test_signs_that_tell_labels_apart_count() -> None:
    assert sorted(of(Rows("mine", "-1 a", "1 b", "0 c")).classes) == ["-1", "0", "1"]


def test_labels_that_are_written_in_two_ways_can_be_mapped_or_left_out() -> None:
    mine = Rows("mine", "sad a", "Sad b", "happy c", "angry d")
    assert sorted(of(mine, label_map={"Sad": "sad"}).classes) == ["angry", "happy", "sad"]
    assert of(mine, emotions=["happy", "angry"]).classes == ["happy", "angry"]
    with pytest.raises(EmolightError, match="'Sad' and 'sad'"):
        of(mine, emotions=["happy", "sad"])  # else half of the sad clips were left out without a word
    assert of([mine, Rows("other", "Happy e", "sad f")], label_map={"Sad": "sad", "Happy": "happy"}).classes
    with pytest.raises(EmolightError, match="'Happy' and 'happy'"):
        of([Rows("mine", "happy c", "angry d"), Rows("other", "Happy e", "sad f")])


def test_each_table_is_read_once() -> None:
    corpus = Published()
    of(corpus, label_map={"calm": "neutral"}, scored=True, emotions=["neutral", "happy", "bored"])
    assert corpus.reads == 1


def test_without_speakers_there_are_two_ways_out(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("file,label\na.wav,sad\nb.wav,happy\n")
    for name in "ab":
        (tmp_path / f"{name}.wav").touch()
    places = corpora_of(str(tmp_path / "mine.csv"), None)
    with pytest.raises(EmolightError, match=r"no column `speaker`.*\nAdd the column; or .*--data.speakers unknown"):
        select(places, Choice())
    assert set(select(places, Choice(speakers="unknown")).clips["speaker"]) == {UNKNOWN}
    known = of(Rows("mine", "sad a", "happy b"), speakers="unknown", filter={"speaker": ["a", "b"]})
    assert set(known.clips["speaker"]) == {UNKNOWN}


def test_several_corpora_keep_their_names_speakers_and_columns() -> None:
    one = Rows("one", "sad 1", "happy 2", sex=["male", "female"])
    two = Rows("two", "joy 1", "calm unknown", "sad 3", channel=["speech", "speech", "song"])
    both = of([one, two], label_map={"joy": "happy"}, emotions=["happy", "sad"], filter={"channel": ["speech"]})
    columns = ["clip_id", "emotion", "speaker", "corpus", "sex", "channel"]
    assert both.clips[columns].to_numpy().tolist() == [
        ["one/0", "sad", "one/1", "one", "male", ""],
        ["one/1", "happy", "one/2", "one", "female", ""],
        ["two/0", "happy", "two/1", "two", "", "speech"],
    ]
    assert (both.corpus.name, both.classes) == ("one + two", ["happy", "sad"])
    assert both.task == "happy-sad + happy-sad-speech"
    assert both.corpus.groups == ("sex", "corpus")
    assert list(of([two, one]).clips["speaker"]) == ["one/1", "one/2", "two/1", UNKNOWN, "two/3"]
    with pytest.raises(EmolightError, match="Two corpora have the name 'one'"):
        of([one, one])


def test_each_corpus_has_its_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert [str(root) for _, root in corpora_of(["RAVDESS", "~/x/mine.csv"], None)] == ["data/ravdess", "/home/me/x"]
    assert [str(root) for _, root in corpora_of(["RAVDESS", "mine.csv"], ["~/a", None])] == ["/home/me/a", "."]
    assert corpora_of(Path("mine.csv"), Path("b"))[0][1] == Path("b")
    for root in ("a", ["a"], ["a", "b", "c"]):
        with pytest.raises(EmolightError, match="for 2 corpora"):
            corpora_of(["RAVDESS", "NEMO"], root)


def test_a_trained_model_scores_the_labels_that_both_know() -> None:
    other = Rows("other", "sad a", "bored a", "happy b")
    scored = of(other, emotions=["angry", "happy", "sad"], scored=True)
    assert (scored.classes, len(scored.clips)) == (["angry", "happy", "sad"], 2)
    assert scored.notes == [
        "left out, since the model does not know them: clips labelled bored",
        "never predicted, since no clip is labelled so: angry",
    ]
    with pytest.raises(EmolightError, match=r"other has sad alone, so that every clip would be right\.\nIts"):
        of(other, emotions=["angry", "sad"], scored=True)
    with pytest.raises(EmolightError, match=r"Its labels: bored, happy, sad\..*data\.label_map"):
        of(other, emotions=["anger", "joy"], scored=True)


def test_what_is_missing_passed_over_or_compressed_is_said(tmp_path: Path) -> None:
    """A copy of which half the speakers were compressed: all of it is used, and it is said (cases/21)."""
    for actor in range(1, 5):
        for emotion in (2, 3):
            path = tmp_path / f"03-01-0{emotion}-01-01-01-0{actor}.{'mp3' if actor > 2 else 'wav'}"
            soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 8000), 16000)
    (tmp_path / "talk.m4a").touch()
    selection = select([(RAVDESS(), tmp_path)], Choice(emotions=["calm", "happy"]))
    assert len(selection.clips) == 8
    published = len(of(Published(), emotions=["calm", "happy"]).clips)
    assert selection.notes == [
        f"{published - 8} published clips of RAVDESS are missing under '{tmp_path}' (audit lists them)",
        "1 files passed over: .m4a file, which cannot be read",
        "some files of RAVDESS are compressed with loss and others are not: 4 × .wav, 4 × .mp3",
    ]


@pytest.mark.parametrize(("speakers", "told"), [(12, True), (3, False)])
def test_a_speaker_a_clip_is_told(speakers: int, told: bool, tmp_path: Path) -> None:
    """A column that numbers the clips would make every split look independent of the speaker."""
    rows = [(f"{number}.wav", ("happy", "sad")[number % 2], number % speakers) for number in range(12)]
    for path, *_ in rows:
        soundfile.write(tmp_path / path, np.zeros(8000), 16000)
    pd.DataFrame(rows, columns=["path", "emotion", "speaker"]).to_csv(tmp_path / "mine.csv", index=False)
    notes = select([(Table(str(tmp_path / "mine.csv")), tmp_path)], Choice()).notes
    assert any("12 speakers of 12 clips" in note for note in notes) == told


@pytest.mark.skipif(not REAL_NEMO.is_dir(), reason="a part of nEMO stands in ../shared/nemo only")
def test_nemo_by_its_names_and_by_its_table_is_one_corpus() -> None:
    named = select([(NEMO(), REAL_NEMO)], Choice())
    table = select([(Table(str(REAL_NEMO / "nemo.csv")), REAL_NEMO)], Choice(task="all"))
    assert len(named.clips) == len(table.clips) == 1057
    assert list(named.clips["file"]) == list(table.clips["file"])
    assert list(named.clips["speaker"]) == list(table.clips["speaker"])
    assert named.notes == [f"{4481 - 1057} published clips of nEMO are missing under '{REAL_NEMO}' (audit lists them)"]
    assert table.corpus.groups == ("sex", "age")
    assert table.clips["text"].str.contains("ż").any()
