"""Decoding: the right samples, whole or refused by name. Odd and broken files stand in tests/faults."""

from __future__ import annotations

import errno
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from emolight.data import sound_file
from emolight.data.audio import (
    AudioError,
    content_hash,
    fix_length,
    from_array,
    load_waveform,
    profile,
    read_audio,
    read_bytes,
    sound_range,
    to_mono,
    trim_silence,
)
from emolight.errors import EmolightError
from tests.faults.recordings import pcm, sound, voice, wav

RATE = 16000


def noise(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.1, (round(seconds * rate), channels)).astype(np.float32)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
def test_every_sample_format_gives_the_same_sound(tmp_path: Path, subtype: str) -> None:
    (tmp_path / "clip.wav").write_bytes(sound(voice(), subtype=subtype))
    wave, rate = read_audio(tmp_path / "clip.wav")
    assert (rate, wave.dtype, wave.shape) == (RATE, np.float32, (RATE,))
    assert np.abs(wave - voice()).max() < 0.02


def test_channels_are_averaged_and_opposite_ones_give_the_loudest(tmp_path: Path) -> None:
    stereo = noise(2, 44100, 2)
    soundfile.write(tmp_path / "clip.wav", stereo, 44100, "FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "clip.wav")[0], stereo.mean(axis=1), atol=1e-6)
    soundfile.write(tmp_path / "clip.wav", stereo[:, :1] * [0.5, -0.55], 44100, "FLOAT")
    with pytest.warns(UserWarning, match=r"clip\.wav: the channels cancel each other; only channel 2 is used"):
        wave, _ = read_audio(tmp_path / "clip.wav")
    np.testing.assert_allclose(wave, -0.55 * stereo[:, 0], atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
def test_files_bytes_and_arrays_are_the_same_samples(tmp_path: Path, rate: int, container: str) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(sound(noise(7, rate, 2), rate, container))
    wave, own = read_audio(path)
    resampled, native = read_audio(path, sample_rate=RATE)
    assert own == native == rate
    np.testing.assert_array_equal(resampled, to_mono(wave[:, None], rate, path, RATE))
    np.testing.assert_array_equal(resampled, load_waveform("x", RATE, None, path.read_bytes()))
    np.testing.assert_array_equal(resampled, librosa.resample(wave, orig_sr=rate, target_sr=RATE, res_type="soxr_hq"))
    samples, _ = soundfile.read(path, dtype="float32", always_2d=True)
    np.testing.assert_allclose(to_mono(samples, rate, "x"), wave, atol=1e-7)
    np.testing.assert_allclose(to_mono(samples, rate, "x", RATE), resampled, atol=1e-6)


@pytest.mark.parametrize(
    ("container", "subtype"), [("WAV", "PCM_16"), ("WAV", "GSM610"), ("FLAC", None), ("OGG", None)]
)
def test_a_part_is_the_part_of_the_whole(tmp_path: Path, container: str, subtype: str | None) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(sound(noise(9, RATE), RATE, container, subtype))
    whole, _ = read_audio(path)
    for start, end in ((6.0, 6.5), (None, 1.0), (8.5, None), (8.5, 9.005)):
        piece = load_waveform(path, RATE, None, start=start, end=end)
        expected = whole[round((start or 0) * RATE) : None if end is None else round(end * RATE)]
        np.testing.assert_allclose(piece, expected, atol=1e-6)
    for start, end in ((-1.0, 2.0), (3.0, 3.0), (4.0, 3.0), (8.0, 9.2), (9.5, None)):
        with pytest.raises(AudioError, match=rf"has no part from {start:g} s to .*: it lasts 9.0\d s"):
            load_waveform(path, RATE, start=start, end=end)
    with pytest.raises(AudioError, match="shorter than 50 ms"):
        load_waveform(path, RATE, start=1.0, end=1.01)


def test_sound_that_the_new_rate_cannot_hold_is_refused(tmp_path: Path) -> None:
    fast = 0.3 * np.sin(2 * np.pi * 20000 * np.arange(48000) / 48000) * np.hanning(48000)
    soundfile.write(tmp_path / "clip.wav", fast, 48000, "FLOAT")
    with pytest.raises(AudioError, match="silent at 16000 Hz"):
        load_waveform(tmp_path / "clip.wav")


def test_channels_whose_mean_is_silent_are_refused_in_a_file_and_in_an_array(tmp_path: Path) -> None:
    stereo = (4e-5 * np.sin(np.arange(RATE) * 0.1)[:, None] * [1.0, -0.875]).astype(np.float32)
    soundfile.write(tmp_path / "clip.wav", stereo, RATE, "FLOAT")
    with pytest.raises(AudioError, match="silent at 16000 Hz"):
        read_audio(tmp_path / "clip.wav")
    with pytest.raises(AudioError, match="silent at 16000 Hz"):
        to_mono(stereo, RATE, "array")


@pytest.mark.parametrize("trim_db", [10, 30, 60, 90])
def test_trim_equals_librosa(trim_db: float) -> None:
    rng = np.random.default_rng(int(trim_db))
    for length in (1, 511, 512, 2047, 5000, 40_000, 300_000):
        loudness = 10 ** rng.uniform(-6, 0, 10)
        wave = rng.normal(0, 1, length) * np.interp(np.linspace(0, 9, length), np.arange(10), loudness)
        wave = wave.astype(np.float32)
        np.testing.assert_array_equal(trim_silence(wave, trim_db), librosa.effects.trim(wave, top_db=trim_db)[0])


@pytest.mark.parametrize("snr", [20, 10, 5])
def test_noise_over_the_pauses_is_cut_where_silence_would_be(snr: int) -> None:
    rng, time = np.random.default_rng(0), np.arange(24000) / 16000
    speech = np.sin(2 * np.pi * 220 * time) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))
    wave = np.pad(speech, 16000).astype(np.float32)
    noise = rng.standard_normal(len(wave)).astype(np.float32)
    noisy = wave + noise * float(np.sqrt(np.square(speech).mean() / 10 ** (snr / 10)))
    start, end = sound_range(noisy, 30.0)
    clean_start, clean_end = sound_range(wave, 30.0)
    assert abs(start - clean_start) <= 2048
    assert abs(end - clean_end) <= 2048
    assert sound_range(noisy[clean_start:clean_end], 30.0) == (0, clean_end - clean_start)


