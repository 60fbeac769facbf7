"""The synthetic corpus: same bytes from the same seed, safe writing, and a task neither trivial nor hopeless."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from emolight.data.audio import load_waveform
from emolight.data.corpora import Synthetic
from emolight.data.corpora.ravdess import EMOTIONS
from emolight.data.corpora.synthetic import make_corpus
from emolight.errors import EmolightError

SMALL = {"actors": 2, "repetitions": 1, "duration": 0.5}


def digests(root: Path) -> dict[str, str]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "corpus"
    assert make_corpus(root, actors=12, repetitions=1, duration=1.2) == 12 * 5 * 2 * 2
    return root


def test_clips_have_the_published_names_and_layout(corpus: Path) -> None:
    found = Synthetic().find(corpus)
    assert found.passed_over == {}
    assert found.duplicates == []
    counts = found.table.groupby(["speaker", "emotion", "intensity", "statement"]).size()
    assert len(counts) == 12 * 5 * 2 * 2
    assert set(counts) == {1}
    assert set(found.table["channel"]) == {"speech"}
    assert (corpus / "Audio_Speech_Actors_01-24" / "Actor_12" / "03-01-06-02-02-01-12.wav").is_file()


def test_clips_are_usable_speech_like_sounds(corpus: Path) -> None:
    for path in sorted(corpus.rglob("*.wav"))[::7]:
        samples, rate = soundfile.read(path)
        assert rate == 16000
        assert np.abs(samples).max() < 0.999
        whole, trimmed = load_waveform(path, trim_db=None), load_waveform(path)
        assert 0.4 < len(trimmed) / rate < len(whole) / rate < 3


def test_women_speak_higher(corpus: Path) -> None:
    pitch = {1: [], 0: []}  # type: dict[int, list[float]]
    for path in sorted(corpus.rglob("03-01-02-01-*.wav")):
        heights = librosa.yin(load_waveform(path), fmin=60, fmax=400, sr=16000)
        pitch[int(path.stem[-2:]) % 2].append(float(np.median(heights)))
    assert np.median(pitch[0]) > 1.4 * np.median(pitch[1])


def test_everything_says_synthetic(corpus: Path) -> None:
    assert "synthetic" in (corpus / "README.txt").read_text()
    assert json.loads((corpus / "synthetic.json").read_text())["synthetic"] is True


def test_emotions_of_unheard_actors_lie_in_contours_and_little_in_means(corpus: Path) -> None:
    table = Synthetic().find(corpus).table
    means, contours = [], []
    for path in table["path"]:
        waveform = load_waveform(corpus / path)
        mfcc = librosa.feature.mfcc(y=waveform, sr=16000, n_mfcc=20, n_fft=512)
        means.append([*mfcc.mean(axis=1), *mfcc.std(axis=1)])
        level = np.log([np.square(part).mean() + 1e-9 for part in np.array_split(waveform, 14)])
        contours.append(level - level.mean())
    scores = [
        cross_val_score(
            make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)),
            features,
            table["emotion"],
            groups=table["speaker"],
            cv=GroupKFold(6),
        ).mean()
        for features in (means, contours)
    ]
    assert 0.2 < scores[0] < 0.6  # chance: 0.2
    assert scores[0] + 0.1 < scores[1] < 0.95


def test_bytes_follow_the_parameters(tmp_path: Path) -> None:
    one, two, other, few = (tmp_path / name for name in ("one", "two", "other", "few"))
    make_corpus(one, **SMALL)
    make_corpus(two, **SMALL)
    make_corpus(other, seed=1, **SMALL)
    make_corpus(few, **{**SMALL, "actors": 1})
    first, reseeded = digests(one), digests(other)
    assert first == digests(two)
    assert not any(digest == reseeded[name] for name, digest in first.items() if name.endswith(".wav"))
    assert all(first[name] == digest for name, digest in digests(few).items() if name.endswith(".wav"))


def test_all_emotions_have_neutral_in_one_intensity(tmp_path: Path) -> None:
    assert make_corpus(tmp_path / "all", emotions=EMOTIONS, actors=1, repetitions=1, duration=0.5) == 15 * 2
    assert len(Synthetic().find(tmp_path / "all").table) == 30


def test_prepare_makes_mends_and_keeps_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "corpus"
    assert make_corpus(root, **SMALL) == 40
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    Synthetic().prepare(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    sorted(root.rglob("*.wav"))[3].unlink()
    Synthetic().prepare(root)
    assert len(Synthetic().find(root).table) == 40
    made: list[Path] = []
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("emolight.data.corpora.synthetic._write", lambda root, _: made.append(root))
    make_corpus("~/other")
    assert made == [tmp_path / "other"]


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_incomplete_corpus_is_written_again(tmp_path: Path, damage: str) -> None:
    root = tmp_path / "corpus"
    make_corpus(root, **SMALL)
    whole = digests(root)
    clip = sorted(root.rglob("*.wav"))[5]
    if damage == "missing":
        clip.unlink()
    else:
        clip.write_bytes(clip.read_bytes()[:100])
    make_corpus(root, **SMALL)
    assert digests(root) == whole


def test_other_parameters_replace_the_corpus_and_leave_nothing_beside_it(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    make_corpus(root, **SMALL)
    (tmp_path / ".corpus.12345.part").mkdir()  # of a killed process
    assert make_corpus(root, actors=1, repetitions=1, duration=0.5) == 20
    assert len(list(root.rglob("*.wav"))) == 20
    assert {path.name for path in tmp_path.iterdir()} <= {"corpus", ".corpus.lock"}


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    assert make_corpus(tmp_path, **SMALL) == 40


def test_folder_with_other_files_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(EmolightError, match=r"thesis\.txt"):
        make_corpus(tmp_path, **SMALL)
    assert digests(tmp_path).keys() == {"thesis.txt"}


def test_synthetic_corpus_with_files_added_is_not_replaced(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    make_corpus(root, **SMALL)
    (root / "Audio_Speech_Actors_01-24" / "notes.txt").write_text("mine")
    with pytest.raises(EmolightError, match=r"notes\.txt"):
        make_corpus(root, seed=5, **SMALL)
    assert len(list(root.rglob("*.wav"))) == 40


def test_marker_of_somebody_else_is_not_taken_for_ours(tmp_path: Path) -> None:
    for content in ("[1]", "{", '{"files": 3}', '{"parameters": {"mine": 1}}', '{"parameters": {"actors": "x"}}'):
        (tmp_path / "synthetic.json").write_text(content)
        with pytest.raises(EmolightError, match=r"no part of a synthetic corpus"):
            Synthetic().prepare(tmp_path)
        assert (tmp_path / "synthetic.json").read_text() == content


def test_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus").write_text("a file")
    with pytest.raises(EmolightError, match="is a file"):
        make_corpus(tmp_path / "corpus")
    with pytest.raises(EmolightError, match="cannot be written"):
        make_corpus(tmp_path / "corpus" / "below")


@pytest.mark.parametrize(
    "wrong",
    [{"actors": 0}, {"actors": 25}, {"repetitions": 3}, {"seed": -1}, {"duration": 0.0}, {"sample_rate": 100}],
)
def test_parameters_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(EmolightError, match=next(iter(wrong))):
        make_corpus(tmp_path / "corpus", **wrong)
    with pytest.raises(EmolightError, match="Did you mean 'happy'"):
        make_corpus(tmp_path / "corpus", emotions=["hapy"])
    assert not (tmp_path / "corpus").exists()
