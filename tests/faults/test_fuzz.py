"""Properties of what users can mistype or damage: names, splits, configurations; and a short fuzz of the loader.

The long run is a script: ``python tests/faults/fuzz_audio.py --inputs 50000``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emolight.data.audio import AudioError
from emolight.data.ravdess import CHANNELS, COLUMNS, EMOTIONS, discover, expected_clips, is_video, parse_name
from emolight.data.splits import COLUMNS as SPLIT_COLUMNS
from emolight.data.splits import FOLDS, SUBSETS, make_split, read_split, write_split
from emolight.errors import EmolightError
from emolight.experiments.crossval import full_config
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
few = settings(quick, max_examples=40)

CLIPS = expected_clips()
CLIPS = CLIPS[CLIPS["actor"].isin([1, 2, 4, 5]) & (CLIPS["channel"] == "speech")].reset_index(drop=True)
SPLIT = make_split(CLIPS, "emobox6", 1)

fields = st.integers(0, 99).map(lambda number: f"{number:02d}")
near_names = st.tuples(
    st.sampled_from(["01", "02", "03"]), *[st.sampled_from(["00", "01", "02", "09"])] * 5, fields
)
names = st.one_of(
    st.text(),
    st.from_regex(r"0[0-9](-[0-9]{2}){5,7}\s?", fullmatch=True),
    near_names.map("-".join),
    st.tuples(st.sampled_from(CLIPS["clip_id"].tolist()), st.text(max_size=3)).map("".join),
)


def said_in_lines(error: EmolightError) -> None:
    """Problem and fix are a line each, and of a length to read."""
    assert 1 <= len(str(error).splitlines()) <= 2
    assert all(line.strip() and len(line) < 1000 for line in str(error).splitlines())


@quick
@given(names)
def test_any_text_is_a_clip_of_the_grammar_or_none(name: str) -> None:
    clip = parse_name(name)
    assert clip is None or not is_video(name)
    if clip is not None:
        assert set(clip) == set(COLUMNS) - {"path"}
        assert name_of(clip) == name == clip["clip_id"]


@quick
@given(
    st.sampled_from(CHANNELS), st.sampled_from(EMOTIONS), st.tuples(*[st.integers(1, 2)] * 3), st.integers(1, 24)
)
def test_a_valid_name_comes_back_from_its_fields(
    channel: str, emotion: str, rest: tuple[int, int, int], actor: int
) -> None:
    numbers = [3, CHANNELS.index(channel) + 1, EMOTIONS.index(emotion) + 1, *rest, actor]
    name = "-".join(f"{number:02d}" for number in numbers)
    clip = parse_name(name)
    never = (channel == "song" and emotion in EMOTIONS[6:]) or (emotion == "neutral" and rest[0] == 2)
    assert (clip is None) == never
    if clip is not None:
        assert name_of(clip) == name


def name_of(clip: dict[str, Any]) -> str:
    """The file name that has these fields."""
    numbers = [
        *(3, CHANNELS.index(clip["channel"]) + 1, EMOTIONS.index(clip["emotion"]) + 1),
        *(1 + (clip["intensity"] == "strong"), clip["statement"], clip["repetition"], clip["actor"]),
    ]
    return "-".join(f"{number:02d}" for number in numbers)


file_names = st.one_of(
    st.binary(min_size=1, max_size=60).filter(lambda name: b"/" not in name and b"\0" not in name),
    st.tuples(
        near_names.map("-".join), st.sampled_from([".wav", ".FLAC", ".mp3", ".mp4", "", ".wav.wav", "\n.wav"])
    )
    .map("".join)
    .map(str.encode),
).filter(lambda name: name not in (b".", b".."))


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
        table = discover(root).table
    except EmolightError as error:
        said_in_lines(error)
        return
    assert all(parse_name(name) for name in table["clip_id"])
    assert table["clip_id"].is_unique


@quick
@given(st.text(st.characters(exclude_categories=[]), min_size=1))
def test_an_audio_error_is_one_line_whatever_the_path(name: str) -> None:
    assert len(str(AudioError(name, "is silent")).splitlines()) == 1


def text_of(rows: list[list[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


ROWS = [list(SPLIT_COLUMNS), *SPLIT.astype(str)[list(SPLIT_COLUMNS)].to_numpy().tolist()]
odd_values = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", "train", "val", "test", "5", "05", "5.0", "0" * 5000 + "5", "nan", "x\ny", "\0", "٥"]),
    st.sampled_from(
        ["emobox6 fold 1", "emobox6\tfold 1", "emobox6", "random seed 0", "custom", "calm", "a" * 3000]
    ),
    st.sampled_from(CLIPS["clip_id"].tolist()),
)
edits = st.lists(st.tuples(st.integers(0, 12), st.integers(0, len(SPLIT_COLUMNS) - 1), odd_values), max_size=3)


@st.composite
def edited_splits(draw: st.DrawFn) -> bytes:
    """A split with cells replaced, rows dropped, repeated or cut short, and a few bytes broken."""
    rows = [list(row) for row in ROWS[: draw(st.integers(0, 12))]]
    for line, column, value in draw(edits):
        if line < len(rows):
            rows[line][column] = value
    for line in draw(st.lists(st.integers(0, 12), max_size=2)):
        if line < len(rows):
            rows.insert(draw(st.integers(0, len(rows))), rows[line][: draw(st.integers(0, len(SPLIT_COLUMNS)))])
    content = bytearray(text_of(rows).encode())
    for place, piece in draw(st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3)), max_size=2)):
        content[place : place + 1] = piece
    return bytes(content)


def check_split(content: bytes, path: Path) -> None:
    """A split file gives a table that keeps every promise of the protocol, or an error of one line and a fix."""
    path.write_bytes(content)
    try:
        table = read_split(path, CLIPS)
    except EmolightError as error:
        said_in_lines(error)
        return
    known = CLIPS.set_index("clip_id")
    assert list(table.columns) == list(SPLIT_COLUMNS)
    assert len(table)
    assert table["clip_id"].is_unique
    assert set(table["clip_id"]) <= set(known.index)
    assert (table["emotion"].to_numpy() == known.loc[table["clip_id"], "emotion"].to_numpy()).all()
    assert (table["actor"].to_numpy() == known.loc[table["clip_id"], "actor"].to_numpy()).all()
    assert set(table["subset"]) <= set(SUBSETS)
    assert table["protocol"].nunique() == 1
    if table["protocol"].iloc[0].split()[0] in FOLDS:
        assert table.groupby("actor")["subset"].nunique().eq(1).all()


@quick
@given(edited_splits())
def test_an_edited_split_is_a_valid_table_or_an_error(tmp_path: Path, content: bytes) -> None:
    check_split(content, tmp_path / "split.csv")


@quick
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(lambda text: text.encode(errors="replace"))))
def test_arbitrary_bytes_are_no_split(tmp_path: Path, content: bytes) -> None:
    check_split(content, tmp_path / "split.csv")


def test_a_whole_split_passes_the_same_check(tmp_path: Path) -> None:
    write_split(tmp_path / "good.csv", SPLIT)
    check_split((tmp_path / "good.csv").read_bytes(), tmp_path / "split.csv")
    assert len(read_split(tmp_path / "split.csv", CLIPS)) == len(CLIPS)


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
    st.sampled_from(["mfcc", "mel", "happy", "emobox6", "true", "1e-3", "null", "[1]", "{a: 1}", "&a", "a\nb"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.text(max_size=5), numbers), inner, max_size=2)
    ),
    max_leaves=4,
)


def overlay_of(ways: list[tuple[tuple[Any, ...], Any]]) -> dict[Any, Any]:
    """Nested dictionaries that set the value at the end of each way."""
    overlay: dict[Any, Any] = {}
    for way, value in ways:
        node = overlay
        for name in way[:-1]:
            inner = node.setdefault(name, {})
            node = inner if isinstance(inner, dict) else node.__setitem__(name, {}) or node[name]
        node[way[-1]] = value
    return overlay


def check_overlay(text: str | bytes, path: Path) -> bool:
    """Whether ``fit`` takes an overlay; if not, it says so in few lines."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        config = full_config(["--config", str(CONFIGS / "mfcc.yaml"), "--config", str(path)])
    except EmolightError as error:
        said_in_lines(error)
        return False
    assert {"data", "model", "trainer"} <= set(config)
    return True


