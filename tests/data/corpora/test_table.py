"""A corpus is any CSV: in whatever dress it comes, and every mistake in it named by its line."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emolight.data.corpora import Table, corpus_of
from emolight.data.corpora.table import NOTHING
from emolight.data.corpus import UNKNOWN
from emolight.errors import EmolightError

PLAIN = "path,emotion,speaker\na.wav,happy,Zoë\nb.wav,sad,02\n"


def corpus(folder: Path, text: str | bytes, name: str = "mine.csv", files: str = "a.wav b.wav") -> Table:
    """A table, and its recordings, which are never opened."""
    for file in files.split():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return Table(str(folder / name))


def rows(table: Table, *columns: str, root: Path | None = None) -> list[tuple[object, ...]]:
    clips = table.table(root or table.default_root)
    return list(clips[list(columns)].itertuples(index=False, name=None))


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode(),
        PLAIN.replace(",", ";").encode("utf-8-sig"),
        PLAIN.replace(",", "\t").encode("utf-16"),
        PLAIN.encode("latin-1"),
        b"sep=,\r\n" + PLAIN.replace("\n", "\r\n").encode(),
        ("sep=\t\n" + PLAIN.replace(",", "\t")).encode("utf-16"),
        PLAIN.replace("path,emotion,speaker", "File,Label,Actor").encode(),
        PLAIN.replace("path,emotion,speaker", "filename,EMOTION,speaker_id").encode(),
        b"\n" + PLAIN.encode() + b",,\n\n",
        b",path,emotion,speaker\n0,a.wav,happy,Zo\xc3\xab\n1,b.wav,sad,02\n",
        b'"path","emotion","speaker",,\r\n"a.wav","happy","Zo\xc3\xab",,\r\n.\\b.wav, sad ,02,,\r\n',
    ],
    ids=[
        *("comma", "semicolon", "UTF-16", "Latin-1", "sep=", "sep=tab"),
        *("Actor", "id", "blank", "pandas", "quoted"),
    ],
)
def test_the_same_table_in_any_dress(tmp_path: Path, content: bytes) -> None:
    table = corpus(tmp_path, content)
    assert rows(table, "clip_id", "path", "emotion", "speaker") == [
        ("a", "a.wav", "happy", "Zoë"),
        ("b", "b.wav", "sad", "02"),
    ]
    assert (table.name, table.default_protocol, table.groups) == ("mine", "speakers5", ())


CELLS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8).filter(
    lambda cell: cell.lower() not in {*NOTHING, UNKNOWN}  # these say that nothing is known
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6), st.sampled_from(",;\t"), st.booleans())
def test_any_cells_are_read_back(cells: list[tuple[str, str, str]], separator: str, wide: bool) -> None:
    def quoted(cell: str) -> str:
        return '"' + cell.replace('"', '""') + '"'

    with TemporaryDirectory() as folder:
        lines = [["file", "emotion", "speaker", "note"]]
        lines += [["a.wav", emotion, speaker, note] for emotion, speaker, note in cells]
        lines[1:] = [[*line, str(n)] for n, line in enumerate(lines[1:])]
        lines[0].append("clip_id")
        text = "".join(separator.join(map(quoted, line)) + "\r\n" for line in lines)
        table = corpus(Path(folder), text.encode("utf-16" if wide else "utf-8"))
        assert sorted(rows(table, "emotion", "speaker", "note", "clip_id")) == sorted(
            (*cell, str(n)) for n, cell in enumerate(cells)
        )


@pytest.mark.parametrize(
    "rows_of",
    [
        '{0},happy,a,"Hello,1\n{1},sad,b,Yes,2\n{1},sad,c,No,3\n',  # never closed
        '{0},happy,a,"Hello,1\n{1},sad,b,Yes,2\n{1},sad,c,No,Bye"\n',
        '{0},happy,a,Hello,"1\n\n{1},sad,b,Yes,2"\n',
    ],
    ids=["open", "in another column", "a blank line"],
)
def test_no_quote_takes_rows_in_silence(rows_of: str, tmp_path: Path) -> None:
    text = "path,emotion,speaker,text,note\n" + rows_of.format("a.wav", "b.wav")
    for above, line in (("", 2), ("\n", 3), ("sep=,\n", 3)):
        with pytest.raises(EmolightError, match=rf"line {line}: a quote takes in [12] rows? below it"):
            corpus(tmp_path, above + text).table(tmp_path)


def test_a_text_may_have_lines(tmp_path: Path) -> None:
    text = 'path,emotion,speaker,text\na.wav,happy,a,"Hello,\nyou, there"\nb.wav,sad,b,No\n'
    assert rows(corpus(tmp_path, text), "text") == [("Hello,\nyou, there",), ("No",)]


def test_names_that_a_mac_has_written_are_found(tmp_path: Path) -> None:
    text = "path,emotion,speaker\nM\u00fcller.wav,happy,a\nMu\u0308nch.wav,sad,b\n"
    table = corpus(tmp_path, text, files="Mu\u0308ller.wav M\u00fcnch.wav")
    assert sorted(table.table(tmp_path)["path"]) == ["Mu\u0308ller.wav", "M\u00fcnch.wav"]
    upper = corpus(tmp_path, PLAIN, files="a.WAV b.wav")
    with pytest.raises(EmolightError, match=r"there is no recording '.*a\.wav'\.\nThere is a\.WAV"):
        upper.table(tmp_path)


def test_columns_that_are_known_and_those_that_are_not(tmp_path: Path) -> None:
    text = "file;label;emotion;speaker;gender;Split;age;fold;corpus\n"
    for n, emotion in enumerate(("sad", "happy") * 3):
        text += f"{n}.wav;x;{emotion};{n};{'FMw'[n % 3]};DEV;2{n % 2};{n % 2};{'ab'[n % 2]}\n"
    table = corpus(tmp_path, text, files=" ".join(f"{n}.wav" for n in range(6)))
    assert rows(table, "emotion", "sex", "subset", "age")[:3] == [
        ("sad", "female", "val", "20"),
        ("happy", "male", "val", "21"),
        ("sad", "female", "val", "20"),
    ]
    assert table.groups == ("sex", "age", "corpus")  # fold and label mean something else in a table of predictions
    assert table.default_protocol == "subset"
    assert table.table(tmp_path)["label"].eq("x").all()  # the emotion is the column of that name


def test_clips_of_one_file_by_times_as_audformat_writes_them(tmp_path: Path) -> None:
    text = (
        "file,start,end,emotion,speaker\n"
        "s/a.wav,0 days,0 days 00:00:01.5,sad,x\n"
        "s/a.wav,0 days 00:00:01.500000,NaT,happy,y\n"
        "s/b.wav,2.25,,sad,z\n"
    )
    table = corpus(tmp_path, text, files="s/a.wav s/b.wav")
    clips = table.table(tmp_path)
    assert list(clips["clip_id"]) == ["a_0.000_1.500", "a_1.500", "b_2.250"]
    assert list(clips["start"]) == [0, 1.5, 2.25]
    assert list(clips["end"].fillna(-1)) == [1.5, -1, -1]
    assert table.default_protocol == "loso"  # three speakers
    german = text.replace(",", ";").replace("2.25", "2,25")
    assert list(corpus(tmp_path, german).table(tmp_path)["start"]) == [0, 1.5, 2.25]
    ends = "file,end,emotion,speaker\ns/a.wav,1,sad,x\ns/a.wav,2,happy,y\n"
    assert rows(corpus(tmp_path, ends), "clip_id") == [("a_1.000",), ("a_2.000",)]


def test_clip_ids_take_folders_and_suffixes_where_names_are_not_enough(tmp_path: Path) -> None:
    def ids(*files: str) -> list[str]:
        text = "file,label,speaker\n" + "".join(f"{file},sad,x\n" for file in files)
        return [str(row[0]) for row in rows(corpus(tmp_path, text, files=" ".join(files)), "clip_id")]

    assert ids("1/a.wav", "2/b.wav") == ["a", "b"]
    assert ids("1/a.wav", "2/a.wav") == ["1/a", "2/a"]
    assert ids("1/a.wav", "1/a.flac") == ["1/a.flac", "1/a.wav"]
    assert ids("a.1.wav", "a.2.wav") == ["a.1", "a.2"]


def test_clip_ids_have_no_blanks_at_their_ends_as_a_split_is_read_without(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for name in ("s/take 1 .wav", "s/ take 2.wav"):
        (tmp_path / name).touch()
    text = "path,emotion,speaker\ns/take 1 .wav,sad,x\ns/ take 2.wav,happy,y\n"
    assert rows(corpus(tmp_path, text), "clip_id", "path") == [("take 1", "s/take 1 .wav"), ("take 2", "s/ take 2.wav")]


def test_paths_may_be_absolute_or_begin_with_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    text = f"file,emotion,speaker\n~/a.wav,sad,x\n{tmp_path}/b.wav,happy,y\n./sub/../c.wav,sad,z\n"
    corpus(tmp_path, text, files="a.wav b.wav c.wav sub/d.wav")
    table = corpus_of("~/mine.csv")
    assert table.default_root == str(tmp_path)
    paths = table.table("~")["path"]
    assert [tmp_path / path for path in paths] == [tmp_path / "a.wav", tmp_path / "b.wav", tmp_path / "c.wav"]


def test_without_speakers_nobody_knows_them(tmp_path: Path) -> None:
    assert rows(corpus(tmp_path, "file,label\na.wav,sad\n"), "speaker") == [(UNKNOWN,)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,speaker\na.wav,x\n", "line 1: no column 'emotion' or 'label' among path, speaker"),
        ("emotion,speaker\nsad,x\n", "line 1: no column 'path' or 'file' among emotion, speaker"),
        ("path,emotoin,speaker\na.wav,sad,x\n", "Did you mean 'emotoin'"),
        ("path,emotion,Emotion\na.wav,sad,x\n", "line 1: two columns 'emotion'"),
        ("path,emotion,speaker\n", "has no clips below its column names"),
        ("", "mine.csv is empty.\nA table of clips has a line a clip."),
        ("path,emotion,speaker\na.wav,sad,x\n\na.wav,,x\n", "line 4: no emotion"),
        ("path,emotion,speaker\n,sad,x\n", "line 2: no path"),
        ("path,emotion,speaker\na.wav,sad,\n", "line 2: no speaker"),
        ("path,emotion,speaker\na.wav,NaN,x\n", "line 2: no emotion"),
        ("path,emotion,speaker\na.wav,sad,<NA>\n", "line 2: no speaker"),
        ("path,emotion,speaker\na.wav,sad,x,more\n", "line 2: 4 fields, but 3 columns"),
        ("path,emotion,speaker\na.wav,sad,x\na.wav,sad,x\n", "line 3: clip 'a' stands there already"),
        ("path,emotion,speaker,clip_id\na.wav,sad,x,1\nb.wav,sad,x,1\n", "line 3: clip '1' stands there already"),
        ("path,emotion,subset\na.wav,sad,train\nb.wav,sad,fold1\n", "line 3: unknown subset 'fold1'"),
        ("path,emotion,start\na.wav,sad,soon\n", "line 2: 'soon' is no time"),
        ("path,emotion,start\na.wav,sad,-1\n", "line 2: '-1' is no time"),
        ("path,emotion,end\na.wav,sad,inf\n", "line 2: 'inf' is no time"),
        ("path,emotion,start,end\na.wav,sad,1,2\nb.wav,sad,2,1.5\n", "line 3: a clip that ends at '1.5' s"),
        ('path,emotion,text\na.wav,sad,"two\nlines"\nc.wav,sad,x\n', "line 4: there is no recording"),
        ("path,emotion\na.wav,sad\nc.wav,sad\nd.wav,sad\n", "line 3: there is no recording"),
        ("path,emotion\na.wav,sad\nc.wav,sad\nd.wav,sad\n", "c.wav', and 1 more are missing.\nPaths are relative to"),
        (f"path,emotion\n{'a' * 5000}.wav,sad\n", "there is no recording"),
        (f"path,emotion\na.wav,{'x' * 140_000}\n", "is not a CSV file: field larger than"),
        ("path,emotion\na.wav,\0\n", "is no text file"),
        (PLAIN.encode("utf-16-le"), "is no text file"),  # no mark says what it is
        (b"PK\x03\x04\0\0", "is no text file"),  # a workbook
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(EmolightError) as caught:
        corpus(tmp_path, text).table(tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path / "mine.csv") in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_paths_from_the_working_folder_are_told_how(here: Path) -> None:
    table = corpus(here / "lists", "file,emotion\ndata/a.wav,sad\n", files="x.wav")
    (here / "data").mkdir()
    (here / "data" / "a.wav").touch()
    with pytest.raises(EmolightError, match=r"start from the working folder: --data\.root \."):
        table.table(table.default_root)
    assert rows(table, "path", root=Path()) == [("data/a.wav",)]


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EmolightError, match=r"nowhere\.csv cannot be read: No such file"):
        Table(str(tmp_path / "nowhere.csv")).table(tmp_path)
