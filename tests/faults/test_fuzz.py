"""Properties of what users can mistype or damage: names, splits, configurations; and a short fuzz of the loader.

The long run is a script: ``python tests/faults/fuzz_audio.py --inputs 50000``.
"""

from __future__ import annotations

import csv
import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emolight.data.audio import AudioError
from emolight.data.corpora import CORPORA, corpus_of, recognise
from emolight.data.protocols import make_split
from emolight.data.splits import COLUMNS, SUBSETS, Split
from emolight.errors import EmolightError
from emolight.run.cli import full_config
from tests.faults import fuzz_audio
from tests.small import CONFIGS

quick = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Parsing a configuration takes a tenth of a second.
few = settings(quick, max_examples=25)

RAVDESS = corpus_of("RAVDESS")
CLIPS = RAVDESS.expected()
assert CLIPS is not None
CLIPS = CLIPS[CLIPS["speaker"].isin(["01", "02", "04", "05"]) & (CLIPS["channel"] == "speech")].reset_index(drop=True)
SPLIT = make_split(CLIPS, RAVDESS, "emobox6", 1)

stems = st.one_of(
    st.text(),
    st.from_regex(r"0[0-9](-[0-9]{2}){5,7}\s?", fullmatch=True),
    st.from_regex(r"[0-9A-Z]{2,4}_[A-Z]{3}_[A-Z]{3}_[A-Z]{2}", fullmatch=True),
    st.from_regex(r"[01][0-9][ab][0-9]{2}[WLEAFTN][a-z]", fullmatch=True),
    st.tuples(st.sampled_from(CLIPS["clip_id"].tolist()), st.text(max_size=3)).map("".join),
)


def said_in_lines(error: EmolightError) -> None:
    """Problem and fix are a line each, and of a length to read."""
    assert 1 <= len(str(error).splitlines()) <= 2
    assert all(line.strip() and len(line) < 1000 for line in str(error).splitlines())


@quick
@given(stems)
def test_any_name_is_a_clip_of_a_grammar_or_none(stem: str) -> None:
    for kind in CORPORA.values():
        corpus = kind()
        clip = corpus.parse(stem)
        if clip is not None:
            assert clip["emotion"] in corpus.emotions
            assert isinstance(clip["speaker"], str)
            assert str(clip.get("clip_id", stem)) == stem
    assert recognise("no sound of any corpus.wav") is None


file_names = st.one_of(
    st.binary(min_size=1, max_size=60).filter(lambda name: b"/" not in name and b"\0" not in name),
    st.tuples(stems.filter(str.isprintable), st.sampled_from([".wav", ".FLAC", ".mp3", ".mp4", "", "\n.wav"]))
    .map("".join)
    .map(lambda name: name.replace("/", "").encode()[:200]),
).filter(lambda name: name not in (b"", b".", b".."))


@quick
@given(st.sets(file_names, max_size=5))
def test_a_folder_of_any_names_is_walked_and_errors_stay_lines(
    tmp_path_factory: pytest.TempPathFactory, found: set[bytes]
) -> None:
    root = tmp_path_factory.mktemp("names")
    for name in found:
        with open(bytes(root) + b"/" + name, "wb"):
            pass
    try:
        table = RAVDESS.find(root).table
    except EmolightError as error:
        said_in_lines(error)
        return
    assert all(RAVDESS.parse(name) for name in table["clip_id"])
    assert table["clip_id"].is_unique


@quick
@given(st.text(st.characters(exclude_categories=[]), min_size=1))
def test_an_audio_error_is_one_line_whatever_the_path(name: str) -> None:
    assert len(str(AudioError(name, "is silent")).splitlines()) == 1


ROWS = [list(COLUMNS), *SPLIT.table.assign(protocol=SPLIT.label)[list(COLUMNS)].to_numpy().tolist()]
odd_values = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", "train", "val", "test", "5", "05", "5.0", "0" * 5000 + "5", "nan", "x\ny", "\0", "٥"]),
    st.sampled_from(["emobox6 fold 1", "emobox6\tfold 1", "emobox6", "random seed 0", "custom", "calm", "a" * 3000]),
    st.sampled_from(CLIPS["clip_id"].tolist()),
)
edits = st.lists(st.tuples(st.integers(0, 12), st.integers(0, len(COLUMNS) - 1), odd_values), max_size=3)


@st.composite
def edited_splits(draw: st.DrawFn) -> bytes:
    """A split with cells replaced, rows dropped, repeated or cut short, and a few bytes broken."""
    rows = [list(row) for row in ROWS[: draw(st.integers(0, 12))]]
    for line, column, value in draw(edits):
        if line < len(rows):
            rows[line][column] = value
    for line in draw(st.lists(st.integers(0, 12), max_size=2)):
        if line < len(rows):
            rows.insert(draw(st.integers(0, len(rows))), rows[line][: draw(st.integers(0, len(COLUMNS)))])
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    content = bytearray(stream.getvalue().encode())
    for place, piece in draw(st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3)), max_size=2)):
        content[place : place + 1] = piece
    return bytes(content)