ways = st.tuples(st.deferred(lambda: st.sampled_from(known_options())), values)


@few
@given(st.lists(ways, min_size=1, max_size=3))
def test_an_overlay_of_known_options_is_taken_or_refused(tmp_path: Path, found: list[Any]) -> None:
    check_overlay(yaml.safe_dump(overlay_of(found)), tmp_path / "overlay.yaml")


@few
@given(
    st.one_of(st.dictionaries(st.text(max_size=8), values, max_size=3).map(yaml.safe_dump), st.text(), st.binary())
)
def test_an_overlay_of_anything_is_taken_or_refused(tmp_path: Path, text: str | bytes) -> None:
    check_overlay(text.encode(errors="replace") if isinstance(text, str) else text, tmp_path / "overlay.yaml")


def test_an_overlay_that_is_right_is_taken(tmp_path: Path) -> None:
    assert check_overlay("data: {batch_size: 8}", tmp_path / "right.yaml")
    assert not check_overlay("data: {batch_syze: 8}", tmp_path / "wrong.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"name: \x80", "overlay.yaml is not valid YAML: 'utf-8' codec"),
        (b"model:", "overlay.yaml: model is empty"),
        (b"trainer: null", "overlay.yaml: trainer is empty"),
        (b"data: 3", "overlay.yaml: data is '3'"),
        (b"model: {features: [1]}", r"overlay.yaml: model.features is '\[1\]'"),
        (b"data: {fold: x}", "data.fold is 'x'.\nExpected: int, null."),
        (b"trainer: {devices: [null]}", r"trainer.devices is '\[None\]'.\nExpected: list\[int\], str, int."),
        (b"a: &a [*a]", "not valid YAML: maximum recursion depth"),
    ],
)
def test_what_the_fuzz_found_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "overlay.yaml").write_bytes(text)
    with pytest.raises(EmolightError, match=message) as caught:
        full_config(["--config", str(CONFIGS / "mfcc.yaml"), f"--config={tmp_path / 'overlay.yaml'}"])
    said_in_lines(caught.value)