def test_speech_without_a_pause_and_noise_alone_are_left_whole() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(32000).astype(np.float32)
    assert sound_range(noise, 30.0) == (0, 32000)
    quiet = 5e-5 * np.sin(np.arange(32000) * 0.1) * np.repeat([0.1, 1, 0.1, 0.1], 8000)  # its most is below 1e-10
    assert np.ptp(sound_range(quiet.astype(np.float32), 30.0)) > 20_000
    fading = noise * np.linspace(1, 0.1, 32000).astype(np.float32)  # a quiet end that is not steady
    assert sound_range(fading, 30.0) == (0, 32000)


def test_profile_of_a_tone() -> None:
    tone = (0.5 * np.sin(2 * np.pi * 2000 * np.arange(400_000) / RATE)).astype(np.float32)
    found = profile(tone, RATE)
    assert found["duration"] == 25.0
    assert found["level"] == pytest.approx(10 * np.log10(0.125), abs=0.01)
    assert found["bandwidth"] == pytest.approx(2000, abs=200)
    assert profile(tone[:40], RATE)["duration"] == 0.0025


def test_fix_length_takes_the_middle_or_pads_behind() -> None:
    wave = np.arange(10, dtype=np.float32)
    assert fix_length(wave, 4).tolist() == [3, 4, 5, 6]
    assert fix_length(wave, 4, 0).tolist() == [0, 1, 2, 3]
    assert fix_length(wave, 12).tolist() == [*range(10), 0, 0]
    assert fix_length(wave, 10) is wave


