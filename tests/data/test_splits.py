from __future__ import annotations

import multiprocessing
import subprocess
import sys
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pandas as pd
import pytest

from emolight.data.ravdess import ARTICLE_EMOTIONS, EMOTIONS, expected_clips, select
from emolight.data.splits import (
    FOLDS,
    PROTOCOLS,
    load_or_make_split,
    make_split,
    read_split,
    write_split,
)
from emolight.errors import EmolightError


@pytest.fixture(scope="module")
def article() -> pd.DataFrame:
    return select(expected_clips(), list(ARTICLE_EMOTIONS), ["speech", "song"])


@pytest.mark.parametrize("protocol", FOLDS)
def test_no_actor_is_in_two_subsets_and_every_actor_is_tested_once(protocol: str, article: pd.DataFrame) -> None:
    tested: list[int] = []
    for fold in FOLDS[protocol]:
        split = make_split(article, protocol, fold)
        assert split.groupby("actor")["subset"].nunique().eq(1).all()
        assert set(split["subset"]) == {"train", "val", "test"}
        assert len(split) == len(article)
        tested += split.loc[split["subset"] == "test", "actor"].unique().tolist()
    assert sorted(tested) == list(range(1, 25))


def test_emobox6_test_folds_have_the_published_sizes(article: pd.DataFrame) -> None:
    sizes = {fold: int((make_split(article, "emobox6", fold)["subset"] == "test").sum()) for fold in range(1, 7)}
    assert sizes == {1: 320, 2: 320, 3: 320, 4: 320, 5: 280, 6: 320}


def test_random_holds_320_clips_out_and_follows_its_seed(article: pd.DataFrame) -> None:
    first, again, other = (make_split(article, "random", seed=seed) for seed in (0, 0, 1))
    assert (first["subset"] == "val").sum() == 320
    assert "test" not in set(first["subset"])
    assert first.equals(again)
    assert not first["subset"].equals(other["subset"])


def test_random_takes_a_fifth_of_a_small_corpus(article: pd.DataFrame) -> None:
    assert (make_split(article.head(100), "random")["subset"] == "val").sum() == 20


def test_same_split_gives_same_bytes_whatever_the_order_of_clips(article: pd.DataFrame, tmp_path: Path) -> None:
    write_split(tmp_path / "a.csv", make_split(article, "random", seed=3))
    write_split(tmp_path / "b.csv", make_split(article.sample(frac=1, random_state=1), "random", seed=3))
    text = (tmp_path / "a.csv").read_bytes()
    assert text == (tmp_path / "b.csv").read_bytes()
    assert text.startswith(b"clip_id,emotion,actor,subset,protocol\n")
    assert str(tmp_path).encode() not in text


def test_an_existing_split_is_reused_and_never_rewritten(article: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    made = load_or_make_split(path, article, "emobox6", 2)
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    read = load_or_make_split(path, article, "emobox6", 2)
    assert made.astype(str).equals(read.astype(str))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    with pytest.raises(EmolightError, match=r"holds the split 'emobox6 fold 2', asked for 'emobox6 fold 3'"):
        load_or_make_split(path, article, "emobox6", 3)


START: Barrier


def share(barrier: Barrier) -> None:
    """Give a process of a pool the moment at which all begin."""
    global START
    START = barrier


def load_at_once(path: Path) -> tuple[int, int, bytes, list[str]]:
    """What a process reads that finds no split when another finds none."""
    clips = select(expected_clips(), list(ARTICLE_EMOTIONS), ["speech", "song"])
    START.wait(60)
    split = load_or_make_split(path, clips, "emobox6", 2)
    return path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes(), split["subset"].tolist()


def test_two_processes_that_make_it_at_once_share_one_file(article: pd.DataFrame, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    write_split(tmp_path / "split.csv", make_split(article, "emobox6", 2))
    expected = (tmp_path / "split.csv").read_bytes()
    with context.Pool(2, share, (context.Barrier(2),)) as pool:
        for number in range(10):
            path = tmp_path / str(number) / "split.csv"
            first, second = pool.map(load_at_once, [path] * 2, chunksize=1)
            assert first == second
            assert first[2] == expected
            assert sorted(other.name for other in path.parent.iterdir()) == [".split.csv.lock", "split.csv"]


def test_what_a_killed_writer_left_is_removed(article: pd.DataFrame, tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f".split.csv.{dead.pid}.part"
    left.write_bytes(b"clip_id,emo")
    load_or_make_split(tmp_path / "split.csv", article, "emobox6", 2)
    assert not left.exists()


def test_a_split_edited_wrongly_is_refused_and_left_as_it_is(article: pd.DataFrame, tmp_path: Path) -> None:
    path = edited(article, tmp_path / "split.csv", 6, "calm", "clam")
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    with pytest.raises(EmolightError, match=r"split\.csv, line 6: emotion 'clam'"):
        load_or_make_split(path, article, "emobox6", 1)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_a_split_that_is_there_needs_no_place_to_write(
    article: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_split(tmp_path / "split.csv", make_split(article, "emobox6", 2))
    monkeypatch.setattr("filelock.FileLock", None)
    load_or_make_split(tmp_path / "split.csv", article, "emobox6", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["split.csv"]


@pytest.mark.parametrize("place", ["file/split.csv", "file/deeper/split.csv"])
def test_a_place_that_cannot_be_written_is_named(article: pd.DataFrame, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EmolightError, match=r"cannot be written to .*\n.*--data\.splits_dir"):
        load_or_make_split(tmp_path / place, article, "emobox6", 2)


def test_a_split_without_protocol_column_is_a_custom_one(article: pd.DataFrame, tmp_path: Path) -> None:
    split = make_split(article, "random").drop(columns="protocol").head(200)
    split.to_csv(tmp_path / "mine.csv", index=False)
    assert set(read_split(tmp_path / "mine.csv", article)["protocol"]) == {"custom"}


def edited(article: pd.DataFrame, path: Path, line: int, old: str, new: str) -> Path:
    write_split(path, make_split(article, "emobox6", 1))
    lines = path.read_text().split("\n")
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new)
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "03-01-02-01-01-01-05",
            "03-01-02-01-01-01-99",
            "line 6: clip '03-01-02-01-01-01-99' is not in the corpus",
        ),
        (
            "03-01-02-01-01-01-05",
            "03-01-02-01-01-01-01",
            "line 6: clip '03-01-02-01-01-01-01' stands already in line 2",
        ),
        ("calm", "clam", "line 6: emotion 'clam', but clip '03-01-02-01-01-01-05' is 'calm'"),
        (",5,", ",6,", "line 6: actor '6', but clip '03-01-02-01-01-01-05' is of actor 5"),
        (",train,", ",tarin,", "line 6: unknown subset 'tarin'"),
        ("emobox6 fold 1", "random seed 0", "line 6: protocol 'random seed 0', but line 2 says 'emobox6 fold 1'"),
    ],
)
def test_an_edited_split_is_refused_with_its_line(
    article: pd.DataFrame, tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = edited(article, tmp_path / "split.csv", 6, old, new)
    with pytest.raises(EmolightError) as caught:
        read_split(path, article)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert str(caught.value).count("\n") <= 2


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (",tr\nain,", "line 7: unknown subset 'tr\\nain'"),  # the record ends in line 7
        (f",{'train' * 1000},", "unknown subset 'traintrain"),
    ],
)
def test_a_message_stays_a_line_whatever_the_file_holds(
    article: pd.DataFrame, tmp_path: Path, new: str, message: str
) -> None:
    path = edited(article, tmp_path / "split.csv", 6, ",train,", f',"{new[1:-1]}",')
    with pytest.raises(EmolightError) as caught:
        read_split(path, article)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2
    assert len(str(caught.value)) < 400


