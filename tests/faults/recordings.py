"""Malformed and odd recordings, and what must become of each."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 16000
SECONDS = 1.0


@dataclass(frozen=True)
class Odd:
    """A file and what the loader must make of it.

    Attributes:
        make: writes it at the path given.
        reason: words of the reason for which it is refused; None for a usable one.
        seconds: duration of a usable one at 16 kHz, not trimmed.
        level: root mean square of a usable one, within 5 %.
        warns: words of the warning that comes with a usable one.
        in_folders: whether ``predict`` finds it when it searches a folder.
    """

    make: Callable[[Path], object]
    reason: str | None = None
    seconds: float = SECONDS
    level: float = 0.1
    warns: str | None = None
    in_folders: bool = True


def voice(rate: int = RATE, seconds: float = SECONDS) -> NDArray[np.float32]:
    """A hum of four harmonics ``[T]`` with a root mean square of 0.1."""
    time = np.arange(round(rate * seconds)) / rate
    wave = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in (1, 2, 3, 4)) * (1 + 0.5 * np.sin(20 * time))
    return (0.1 * wave / np.sqrt(np.mean(np.square(wave)))).astype(np.float32)


def sound(
    wave: NDArray[np.floating] | None = None,
    rate: int = RATE,
    container: str = "WAV",
    subtype: str | None = None,
    endian: str = "FILE",
) -> bytes:
    """A sound file of ``wave`` ``[T]`` or ``[T, channels]`` as libsndfile writes it."""
    stream = BytesIO()
    soundfile.write(stream, voice(rate) if wave is None else wave, rate, subtype, endian, container)
    return stream.getvalue()


def wav(
    samples: bytes,
    rate: int = RATE,
    channels: int = 1,
    bits: int = 16,
    code: int = 1,
    size: int | None = None,
    block: int | None = None,
) -> bytes:
    """A WAV file with any header one likes."""
    block = channels * bits // 8 if block is None else block
    head = struct.pack("<HHIIHH", code, channels, rate, rate * block % 2**32, block % 2**16, bits)
    data = struct.pack("<4sI", b"data", len(samples) if size is None else size) + samples
    body = b"WAVE" + struct.pack("<4sI", b"fmt ", len(head)) + head + data
    return b"RIFF" + struct.pack("<I", len(body) % 2**32) + body


def file(content: bytes) -> Callable[[Path], object]:
    """Writes these bytes."""
    return lambda path: path.write_bytes(content)


def pcm(wave: NDArray[np.floating]) -> bytes:
    """Samples in 16 bits."""
    return (wave * 32767).astype("<i2").tobytes()


def with_value(value: float) -> Callable[[Path], object]:
    """A good recording but for one sample."""
    wave = voice()
    wave[500] = value
    return file(sound(wave, subtype="FLOAT"))


def stereo(left: NDArray[np.floating], right: NDArray[np.floating]) -> bytes:
    """Two channels as floats."""
    return sound(np.stack([left, right], axis=1), subtype="FLOAT")


def unreadable(path: Path) -> None:
    """A file that nobody may read."""
    path.write_bytes(sound())
    path.chmod(0)


def linked(path: Path) -> None:
    """A link to a good recording elsewhere."""
    target = path.with_name(f"{path.stem}.elsewhere")
    target.write_bytes(sound())
    path.symlink_to(target.name)


def flac_of(samples: int) -> bytes:
    """A FLAC that promises this number of samples (36 bits from the low half of byte 21 on)."""
    content = bytearray(sound(container="FLAC"))
    content[21] = content[21] & 0xF0 | samples >> 32
    content[22:26] = (samples % 2**32).to_bytes(4, "big")
    return bytes(content)


def without_end_mark(ogg: bytes) -> bytes:
    """An Ogg as Android writes it: its last page does not say that it is the last."""
    content, last = bytearray(ogg), ogg.rfind(b"OggS")
    content[last + 5] &= ~4
    content[last + 22 : last + 26] = bytes(4)
    value = 0
    for byte in content[last:]:
        value ^= byte << 24
        for _ in range(8):
            value = ((value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    content[last + 22 : last + 26] = value.to_bytes(4, "little")
    return bytes(content)


PCM = pcm(voice())
HALF = len(PCM) // 2
LIST = struct.pack("<4sI", b"LIST", 5) + b"hello\0"
OGG = sound(voice(seconds=5), container="OGG", subtype="VORBIS")
LONG_OGG = sound(voice(seconds=30), container="OGG", subtype="VORBIS")
FLAC = sound(container="FLAC")
MP3 = sound(voice(seconds=5), container="MP3")
QUIET = np.full(RATE, 1e-6)

USED = {
    "8 bit": Odd(file(sound(subtype="PCM_U8"))),
    "24 bit": Odd(file(sound(subtype="PCM_24"))),
    "float above full scale": Odd(file(sound(voice() * 20, subtype="FLOAT")), level=2.0),
    "telephone, mu-law": Odd(file(sound(rate=8000, subtype="ULAW"))),
    "GSM": Odd(file(sound(subtype="GSM610"))),
    "extensible header": Odd(file(sound(container="WAVEX", subtype="PCM_24"))),
    "big-endian": Odd(file(sound(endian="BIG"))),
    "AIFF": Odd(file(sound(container="AIFF", subtype="PCM_16"))),
    "AU": Odd(file(sound(container="AU", subtype="PCM_16"))),
    "Wave64": Odd(file(sound(container="W64", subtype="PCM_16"))),
    "RF64": Odd(file(sound(container="RF64", subtype="PCM_16"))),
    "192 kHz": Odd(file(sound(rate=192_000))),
    "six channels": Odd(file(sound(np.stack([voice()] * 6, axis=1)))),
    "stereo of one side": Odd(file(stereo(voice(), np.zeros(RATE))), level=0.05),
    "opposite-phase stereo": Odd(file(stereo(voice(), -voice())), warns="the channels cancel each other"),
    "stream of ffmpeg": Odd(file(wav(PCM, size=0xFFFFFFFF))),
    "stream of sox": Odd(file(wav(PCM, size=0x7FFFF000))),
    "stream of arecord": Odd(file(wav(PCM, size=0x80000000))),
    "stream of GStreamer": Odd(file(wav(PCM, size=0))),
    "FLAC of unknown length": Odd(file(flac_of(0))),
    "Ogg without an end mark": Odd(file(without_end_mark(OGG)), seconds=5.0),
    "chunks around the samples": Odd(file(wav(PCM)[:36] + LIST + wav(PCM)[36:] + LIST)),
    "MP3 called wav": Odd(file(MP3), seconds=5.0),
    "MP3 with a tag behind": Odd(file(MP3 + b"TAG" + bytes(125)), seconds=5.0),
    "Opus": Odd(file(sound(container="OGG", subtype="OPUS"))),
    "with a constant offset": Odd(file(sound(voice() + 0.2)), level=np.hypot(0.1, 0.2)),
    "60 ms": Odd(file(sound(voice(seconds=0.06))), seconds=0.06),
    "link": Odd(linked),
}

PIECES = "holds several recordings"
REFUSED = {
    "empty": Odd(file(b""), "empty"),
    "text": Odd(file(b"Kids are talking by the door.\n" * 99), "not readable as audio"),
    "web page": Odd(file(b"<!DOCTYPE html><title>404</title>" * 99), "not readable as audio"),
    "noise": Odd(file(np.random.default_rng(0).bytes(20_000)), "not readable as audio"),
    "zeros": Odd(file(bytes(20_000)), "not readable as audio"),
    "four bytes": Odd(file(b"RIFF"), "not readable as audio"),
    "header only": Odd(file(wav(b"")), "no samples"),
    "header and notes": Odd(file(wav(b"") + LIST), "no samples"),
    "cut in the header": Odd(file(wav(PCM)[:30]), "not readable as audio"),
    "cut": Odd(file(wav(PCM)[: 44 + HALF]), "cut short: 16000 of the 32000 bytes"),
    "cut by one byte": Odd(file(wav(PCM)[:-1]), "cut short"),
    "cut MP3": Odd(file(MP3[:3000]), "cut short"),
    "cut FLAC": Odd(file(FLAC[:5000]), "not readable as audio"),
    "cut Ogg": Odd(file(LONG_OGG[: len(LONG_OGG) // 2]), "cut short"),
    "cut AIFF": Odd(file(sound(container="AIFF", subtype="PCM_16")[:HALF]), "cut short"),
    "cut AU": Odd(file(sound(container="AU", subtype="PCM_16")[:HALF]), "cut short"),
    "cut Wave64": Odd(file(sound(container="W64", subtype="PCM_16")[:HALF]), "cut short"),
    "cut RF64": Odd(file(sound(container="RF64", subtype="PCM_16")[:HALF]), "cut short"),
    "size of 1 GB": Odd(file(wav(PCM, size=1_000_000_000)), "cut short"),
    "size of less": Odd(file(wav(PCM, size=HALF)), "its header promises 8000 samples, but there are more"),
    "two WAVs": Odd(file(wav(PCM) * 2), PIECES),
    "two WAV streams": Odd(file(wav(PCM, size=0xFFFFFFFF) * 2), PIECES),
    "two FLACs": Odd(file(FLAC * 2), PIECES),
    "two MP3s": Odd(file(MP3 * 2), PIECES),
    "two AUs": Odd(file(sound(container="AU", subtype="PCM_16") * 2), PIECES),
    "chained Ogg": Odd(file(OGG * 2), PIECES),
    "chained Opus": Odd(file(sound(container="OGG", subtype="OPUS") * 2), PIECES),
    "FLAC of 50 days": Odd(file(flac_of(2**36 - 1)), "at most 4 h are read"),
    "a million chunks": Odd(file(wav(PCM)[:36] + b"JUNK\0\0\0\0" * 1_000_000), "not readable as audio"),
    "rate 0": Odd(file(wav(PCM, rate=0)), "not readable as audio"),
    "rate 100": Odd(file(wav(PCM, rate=100)), "absurd sample rate of 100 Hz"),
    "rate 1e6": Odd(file(wav(PCM, rate=1_000_000)), "absurd sample rate of 1000000 Hz"),
    "0 channels": Odd(file(wav(PCM, channels=0)), "Channel count is zero"),
    "40 channels": Odd(file(wav(PCM * 80, channels=40)), "has 40 channels; at most 32"),
    "unknown codec": Odd(file(wav(PCM, code=0x1234)), "not readable as audio"),
    "NaN": Odd(with_value(np.nan), "NaN or infinite"),
    "minus Inf": Odd(with_value(-np.inf), "NaN or infinite"),
    "1e30": Odd(with_value(1e30), "times full scale"),
    "integers as floats": Odd(file(sound(voice() * 32767, subtype="FLOAT")), "times full scale"),
    "silence": Odd(file(wav(bytes(len(PCM)))), "is silent"),
    "nearly silence": Odd(file(sound(QUIET, subtype="FLOAT")), "is silent"),
    "constant": Odd(file(sound(np.full(RATE, 0.5))), "constant offset"),
    "ultrasound": Odd(
        file(sound(np.sin(3.1 * np.arange(96_000)) * np.hanning(96_000), rate=96_000)), "is silent at 16000 Hz"
    ),
    "one sample": Odd(file(sound(np.full(1, 0.5))), "shorter than 50 ms"),
    "folder": Odd(lambda path: path.mkdir(), "is a folder", in_folders=False),
    "dangling link": Odd(lambda path: path.symlink_to("nowhere.wav"), "there is no such file"),
    "link to itself": Odd(lambda path: path.symlink_to(path.name), "there is no such file"),
}
if hasattr(os, "mkfifo"):
    REFUSED["named pipe"] = Odd(os.mkfifo, "there is no such file", in_folders=False)
if hasattr(os, "geteuid") and os.geteuid() != 0:  # root reads everything
    REFUSED["unreadable"] = Odd(unreadable, "cannot be read")

ODD = USED | REFUSED


def build(folder: Path, kinds: dict[str, Odd] = ODD) -> dict[str, Path]:
    """Make the files in ``folder``, as ``KIND.wav``; returns their paths by kind."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {kind: folder / f"{kind}.wav" for kind in kinds}
    for kind, path in paths.items():
        kinds[kind].make(path)
    return paths