WAVE = voice()
ARRAYS = {
    "[T]": WAVE,
    "float64": WAVE.astype(float),
    "[T, 2] of soundfile, scipy": np.stack([WAVE, WAVE], axis=1),
    "[2, T] of torch": np.stack([WAVE, WAVE]),
    "[T, 1] of gradio": WAVE[:, None],
    "int16": (WAVE * 32767).astype(np.int16),
    "int32, 16 bits in it": (WAVE * 32767).astype(np.int32),
    "int32": (WAVE * 2147483000).astype(np.int32),
    "24 bits as Python's integers": [int(value) for value in WAVE * 8388607],
    "16 bits as Python's integers": [int(value) for value in WAVE * 32767],
    "uint8 of scipy": ((WAVE + 1) * 127.5).astype(np.uint8),
    "uint16": ((WAVE + 1) * 32767.5).astype(np.uint16),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_of_every_library_are_the_same_recording(kind: str) -> None:
    samples = from_array(ARRAYS[kind])
    assert (samples.dtype, samples.ndim) == (np.float32, 2)
    assert np.abs(to_mono(samples, RATE, "array") - WAVE).max() < 0.02


@pytest.mark.parametrize("wrong", [[], 3.0, "text", [[1.0, 2.0], [3.0]], np.zeros((2, 3, 4)), [1j, 2j], [True]])
def test_what_is_no_recording_is_refused(wrong: object) -> None:
    with pytest.raises(EmolightError, match=r"A waveform is \[T\]"):
        from_array(wrong)  # type: ignore[arg-type]


def test_many_rows_are_no_channels() -> None:
    with pytest.raises(AudioError, match="has 100 channels; at most 32 are read"):
        to_mono(from_array(np.zeros((100, RATE))), RATE, "array")


def test_large_files_are_read_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(sound(noise(1, RATE)))
    assert content_hash(path) == content_hash(path, read_bytes(path))
    monkeypatch.setattr(sound_file, "MAX_BYTES", 30_000)
    with pytest.raises(AudioError, match="at most 1 GiB is read into memory"):
        read_bytes(path)
    assert len(read_audio(path)[0]) == RATE


def test_file_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's refusal is played: root, as whom tests may run, reads everything."""

    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    path = tmp_path / "clip.wav"
    path.write_bytes(wav(pcm(voice())))
    monkeypatch.setattr(Path, "open", refuse)
    for load in (read_bytes, read_audio, content_hash):
        with pytest.raises(AudioError, match=r"clip\.wav: cannot be read \(Permission denied\)"):
            load(path)


MEMORY = """
import resource, sys
from emolight.data import audio
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
content = open(sys.argv[1], "rb").read()
before = peak()
wave, rate = audio.read_audio(sys.argv[1], content, 16000)
audio.profile(audio.trim_silence(audio.to_mono(audio.from_array(wave), 16000, "x"), 30.0), 16000)
whole = peak() - before
print(len(wave) * 4 // 2**20, whole)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_memory_of_a_long_recording_is_that_of_its_samples(tmp_path: Path) -> None:
    """Twenty minutes of stereo: 73 MB of samples at 16 kHz, 310 MB if stereo at 32 kHz were decoded at once."""
    path, minute = tmp_path / "long.wav", noise(60, 32000, 2)
    with soundfile.SoundFile(path, "w", 32000, 2, "PCM_16") as stream:
        for _ in range(20):
            stream.write(minute)
    done = subprocess.run([sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True)
    samples, extra = map(int, done.stdout.split())
    assert samples == 73
    assert extra < samples + 90


def test_five_hours_are_refused_and_years_are_not_allocated(tmp_path: Path) -> None:
    content = bytearray(sound(noise(1, RATE), container="FLAC"))
    content[21] |= 0x0F  # total samples: the low 4 bits of byte 21 and bytes 22 to 25
    content[22:26] = b"\xff" * 4
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AudioError, match=r"lasts 1193.0 h; at most 4 h are read"):
        read_audio("x", bytes(content))
    with pytest.raises(AudioError, match=r"lasts 5.0 h; at most 4 h are read"):
        read_audio("x", wav(b"\x60\xa0" * 9_000_000, rate=1000, bits=8))
    with pytest.raises(AudioError, match=r"lasts 2\.0 h; at most 2 h are read at 96000 Hz"):
        to_mono(np.broadcast_to(np.float32(0.1), (700_000_000, 1)), 96000, "x")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(sound(noise(60, RATE)))
    with sound_file.open_sound(path) as opened:
        found = opened.blocks()
        next(found)
        with path.open("r+b") as stream:
            stream.truncate(1_000_000)
        with pytest.raises(AudioError, match="cut short: "):
            list(found)


def test_error_travels_between_processes_and_is_one_line() -> None:
    error = pickle.loads(pickle.dumps(AudioError("a\nb.wav", "is silent")))
    assert (str(error), error.path, error.reason) == ("'a\\nb.wav': is silent", "a\nb.wav", "is silent")


@pytest.mark.real
def test_real_recording_equals_the_usual_loader(ravdess_root: Path) -> None:
    for path in sorted(ravdess_root.rglob("*.wav"))[:600:60]:
        expected, _ = librosa.load(path, sr=RATE)
        expected, _ = librosa.effects.trim(expected, top_db=30)  # at 60 dB the room's noise counts, see sound_range
        ours = load_waveform(path, RATE, 30.0)
        np.testing.assert_allclose(ours[:-1], expected[: len(ours) - 1], atol=1e-6)