@quick
@given(st.one_of(edited_splits(), st.binary(max_size=300)))
def test_an_edited_split_is_a_valid_table_or_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "split.csv"
    path.write_bytes(content)
    try:
        table = Split.read(path, CLIPS).table
    except EmolightError as error:
        said_in_lines(error)
        return
    known = CLIPS.set_index("clip_id")
    assert len(table)
    assert table["clip_id"].is_unique
    assert set(table["clip_id"]) <= set(known.index)
    assert (table["emotion"].to_numpy() == known.loc[table["clip_id"], "emotion"].to_numpy()).all()
    assert (table["speaker"].to_numpy() == known.loc[table["clip_id"], "speaker"].to_numpy()).all()
    assert set(table["subset"]) <= set(SUBSETS)


@cache
def known_options() -> list[tuple[str, ...]]:
    """Every option of ``fit`` as the keys that lead to it in YAML."""
    found: list[tuple[str, ...]] = []

    def walk(node: Any, way: tuple[str, ...]) -> None:
        found.append(way)
        for name, value in node.items() if isinstance(node, dict) else ():
            walk(value, (*way, name))

    walk(full_config(["--config", str(CONFIGS / "mfcc.yaml")]), ())
    return [way for way in found if way]


numbers = st.one_of(st.integers(-3, 3), st.sampled_from([2**31, 2**63, 10**30]), st.floats())
scalars = st.one_of(
    *(st.none(), st.booleans(), numbers, st.text(max_size=10), st.dates()),
    st.sampled_from(["mfcc", "MFCC", "happy", "emobox6", "true", "1e-3", "null", "[1]", "{a: 1}", "&a", "a\nb"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.text(max_size=5), numbers), inner, max_size=2)
    ),
    max_leaves=4,
)
ways = st.tuples(st.deferred(lambda: st.sampled_from(known_options())), values)


def overlay_of(found: list[tuple[tuple[Any, ...], Any]]) -> dict[Any, Any]:
    """Nested dictionaries that set the value at the end of each way."""
    overlay: dict[Any, Any] = {}
    for way, value in found:
        node = overlay
        for name in way[:-1]:
            inner = node.setdefault(name, {})
            node = inner if isinstance(inner, dict) else node.__setitem__(name, {}) or node[name]
        node[way[-1]] = value
    return overlay


def check_overlay(text: bytes, path: Path) -> bool:
    """Whether ``fit`` takes an overlay; if not, it says so in few lines."""
    path.write_bytes(text)
    try:
        config = full_config(["--config", str(CONFIGS / "mfcc.yaml"), "--config", str(path)])
    except EmolightError as error:
        said_in_lines(error)
        return False
    assert {"data", "model", "trainer"} <= set(config)
    return True


@few
@given(st.lists(ways, min_size=1, max_size=3))
def test_an_overlay_of_known_options_is_taken_or_refused(tmp_path: Path, found: list[Any]) -> None:
    check_overlay(yaml.safe_dump(overlay_of(found)).encode(errors="replace"), tmp_path / "overlay.yaml")


@few
@given(
    st.one_of(
        st.dictionaries(st.text(max_size=8), values, max_size=3).map(lambda some: yaml.safe_dump(some).encode()),
        st.text().map(lambda text: text.encode(errors="replace")),
        st.binary(),
    )
)
def test_an_overlay_of_anything_is_taken_or_refused(tmp_path: Path, text: bytes) -> None:
    check_overlay(text, tmp_path / "overlay.yaml")


def test_an_overlay_that_is_right_is_taken(tmp_path: Path) -> None:
    assert check_overlay(b"data: {batch_size: 8}", tmp_path / "right.yaml")
    assert not check_overlay(b"data: {batch_syze: 8}", tmp_path / "wrong.yaml")


def test_a_short_fuzz_of_the_loader_finds_nothing(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert fuzz_audio.main(["--inputs", "1500", "--seed", "1"]) == 0
    assert "1500 inputs of seed 1" in capfd.readouterr().out
    assert not list(here.iterdir())


def test_the_fuzz_judges_a_loader() -> None:
    def judged(value: Any) -> tuple[str, str]:
        def load(path: str, content: bytes) -> Any:
            if isinstance(value, BaseException):
                raise value
            return value

        return fuzz_audio.judge(load, b"")

    assert judged(np.full(100, 0.1, dtype=np.float32)) == ("accepted", "")
    assert judged(AudioError(fuzz_audio.PATH, "cut short: 30 of 44")) == ("refused", "cut short: N of N")
    for wrong in (
        *(EmolightError("Something."), AudioError(fuzz_audio.PATH, "not readable (MemoryError)")),
        *(ValueError("not ours"), KeyboardInterrupt(), np.full(100, np.nan, dtype=np.float32), np.full(100, 0.1)),
        *(np.zeros(100, dtype=np.float32), np.zeros((100, 2), dtype=np.float32), np.zeros(0, dtype=np.float32)),
    ):
        assert judged(wrong)[0] == "finding"


def test_the_fuzz_survives_a_loader_that_dies_or_hangs(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lengths = [len(fuzz_audio.make_input(0, number)) for number in range(8)]
    assert {length % 2 for length in lengths} == {0, 1}
    target = "tests.faults.bad_loader:die_or_hang"
    assert fuzz_audio.main(["--inputs", "8", "--seconds", "0.2", "--target", target]) == 1
    out = capfd.readouterr().out
    for number, length in enumerate(lengths):
        path = Path("fuzz_findings") / f"seed0-input{number}.bin"
        assert f"{path}: killed the process ({'SIGALRM' if length % 2 else 'SIGABRT'})" in out
        assert path.read_bytes() == fuzz_audio.make_input(0, number)
