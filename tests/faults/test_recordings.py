"""Every odd recording is used correctly, or refused in one line; none is trained on."""

from __future__ import annotations

import re
import shutil
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emolight.__main__ import run
from emolight.data.audio import AudioError, load_waveform
from emolight.errors import EmolightError
from tests.faults.recordings import AT_LEAST, ODD, RATE, REFUSED, USED, build
from tests.inference.conftest import checkpoint  # noqa: F401 - a fixture
from tests.small import CONFIGS, options

LIMIT = 20
"""Seconds for one recording: to hang is a failure, to wait for a busy computer is not."""
SELECTED = ["calm", "happy", "sad", "angry", "fearful"]


@pytest.fixture
def time_limit() -> Iterator[None]:
    """Stops a test that hangs in Python; in C it stops the whole run, which is better than for ever."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"still busy after {LIMIT} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_there_are_enough_of_them() -> None:
    assert len(REFUSED) >= AT_LEAST
    assert not set(USED) & set(REFUSED)


@pytest.mark.usefixtures("time_limit")
@pytest.mark.parametrize("kind", USED)
def test_a_usable_recording_is_used_correctly(kind: str, tmp_path: Path) -> None:
    odd = USED[kind]
    path = build(tmp_path, {kind: odd})[kind]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        wave = load_waveform(path, RATE, trim_db=None)
    assert (wave.dtype, wave.ndim) == (np.float32, 1)
    assert np.isfinite(wave).all()
    # Encoders work in blocks: MP3, Ogg and GSM fill up the last.
    assert len(wave) / RATE == pytest.approx(odd.seconds, rel=0.02)
    assert np.sqrt(np.mean(np.square(wave))) == pytest.approx(odd.level, rel=0.05)
    texts = [str(one.message) for one in told]
    assert [path.name in text and odd.warns in text for text in texts] == [True] if odd.warns else not texts


@pytest.mark.usefixtures("time_limit")
@pytest.mark.parametrize("kind", REFUSED)
def test_any_other_is_refused_in_one_line_with_path_and_reason(kind: str, tmp_path: Path) -> None:
    path = build(tmp_path, {kind: REFUSED[kind]})[kind]
    with pytest.raises(AudioError, match=re.escape(str(REFUSED[kind].reason))) as caught:
        load_waveform(path)
    assert re.fullmatch(rf"{re.escape(str(path))}: \S[^\n]+", str(caught.value))


@pytest.fixture(scope="module")
def broken(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The synthetic corpus with a clip of every kind that is refused, spread over the actors; kind to path."""
    root = tmp_path_factory.mktemp("broken") / "corpus"
    shutil.copytree(corpus, root)
    good = sorted(root.rglob("*.wav"))
    places = dict(zip(REFUSED, good[7 :: len(good) // len(REFUSED)], strict=False))
    assert len(places) == len(REFUSED)
    for kind, path in places.items():
        path.unlink()
        REFUSED[kind].make(path)
    return places


@pytest.fixture
def broken_options(broken: dict[str, Path]) -> list[str]:
    root = next(iter(broken.values())).parents[2]
    assert root.name == "corpus"
    return ["fit", "--config", str(CONFIGS / "mfcc.yaml"), *options(root)]


def clips_of(broken: dict[str, Path]) -> dict[str, str]:
    """Clip id to kind, without the folder, which is no file of any name."""
    return {path.stem: kind for kind, path in broken.items() if kind != "folder"}


@pytest.mark.usefixtures("here")
def test_fit_refuses_a_corpus_with_unusable_clips(broken: dict[str, Path], broken_options: list[str]) -> None:
    with pytest.raises(EmolightError) as caught:
        run(broken_options)
    first, fix = str(caught.value).splitlines()
    clip = min(clips_of(broken))
    assert first.startswith(f"{len(clips_of(broken))} of the clips cannot be used, the first: ")
    assert clip in first
    assert str(REFUSED[clips_of(broken)[clip]].reason) in first
    assert "--data.on_bad_clip skip" in fix
    assert not list(Path("lightning_logs").rglob("*.ckpt"))


@pytest.mark.filterwarnings("always::UserWarning")
def test_fit_with_skip_lists_every_one_and_trains_without_them(
    broken: dict[str, Path], broken_options: list[str], here: Path
) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert run([*broken_options, "--data.on_bad_clip=skip"]) == 0
    lines = [text for one in told if (text := str(one.message)).startswith("left out: ")]
    assert len(lines) == len(set(lines)) == len(clips_of(broken))
    for clip, kind in clips_of(broken).items():
        (line,) = (line for line in lines if clip in line)
        assert str(REFUSED[kind].reason) in line
        assert "\n" not in line
    made = here / "lightning_logs" / "mfcc" / "version_0"
    assert (made / "checkpoints" / "best.ckpt").exists()
    assert np.isfinite(pd.read_csv(made / "metrics.csv")["val/loss"].dropna()).all()
    predicted = set(pd.read_csv(made / "predictions_val.csv")["clip_id"])
    split = pd.read_csv(made / "split.csv")
    held_out = set(split.loc[split["subset"] == "val", "clip_id"])
    assert held_out & set(clips_of(broken))
    assert predicted == held_out - set(clips_of(broken))


def test_predict_says_a_line_for_each_and_hears_the_others(
    checkpoint: Path,  # noqa: F811
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    paths = build(tmp_path / "odd")
    assert run(["predict", str(checkpoint), str(tmp_path / "odd"), "--format", "jsonl"]) == 1
    told = capfd.readouterr()
    assert "Traceback" not in told.err
    lines = [line for line in told.err.splitlines() if line.startswith("emolight: ")]
    for kind, path in paths.items():
        about = [line for line in lines if f"{path}: " in line]
        heard = told.out.count(f'"{path}"')
        if kind in USED:
            assert heard == 1
            assert [str(USED[kind].warns) in line for line in about] == [True] * bool(USED[kind].warns)
        else:
            assert heard == 0
            assert len(about) == REFUSED[kind].in_folders
            assert all(str(REFUSED[kind].reason) in line for line in about)


def test_predict_names_what_a_folder_hides(checkpoint: Path, tmp_path: Path) -> None:  # noqa: F811
    hidden = {kind: odd for kind, odd in ODD.items() if not odd.in_folders and kind != "folder"}
    for path in build(tmp_path, hidden).values():
        with pytest.raises(EmolightError, match=rf"There is no file '.*{path.name}'"):
            run(["predict", str(checkpoint), str(path)])
