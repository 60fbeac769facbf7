"""What a configuration may call a corpus, and a corpus of one's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from emolight.data.corpora import CORPORA, Table, corpus_of
from emolight.data.corpus import UNKNOWN, Corpus
from emolight.errors import EmolightError


def test_names_tables_and_classes_become_corpora() -> None:
    for name, kind in CORPORA.items():
        for alias in (name, name.lower(), kind.name, f"{kind.__module__}.{kind.__name__}"):
            assert type(corpus_of(alias)) is kind
    table = corpus_of({"class_path": "Table", "init_args": {"csv": "a/mine.tsv", "licence": "CC0"}})
    assert (type(table), table.name, table.licence, table.default_root) == (Table, "mine", "CC0", "a")
    assert corpus_of({"class_path": "mine.csv", "init_args": {"about": "me"}}).about == "me"
    assert corpus_of(Path("mine.csv")).name == "mine"
    assert corpus_of(table) is table


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("RAVDES", "Did you mean 'RAVDESS'"),
        ("", "Unknown corpus ''"),
        ("my data/x", "Unknown corpus"),
        ("mine.xlsx", "no CSV.\nSave the table as CSV"),
        ("data", "is the folder 'data'.\nName the corpus, and the folder by --data.root data"),
        ("mine.Voices", "names code outside of emolight: 'mine.Voices'. Nothing of it was executed"),
        ("emolight.data.corpora.Nothing", "has no attribute 'Nothing'"),
        ("emolight.errors.EmolightError", "is no Corpus"),
        ({"class_path": "Table"}, "Table does not take these arguments"),
        ({"class_path": "RAVDESS", "init_args": {"root": "x"}}, "RAVDESS does not take these arguments"),
    ],
)
def test_what_is_no_corpus_is_named(spec: str, message: str, here: Path) -> None:
    (here / "data").mkdir()
    (here / "mine.py").write_text("raise SystemExit('executed')")
    with pytest.raises(EmolightError) as caught:
        corpus_of(spec)
    assert message in str(caught.value)


def test_a_class_of_the_working_folder_is_taken_when_it_is_vouched_for(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "my_voices.py").write_text(
        "from emolight.data.corpus import Corpus\n"
        "class Voices(Corpus):\n"
        "    name = 'voices'\n"
        "    def parse(self, stem):\n"
        "        emotion, _, speaker = stem.partition('_')\n"
        "        return {'emotion': emotion, **({'speaker': speaker} if speaker else {})} if emotion != 'x' else None\n"
    )
    monkeypatch.setenv("EMOLIGHT_IMPORTS", "my_voices")
    monkeypatch.setattr(sys, "path", [*sys.path])
    voices = corpus_of("my_voices.Voices")
    for name in ("sad_1.wav", "sub/happy.WAV", "x.wav", "sad_2.txt"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).touch()
    found = voices.find(here)
    assert found.passed_over == {"foreign name": 1}
    columns = ["clip_id", "path", "emotion", "speaker"]
    assert found.table[columns].to_numpy().tolist() == [
        ["happy", "sub/happy.WAV", "happy", UNKNOWN],
        ["sad_1", "sad_1.wav", "sad", "1"],
    ]


def test_a_name_that_is_no_utf8_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are UTF-8. Not every system has such files, so that the walk alone finds one here."""

    class Voices(Corpus):
        def parse(self, stem: str) -> dict[str, object]:
            return {"emotion": stem}

    paths = [Path("sad.wav"), Path(b"caf\xe9.wav".decode(errors="surrogateescape"))]
    monkeypatch.setattr("emolight.data.corpus.walk", lambda *_: iter(paths))
    found = Voices().find(tmp_path)
    assert found.table["clip_id"].tolist() == ["sad"]
    assert found.passed_over == {"name that is no UTF-8": 1}


def test_blanks_at_the_ends_of_a_file_name_are_no_part_of_a_clip_id(tmp_path: Path) -> None:
    (tmp_path / "EB0_anger_1 .wav").touch()
    assert list(corpus_of("NEMO").table(tmp_path)["clip_id"]) == ["EB0_anger_1"]


def test_a_grammar_without_emotions_is_named(tmp_path: Path) -> None:
    class Mute(Corpus):
        def parse(self, stem: str) -> dict[str, object]:
            return {"speaker": stem}

    (tmp_path / "a.wav").touch()
    with pytest.raises(EmolightError, match="The clips have no emotion, only clip_id, speaker, path"):
        Mute().find(tmp_path)
