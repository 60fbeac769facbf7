"""A split as a file: the same bytes everywhere, one writer, and every mistake of an editor named by its line."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from multiprocessing.synchronize import Barrier
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emolight.data.corpora import RAVDESS
from emolight.data.corpora.ravdess import ARTICLE
from emolight.data.protocols import make_split
from emolight.data.splits import ALL_TEST, COLUMNS, CUSTOM, LAST_EPOCH, SUBSETS, Split, load_or_make
from emolight.errors import EmolightError

FIFTH = "03-01-02-01-01-01-05"
"""The clip in line 6 of a split of the article's task."""


def clips_of_the_article() -> pd.DataFrame:
    clips = RAVDESS().expected()
    assert clips is not None
    return clips[clips["emotion"].isin(ARTICLE)]


@pytest.fixture(scope="module")
def article() -> pd.DataFrame:
    return clips_of_the_article()


@pytest.fixture(scope="module")
def fold1(article: pd.DataFrame) -> Split:
    return make_split(article, RAVDESS(), "emobox6", 1)


def test_the_same_split_is_the_same_text_whatever_the_order_of_clips(article: pd.DataFrame, tmp_path: Path) -> None:
    split = make_split(article, RAVDESS(), "random", seed=3)
    other = make_split(article.sample(frac=1, random_state=1), RAVDESS(), "random", seed=3)
    assert split.hash == other.hash
    split.write(tmp_path / "a.csv")
    text = (tmp_path / "a.csv").read_bytes()
    assert text == split.to_csv().encode()
    assert text.startswith(b"clip_id,emotion,speaker,subset,protocol\n")
    read = Split.read(tmp_path / "a.csv")
    assert (read.hash, read.label) == (split.hash, "random seed 3")
    assert read.table["speaker"][0] == "01"


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(NAMES, st.tuples(NAMES, NAMES, st.sampled_from(list(SUBSETS))), min_size=1))
def test_any_names_survive_the_file(rows: dict[str, tuple[str, str, str]]) -> None:
    table = pd.DataFrame([(clip_id, *row) for clip_id, row in rows.items()], columns=list(COLUMNS[:4]), dtype=str)
    split = Split(table.sort_values("clip_id", ignore_index=True), CUSTOM)
    with TemporaryDirectory() as folder:
        split.write(f"{folder}/split.csv")
        assert Split.read(f"{folder}/split.csv").table.equals(split.table)


def test_what_a_split_means_follows_from_its_speakers_alone() -> None:
    def split(*rows: str, label: str = "custom") -> Split:
        fields = [row.split() for row in rows]
        table = [{"clip_id": str(n), "emotion": "sad", "speaker": a, "subset": b} for n, (a, b) in enumerate(fields)]
        return Split(pd.DataFrame(table), label)

    apart = split("a train", "b val", "c test", label="random seed 0")
    assert (apart.speaker_independent(), apart.selects_epoch) == (True, True)
    shared = split("a train", "a val", "c test", label="emobox6 fold 1")
    assert [shared.speaker_independent(name) for name in ("val", "test", None)] == [False, True, False]
    assert shared.selection == LAST_EPOCH
    chosen = split("a train", "b val", "b test")
    assert [chosen.speaker_independent(name) for name in ("val", "test", None)] == [True, False, False]
    assert "1 of 1 speakers of the test clips are in validation too" in chosen.meaning
    assert not split("a train", "c test").selects_epoch  # nothing validates
    for label in (ALL_TEST, "custom"):
        assert split("a test", label=label).meaning == "every clip is scored; none was in training"
    assert split("unknown train", "b val").meaning.startswith("speaker-dependent: nobody knows")


