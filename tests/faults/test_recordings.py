"""Every odd recording is used correctly, or refused in one line; none is trained on."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emolight.__main__ import run
from emolight.data.audio import AudioError, load_waveform
from emolight.data.datamodule import MOST_WARNINGS
from emolight.errors import EmolightError
from tests.faults.recordings import RATE, REFUSED, USED, build
from tests.inference.conftest import checkpoint  # noqa: F401 - a fixture
from tests.small import CONFIGS, LIGHT, options


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
    # Not the interpreter's own, such as of a file that an earlier test left open.
    texts = [str(one.message) for one in told if issubclass(one.category, UserWarning)]
    assert [path.name in text and odd.warns in text for text in texts] == [True] if odd.warns else not texts
    with warnings.catch_warnings(action="ignore"):
        np.testing.assert_array_equal(load_waveform("x", RATE, None, path.read_bytes()), wave)


@pytest.mark.parametrize("kind", REFUSED)
def test_any_other_is_refused_in_one_line_with_path_and_reason(kind: str, tmp_path: Path) -> None:
    path = build(tmp_path, {kind: REFUSED[kind]})[kind]
    with pytest.raises(AudioError, match=re.escape(str(REFUSED[kind].reason))) as caught:
        load_waveform(path)
    assert re.fullmatch(rf"{re.escape(str(path))}: \S[^\n]+", str(caught.value))


@pytest.fixture(scope="module")
def broken(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The synthetic corpus with a clip of every kind that is refused, spread over the speakers; kind to path."""
    root = tmp_path_factory.mktemp("broken") / "corpus"
    shutil.copytree(corpus, root)
    good = sorted(root.rglob("*.wav"))
    places = dict(zip(REFUSED, good[7 :: len(good) // len(REFUSED)], strict=False))
    assert len(places) == len(REFUSED)
    for kind, path in places.items():
        path.unlink()
        REFUSED[kind].make(path)
    del places["folder"]  # which is no file of any name
    return places


@pytest.mark.filterwarnings("always::UserWarning")
def test_fit_refuses_unusable_clips_and_with_skip_trains_without_them(broken: dict[str, Path], here: Path) -> None:
    root = next(iter(broken.values())).parents[2]
    words = ["fit", "--config", str(CONFIGS / "mfcc.yaml"), *options(root, **LIGHT, **{"data.corpus": "RAVDESS"})]
    with pytest.raises(EmolightError, match=rf"^{len(broken)} of the clips cannot be used, .*\n.*on_bad_clip skip"):
        run(words)
    assert not list(Path("lightning_logs").rglob("*.ckpt"))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert run([*words, "--data.on_bad_clip=skip"]) == 0
    lines = [text for one in told if (text := str(one.message)).startswith("left out: ")]
    reasons = {path.name: str(REFUSED[kind].reason) for kind, path in broken.items()}
    assert len(lines) == MOST_WARNINGS
    for line in lines:
        path, _, said = line.removeprefix("left out: ").partition(": ")
        assert reasons[Path(path).name] in said
        assert "\n" not in said
    (table,) = here.glob("lightning_logs/mfcc/*/predictions_val.csv")
    predicted, bad = set(pd.read_csv(table)["clip_id"].astype(str)), {path.stem for path in broken.values()}
    assert predicted
    assert not predicted & bad
    assert np.isfinite(pd.read_csv(table.parent / "metrics.csv")["val/loss"].dropna()).all()


def test_predict_names_each_and_answers_the_others(
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
        if kind in USED:
            assert told.out.count(f'"{path}"') >= 1
            assert [str(USED[kind].warns) in line for line in about] == [True] * bool(USED[kind].warns)
        else:
            assert f'"{path}"' not in told.out
            assert len(about) == REFUSED[kind].in_folders
            assert all(str(REFUSED[kind].reason) in line for line in about)
