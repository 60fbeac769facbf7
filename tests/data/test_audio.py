"""Decoding: every odd recording is used correctly or refused in one line with path and reason."""

from __future__ import annotations

import errno
import os
import pickle
import re
import struct
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from emolight.data.audio import AudioError, load_waveform, read_audio, trim_silence
from emolight.errors import EmolightError

RATE = 16000


def tone(seconds: float = 0.5, rate: int = RATE, level: float = 0.3) -> NDArray[np.float32]:
    return (level * np.sin(2 * np.pi * 220 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def wav(
    samples: bytes, rate: int = RATE, channels: int = 1, bits: int = 16, size: int | None = None, code: int = 1
) -> bytes:
    """A WAV file with any header one likes."""
    width = channels * bits // 8
    head = struct.pack("<HHIIHH", code, channels, rate, (rate * width) % 2**32, width % 2**16, bits)
    data = struct.pack("<4sI", b"data", len(samples) if size is None else size) + samples
    body = b"WAVE" + struct.pack("<4sI", b"fmt ", len(head)) + head + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def pcm16(wave: NDArray[np.float32]) -> bytes:
    return (wave * 32767).astype("<i2").tobytes()


PCM = pcm16(tone())


def with_value(value: float) -> bytes:
    samples = tone()
    samples[100] = value
    return wav(samples.astype("<f4").tobytes(), bits=32, code=3)


def flac(path: Path) -> bytes:
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, RATE), RATE, format="FLAC")
    return path.read_bytes()