def test_a_file_that_is_there_is_read_and_never_rewritten(
    article: pd.DataFrame, fold1: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "split.csv"
    assert load_or_make(path, fold1, article).hash == fold1.hash
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    monkeypatch.setattr("filelock.FileLock", None)  # it needs no place to write
    assert load_or_make(path, fold1, article).hash == fold1.hash
    with pytest.raises(EmolightError, match=r"holds the split 'emobox6 fold 1', asked for 'emobox6 fold 3'"):
        load_or_make(path, make_split(article, RAVDESS(), "emobox6", 3), article)
    more = pd.concat([article, article.tail(3).assign(clip_id=["x1", "x2", "x3"])])
    with pytest.raises(EmolightError, match="3 clips of the corpus are missing, as x1"):
        load_or_make(path, fold1, more)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


START: Barrier


def share(barrier: Barrier) -> None:
    """Give a process of a pool the moment at which all begin."""
    global START
    START = barrier


def load_at_once(path: Path) -> tuple[int, int, bytes, str]:
    """What a process reads that finds no split when another finds none."""
    clips = clips_of_the_article()
    made = make_split(clips, RAVDESS(), "emobox6", 1)
    START.wait(60)
    split = load_or_make(path, made, clips)
    return path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes(), split.hash


def test_two_processes_that_make_it_at_once_share_one_file(fold1: Split, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(2, share, (context.Barrier(2),)) as pool:
        for number in range(10):
            path = tmp_path / str(number) / "split.csv"
            first, second = pool.map(load_at_once, [path] * 2, chunksize=1)
            assert first == second
            assert first[2:] == (fold1.to_csv().encode(), fold1.hash)
            assert sorted(other.name for other in path.parent.iterdir()) == [".split.csv.lock", "split.csv"]


def test_what_a_killed_writer_left_is_removed(article: pd.DataFrame, fold1: Split, tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f".split.csv.{dead.pid}.part"
    left.write_bytes(b"clip_id,emo")
    load_or_make(tmp_path / "split.csv", fold1, article)
    assert not left.exists()


@pytest.mark.parametrize("place", ["file/split.csv", "file/deeper/split.csv"])
def test_a_place_that_cannot_be_written_is_named(
    article: pd.DataFrame, fold1: Split, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EmolightError, match=r"cannot be written to .*\n.*--data\.splits_dir"):
        load_or_make(tmp_path / place, fold1, article)


def test_a_split_of_ones_own_may_leave_out_clips_and_columns(article: pd.DataFrame, tmp_path: Path) -> None:
    table = make_split(article, RAVDESS(), "random").table.head(200)
    table.rename(columns={"speaker": "actor"}).to_csv(tmp_path / "mine.csv", index=False)
    split = Split.read(tmp_path / "mine.csv", article)
    assert (split.label, len(split.table), split.protocol, split.fold) == ("custom", 200, "custom", None)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(",", ";").encode("utf-8-sig"),
        lambda text: text.replace(",", "\t").encode("utf-16"),
        lambda text: b"sep=,\n" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode("utf-8-sig") + b",,,,\r\n,,,,\r\n",
        lambda text: text.replace(",05,", ",5.0,").replace(",01,", ",1,").encode(),
        lambda text: text.replace("emobox6 fold", "emobox6\tfold").encode(),
    ],
    ids=["semicolons", "UTF-16", "sep=", "emptied rows", "numbers", "tab"],
)
def test_a_split_saved_by_a_spreadsheet_is_the_same_split(
    article: pd.DataFrame,
    fold1: Split,
    tmp_path: Path,
    change,  # type: ignore[no-untyped-def]
) -> None:
    (tmp_path / "x.csv").write_bytes(change(fold1.to_csv()))
    assert Split.read(tmp_path / "x.csv", article).hash == fold1.hash


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (FIFTH, FIFTH[:-2] + "99", f"line 6: clip '{FIFTH[:-2]}99' is not in the corpus, or not of the task"),
        (FIFTH, FIFTH[:-2] + "01", f"line 6: clip '{FIFTH[:-2]}01' stands there already"),
        ("calm", "clam", f"line 6: emotion 'clam', but clip '{FIFTH}' is 'calm'"),
        (",05,", ",06,", f"line 6: speaker '06', but clip '{FIFTH}' is '05'"),
        (",05,", f",{'0' * 5000}6,", "line 6: speaker '0000"),
        (",train,", ",tarin,", "line 6: unknown subset 'tarin'"),
        (",train,", ',"tr\nain",', "line 7: unknown subset 'tr\\nain'"),  # the record ends in line 7
        (",train,", f",{'train' * 1000},", "unknown subset 'traintrain"),
        ("emobox6 fold 1", "random seed 0", "line 6: protocol 'random seed 0', unlike the lines above"),
        (",train,", ",train,,,x,", "line 6: 8 fields, but 5 columns"),
    ],
)
def test_an_edited_split_is_refused_with_its_line_in_two_lines(
    article: pd.DataFrame, fold1: Split, tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "split.csv"
    lines = fold1.to_csv().split("\n")
    assert old in lines[5]
    lines[5] = lines[5].replace(old, new)
    path.write_text("\n".join(lines))
    with pytest.raises(EmolightError) as caught:
        load_or_make(path, fold1, article)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2
    assert len(str(caught.value)) < 400
    assert path.read_text() == "\n".join(lines)


@pytest.mark.parametrize(
    "content", [b"", b"hello\nworld\n", b"clip_id,emotion\n", b"\xff\xfe\x00", b"clip_id,emotion,speaker,subset\n"]
)
def test_what_is_no_split_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_bytes(content)
    with pytest.raises(EmolightError, match=r"split\.csv"):
        Split.read(tmp_path / "split.csv")
    with pytest.raises(EmolightError, match="no split file"):
        Split.read(tmp_path / "other.csv")