def test_a_short_fuzz_of_the_loader_finds_nothing(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert fuzz_audio.main(["--inputs", "1000", "--seed", "1"]) == 0
    assert "1000 inputs of seed 1" in capfd.readouterr().out
    assert not list(here.iterdir())


def gives(value: Any) -> Callable[..., Any]:
    return lambda path, content: value


def raises(error: BaseException) -> Callable[..., Any]:
    def load(path: str, content: bytes) -> Any:
        raise error

    return load


@pytest.mark.parametrize(
    ("loader", "kind", "text"),
    [
        (gives(np.full(100, 0.1, dtype=np.float32)), "accepted", ""),
        (raises(AudioError(fuzz_audio.PATH, "cut short: 30 of the 44 bytes")), "refused", "N of the N bytes"),
        (raises(AudioError(fuzz_audio.PATH, "two\nlines")), "refused", "two lines"),
        (raises(EmolightError("Something.")), "finding", "not one line with path"),
        (raises(AudioError(fuzz_audio.PATH, "not readable (MemoryError)")), "finding", "more memory"),
        (raises(ValueError("not ours")), "finding", "ValueError: not ours"),
        (raises(KeyboardInterrupt()), "finding", "KeyboardInterrupt"),
        (gives(np.full(100, np.nan, dtype=np.float32)), "finding", "peak of nan"),
        (gives(np.zeros(100, dtype=np.float32)), "finding", "peak of 0"),
        (gives(np.zeros((100, 2), dtype=np.float32)), "finding", "(100, 2)"),
        (gives(np.zeros(0, dtype=np.float32)), "finding", "(0,)"),
        (gives(np.full(100, 0.1)), "finding", "float64"),
    ],
)
def test_the_fuzz_judges_a_loader(loader: Callable[..., Any], kind: str, text: str) -> None:
    said = fuzz_audio.judge(loader, b"")
    assert said[0] == kind
    assert text in said[1]


def test_the_fuzz_survives_a_loader_that_dies_or_hangs(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lengths = [len(fuzz_audio.make_input(0, number)) for number in range(8)]
    options = ["--inputs", "8", "--seconds", "0.2", "--target", "tests.faults.bad_loader:die_or_hang"]
    assert {length % 2 for length in lengths} == {0, 1}
    assert fuzz_audio.main(options) == 1
    out = capfd.readouterr().out
    for number, length in enumerate(lengths):
        path = Path("fuzz_findings") / f"seed0-input{number}.bin"
        assert f"{path}: killed the process ({'SIGALRM' if length % 2 else 'SIGABRT'})" in out
        assert path.read_bytes() == fuzz_audio.make_input(0, number)