REFUSED = {
    "empty": (b"", "empty"),
    "text": (b"this is no recording\n" * 50, "not readable as audio"),
    "html": (b"<!DOCTYPE html><html>404</html>", "not readable as audio"),
    "four bytes": (b"RIFF", "not readable as audio"),
    "header only": (wav(b""), "no samples"),
    "cut in the header": (wav(PCM)[:30], "no samples"),
    "cut in the samples": (wav(PCM)[:-2000], "cut short: 14000 of the 16000 bytes"),
    "cut by one byte": (wav(PCM)[:-1], "cut short"),
    "size promises too much": (wav(PCM, size=10**9), "cut short"),
    "size promises too little": (wav(PCM, size=4000), "header promises 4000 bytes"),
    "rate 0": (wav(PCM, rate=0), "sample rate of 0 Hz"),
    "rate 100": (wav(PCM, rate=100), "sample rate of 100 Hz"),
    "rate 4e9": (wav(PCM, rate=4_000_000_000), "sample rate of 4000000000 Hz"),
    "rate 1e6": (wav(PCM, rate=1_000_000), "sample rate of 1000000 Hz"),
    "0 channels": (wav(PCM, channels=0), "Channel count is zero"),
    "1000 channels": (wav(PCM * 20, channels=1000), "channels"),
    "40 channels": (wav(PCM * 80, channels=40), "number of channels: 40"),
    "unknown codec": (wav(PCM, code=0x1234), "not readable as audio"),
    "one sample": (wav(PCM[:2]), "shorter than 50 ms"),
    "silence": (wav(bytes(16000)), "silent"),
    "dither only": (wav(np.tile([1, -1], 4000).astype("<i2").tobytes()), "silent"),
    "NaN": (with_value(np.nan), "NaN or infinite"),
    "Inf": (with_value(np.inf), "NaN or infinite"),
    "1e30": (with_value(1e30), "1e+30 times full scale"),
    "integers as floats": (with_value(-32768.0), "times full scale"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_recording_is_refused_in_one_line_with_path_and_reason(tmp_path: Path, case: str) -> None:
    path = tmp_path / "clip.wav"
    content, reason = REFUSED[case]
    path.write_bytes(content)
    with pytest.raises(AudioError, match=re.escape(reason)) as caught:
        load_waveform(path)
    text = str(caught.value)
    assert text == f"{path}: {caught.value.reason}"
    assert "\n" not in text
    assert caught.value.reason


def test_cut_flac_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.flac"
    whole = flac(path)
    assert len(read_audio(path)[0]) == RATE
    for length in (len(whole) // 2, len(whole) - 100, 50):
        path.write_bytes(whole[:length])
        with pytest.raises(AudioError):
            read_audio(path)


def test_flac_that_promises_years_is_refused_without_allocating_them(tmp_path: Path) -> None:
    path = tmp_path / "clip.flac"
    content = bytearray(flac(path))
    content[21] |= 0x0F  # total samples: the low 4 bits of byte 21 and bytes 22 to 25
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)
    with pytest.raises(AudioError, match="absurd length"):
        read_audio(path)


def test_folder_missing_file_and_dangling_link_are_refused(tmp_path: Path) -> None:
    folder, link = tmp_path / "folder.wav", tmp_path / "link.wav"
    folder.mkdir()
    link.symlink_to(tmp_path / "nowhere.wav")
    for path, reason in (
        (folder, "is a folder"),
        (link, "no such file"),
        (tmp_path / "none.wav", "no such file"),
    ):
        with pytest.raises(AudioError, match=reason):
            load_waveform(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_named_pipe_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioError, match="no such file"):
        read_audio(tmp_path / "pipe.wav")


def test_file_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's refusal is played: root, as whom tests may run, reads everything."""

    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    path = tmp_path / "clip.wav"
    path.write_bytes(wav(PCM))
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(AudioError, match=r"clip\.wav.*cannot be read \(Permission denied\)"):
        read_audio(path)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
def test_every_sample_format_gives_the_same_sound(tmp_path: Path, subtype: str) -> None:
    soundfile.write(tmp_path / "clip.wav", tone(), RATE, subtype)
    wave, rate = read_audio(tmp_path / "clip.wav")
    assert (rate, wave.dtype, wave.shape) == (RATE, np.float32, (RATE // 2,))
    assert np.abs(wave - tone()).max() < 0.02


@pytest.mark.parametrize("file_format", ["FLAC", "OGG", "MP3", "RF64", "WAVEX", "AIFF"])
def test_content_decides_and_not_the_suffix(tmp_path: Path, file_format: str) -> None:
    soundfile.write(tmp_path / "clip.wav", tone(1.0), RATE, format=file_format)
    wave = load_waveform(tmp_path / "clip.wav", trim_db=None)
    assert 0.19 < np.sqrt(np.mean(wave**2)) < 0.23


def test_wav_stream_of_unknown_length_is_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "clip.wav").write_bytes(wav(PCM, size=0xFFFFFFFF))
    assert len(read_audio(tmp_path / "clip.wav")[0]) == len(tone())


def test_wav_with_chunks_before_and_after_the_samples_is_read(tmp_path: Path) -> None:
    whole = wav(PCM)
    extra = struct.pack("<4sI", b"LIST", 5) + b"hello\0"
    (tmp_path / "clip.wav").write_bytes(whole[:36] + extra + whole[36:] + extra)
    assert len(read_audio(tmp_path / "clip.wav")[0]) == len(tone())


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(), np.random.default_rng(0).normal(0, 0.1, RATE // 2).astype(np.float32)
    soundfile.write(tmp_path / "clip.wav", np.stack([left, right], axis=1), RATE, "FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "clip.wav")[0], (left + right) / 2, atol=1e-6)


def test_opposite_phase_stereo_gives_one_channel_and_a_warning(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "clip.wav", np.stack([tone(), -tone()], axis=1), RATE, "FLOAT")
    with pytest.warns(UserWarning, match=r"clip\.wav: the channels cancel"):
        wave, _ = read_audio(tmp_path / "clip.wav")
    np.testing.assert_allclose(wave, tone(), atol=1e-6)


def test_resampling_keeps_a_tone_and_its_length(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "clip.wav", tone(1.0, 48000), 48000, "FLOAT")
    wave = load_waveform(tmp_path / "clip.wav", 16000, trim_db=None)
    assert wave.shape == (16000,)
    np.testing.assert_allclose(wave[1000:-1000], tone(1.0)[1000:-1000], atol=1e-3)


def test_sound_that_the_new_rate_cannot_hold_is_refused(tmp_path: Path) -> None:
    fast = 0.3 * np.sin(2 * np.pi * 20000 * np.arange(48000) / 48000) * np.hanning(48000)
    soundfile.write(tmp_path / "clip.wav", fast, 48000, "FLOAT")
    with pytest.raises(AudioError, match="silent at 16000 Hz"):
        load_waveform(tmp_path / "clip.wav")


@pytest.mark.parametrize("trim_db", [10, 30, 60, 90])
def test_trim_equals_librosa(trim_db: float) -> None:
    rng = np.random.default_rng(int(trim_db))
    for length in (1, 511, 512, 2047, 5000, 40000):
        loudness = 10 ** rng.uniform(-6, 0, 10)
        wave = rng.normal(0, 1, length) * np.interp(np.linspace(0, 9, length), np.arange(10), loudness)
        wave = wave.astype(np.float32)
        np.testing.assert_array_equal(trim_silence(wave, trim_db), librosa.effects.trim(wave, top_db=trim_db)[0])


def test_trim_cuts_what_stands_around_the_sound(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "clip.wav", np.concatenate([np.zeros(RATE), tone(), np.zeros(RATE)]), RATE)
    trimmed = load_waveform(tmp_path / "clip.wav", RATE, 60.0)
    assert len(tone()) <= len(trimmed) < len(tone()) + 3 * 2048
    assert len(load_waveform(tmp_path / "clip.wav", RATE, None)) == 2 * RATE + len(tone())


@pytest.mark.parametrize("trim_db", [0, -60, np.nan, np.inf])
def test_trim_refuses_a_threshold_that_makes_no_sense(trim_db: float) -> None:
    with pytest.raises(EmolightError, match="trim_db"):
        trim_silence(tone(), trim_db)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_random_damage_gives_samples_or_an_error_of_ours(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "clip.aiff", tone(), RATE)
    seeds = [wav(PCM), flac(tmp_path / "clip.flac"), (tmp_path / "clip.aiff").read_bytes()]
    for turn in range(900):
        content = bytearray(seeds[turn % 3])
        for place in rng.integers(0, 80, rng.integers(1, 8)):
            content[place] = rng.integers(256)
        try:
            wave = load_waveform("damaged.wav", content=bytes(content))
        except EmolightError:
            continue
        assert np.isfinite(wave).all()
        assert len(wave)


def test_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(AudioError("a.wav", "is silent")))
    assert (str(error), error.path, error.reason) == ("a.wav: is silent", "a.wav", "is silent")


@pytest.mark.real
def test_real_recording_equals_the_usual_loader(ravdess_root: Path) -> None:
    for path in sorted(ravdess_root.rglob("*.wav"))[:600:60]:
        expected, _ = librosa.load(path, sr=16000)
        expected, _ = librosa.effects.trim(expected)
        ours = load_waveform(path, 16000, trim_db=60.0)
        np.testing.assert_allclose(ours[:-1], expected[: len(ours) - 1], atol=1e-6)