def test_lines_are_counted_with_the_empty_ones(article: pd.DataFrame, tmp_path: Path) -> None:
    path = edited(article, tmp_path / "split.csv", 6, "calm", "clam")
    path.write_text(path.read_text().replace("\n", "\n\n\n", 1))
    with pytest.raises(EmolightError, match="line 8: emotion 'clam'"):
        read_split(path, article)


def test_an_actor_with_thousands_of_zeros_is_refused(article: pd.DataFrame, tmp_path: Path) -> None:
    path = edited(article, tmp_path / "split.csv", 6, ",5,", f",{'0' * 5000}5,")
    with pytest.raises(EmolightError, match="line 6: actor '000"):
        read_split(path, article)


def test_a_split_of_column_names_alone_is_refused(article: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    path.write_text("clip_id,emotion,actor,subset,protocol\n")
    with pytest.raises(EmolightError, match="has no clips"):
        read_split(path, article)


def test_an_actor_protocol_is_known_by_its_first_word_whatever_follows(
    article: pd.DataFrame, tmp_path: Path
) -> None:
    path = edited(article, tmp_path / "split.csv", 30, ",train,", ",test,")
    path.write_text(path.read_text().replace("emobox6 fold 1", "emobox6\tfold 1"))
    with pytest.raises(EmolightError, match=r"line \d+: actor 5 is in"):
        read_split(path, article)


def test_an_actor_in_two_subsets_is_refused_under_an_actor_protocol(article: pd.DataFrame, tmp_path: Path) -> None:
    path = edited(article, tmp_path / "split.csv", 30, ",train,", ",test,")
    with pytest.raises(EmolightError, match=r"line \d+: actor 5 is in"):
        read_split(path, article)


def test_a_split_that_misses_clips_of_the_corpus_is_refused_when_a_protocol_wrote_it(
    article: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "split.csv"
    write_split(path, make_split(article, "emobox6", 1).iloc[:-3])
    with pytest.raises(EmolightError, match="3 clips of the corpus are missing"):
        load_or_make_split(path, article, "emobox6", 1)


@pytest.mark.parametrize("content", ["", "hello\nworld\n", "clip_id,emotion\n", b"\xff\xfe\x00"])
def test_what_is_no_split_is_refused(content: str | bytes, article: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(EmolightError, match=r"split\.csv"):
        read_split(path, article)


def test_unknown_protocols_and_folds_are_named(article: pd.DataFrame) -> None:
    with pytest.raises(EmolightError, match="Did you mean 'emobox6'"):
        make_split(article, "embox6")
    with pytest.raises(EmolightError, match="'emobox6' has no fold 0"):
        make_split(article, "emobox6", 0)
    with pytest.raises(EmolightError, match="'random' has no folds"):
        make_split(article, "random", 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_full_task_splits_too(protocol: str) -> None:
    clips = select(expected_clips(), list(EMOTIONS), ["speech"])
    assert set(make_split(clips, protocol)["subset"]) >= {"train", "val"}
