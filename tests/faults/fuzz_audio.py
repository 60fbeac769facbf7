"""Fuzz the audio loader: real sound files, broken at random, must give samples or an ``EmolightError``.

    python tests/faults/fuzz_audio.py --inputs 50000 --seed 0

Input N of a seed is always the same bytes. A child process decodes; the parent survives it, and names the input at
which it crashed, ran into the memory limit, or was still busy after ``--seconds``. Exit code 1 on any finding.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from emolight.errors import EmolightError

ROOT = Path(__file__).resolve().parents[2]
TARGET = "emolight.data.audio:load_waveform"
MEMORY = 4 * 2**30
"""Bytes of address space that a child may take beyond what it starts with."""
PATH = "fuzzed.wav"
KINDS = [
    *(("WAV", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")),
    *(("WAV", subtype) for subtype in ("IMA_ADPCM", "MS_ADPCM", "GSM610", "MPEG_LAYER_III")),
    *(("WAVEX", "PCM_16"), ("WAVEX", "PCM_24"), ("WAVEX", "FLOAT"), ("RF64", "PCM_16"), ("W64", "PCM_16")),
    *(("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")),
    *(
        ("AIFF", "PCM_16"),
        ("AIFF", "PCM_24"),
        ("AIFF", "FLOAT"),
        ("AU", "PCM_16"),
        ("CAF", "PCM_16"),
        ("CAF", "ALAC_16"),
    ),
]
INTEGERS = [
    *(0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 127, 128, 255, 256, 999, 1000, 1024),
    *(2**15 - 1, 2**15, 2**16 - 1, 2**16, 2**20, 2**24, 2**28, 2**30, 2**31 - 1, 2**31, 2**32 - 1),
    *(2**33, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 4_000_000_000, 768_001),
]
FLOATS = [float("nan"), float("inf"), float("-inf"), 1e30, -1e30, 1e-40, 0.0, 101.0, 3.4e38]
CHUNKS = [
    *(b"RIFF", b"RIFX", b"RF64", b"ds64", b"fmt ", b"fact", b"data", b"PEAK", b"LIST", b"riff"),
    *(
        b"FORM",
        b"COMM",
        b"SSND",
        b"fLaC",
        b"OggS",
        b"vorbis",
        b"OpusHead",
        b"Xing",
        b"Info",
        b".snd",
        b"desc",
        b"kuki",
    ),
]

Mutation = Callable[[random.Random, bytearray], None]


@cache
def seeds() -> list[bytes]:
    """A short sound in every kind of file that this libsndfile writes; mono and stereo, three rates."""
    time_axis = np.arange(4000) / 16000
    noise = np.random.default_rng(0).normal(0, 0.02, 4000)
    mono = (0.3 * np.sin(2 * np.pi * 220 * time_axis) * np.hanning(4000) + noise).astype(np.float32)
    found = []
    for number, (container, subtype) in enumerate(KINDS):
        for channels in (1, 2):
            wave = np.stack([mono, np.roll(mono, 50)], axis=1)[:, :channels]
            rate = 16000 if "OGG" in container else (8000, 16000, 44100)[(number + channels) % 3]
            for endian in ("FILE", "BIG") if (container, subtype) == ("WAV", "PCM_16") else ("FILE",):
                stream = io.BytesIO()
                # What an older libsndfile cannot write is left out.
                with contextlib.suppress(soundfile.LibsndfileError, ValueError):
                    soundfile.write(stream, wave, rate, subtype, endian, container)
                    found.append(stream.getvalue())
    return found


def place(rng: random.Random, content: bytearray) -> int:
    """A position; most often in the header."""
    return rng.randrange(min(len(content), 128) if rng.random() < 0.7 else len(content))


def flip(rng: random.Random, content: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        content[place(rng, content)] ^= 1 << rng.randrange(8)


def overwrite(rng: random.Random, content: bytearray) -> None:
    for _ in range(rng.choice((1, 2, 8))):
        content[place(rng, content)] = rng.randrange(256)


def cut(rng: random.Random, content: bytearray) -> None:
    del content[place(rng, content) :]


def insert(rng: random.Random, content: bytearray) -> None:
    start = place(rng, content)
    content[start:start] = rng.choice((bytes, rng.randbytes))(rng.choice((1, 2, 3, 4, 8, 100, 5000)))


def delete(rng: random.Random, content: bytearray) -> None:
    start = place(rng, content)
    del content[start : start + rng.choice((1, 2, 4, 8, 64, 1000))]


def repeat(rng: random.Random, content: bytearray) -> None:
    start = place(rng, content)
    piece = content[start : start + rng.choice((4, 8, 24, 200))]
    content[start:start] = piece * rng.choice((1, 1, 2, 50))


def field(rng: random.Random, content: bytearray) -> None:
    """An interesting number of 2, 4 or 8 bytes, at an even position as most fields are."""
    start, number = place(rng, content) & ~1, _number(rng, rng.choice((2, 4, 4, 8)))
    content[start : start + len(number)] = number


def chunk_size(rng: random.Random, content: bytearray) -> None:
    """An interesting number behind a chunk's name, or in one of the fields that follow."""
    places = [found for name in CHUNKS for found in _all(content, name)]
    if places:
        start = rng.choice(places) + 4 + rng.choice((0, 0, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 22))
        number = _number(rng, rng.choice((2, 4, 4, 8)))
        content[start : start + len(number)] = number


def splice(rng: random.Random, content: bytearray) -> None:
    """The head of one file and the tail of another."""
    other = rng.choice(seeds())
    content[place(rng, content) :] = other[rng.randrange(len(other)) :]


def number_in_samples(rng: random.Random, content: bytearray) -> None:
    start = rng.randrange(len(content)) & ~3
    value = rng.choice(FLOATS)
    content[start : start + 4] = struct.pack(rng.choice("<>") + "f", value)


MUTATIONS: list[Mutation] = [
    *(flip, overwrite, cut, insert, delete, repeat, field, field, chunk_size, chunk_size, chunk_size),
    *(splice, number_in_samples),
]


def make_input(seed: int, number: int) -> bytes:
    """Input ``number`` of a seed: one of the files, broken in one to five ways."""
    rng = random.Random(f"{seed}-{number}")
    content = bytearray(rng.choice(seeds()))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        if content:
            rng.choice(MUTATIONS)(rng, content)
    # A decoder drops Ogg pages with a wrong checksum before it looks into them.
    return _with_ogg_checksums(content) if content[:4] == b"OggS" and rng.random() < 0.8 else bytes(content)


def _number(rng: random.Random, width: int) -> bytes:
    value = rng.choice(INTEGERS) % 2 ** (8 * width)
    return value.to_bytes(width, rng.choice(("little", "little", "big")))


def _all(content: bytearray, name: bytes) -> Iterator[int]:
    start = content.find(name)
    while start >= 0:
        yield start
        start = content.find(name, start + 1)


@cache
def _ogg_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)
        table.append(value & 0xFFFFFFFF)
    return table


def _with_ogg_checksums(content: bytearray) -> bytes:
    """Every page with the checksum that it should have (RFC 3533)."""
    table, starts = _ogg_table(), list(_all(content, b"OggS"))
    for start in starts:
        segments = content[start + 27 : start + 27 + content[start + 26]] if start + 26 < len(content) else b""
        end = start + 27 + len(segments) + sum(segments)
        if not segments or end > len(content):
            continue
        content[start + 22 : start + 26] = bytes(4)
        value = 0
        for byte in content[start:end]:
            value = ((value << 8) & 0xFFFFFFFF) ^ table[(value >> 24) ^ byte]
        content[start + 22 : start + 26] = value.to_bytes(4, "little")
    return bytes(content)


def judge(loader: Callable[..., Any], content: bytes) -> tuple[str, str]:
    """What the loader makes of an input: ``accepted``, ``refused`` with the reason, or ``finding``."""
    try:
        wave = loader(PATH, content=content)
    except EmolightError as error:
        text = str(error)
        if not re.fullmatch(rf"{re.escape(PATH)}: \S[^\n]+", text):
            return "finding", f"not one line with path and reason: {text!r}"
        if "MemoryError" in text:
            return "finding", f"took more memory than it may: {text}"
        return "refused", re.sub(r"\d[\d.e+]*", "N", text.removeprefix(f"{PATH}: "))
    except BaseException as error:
        return "finding", f"{type(error).__name__}: {error}"
    if wave.dtype != np.float32 or wave.ndim != 1 or not len(wave):
        return "finding", f"gave {wave.dtype} {wave.shape}"
    if not np.isfinite(wave).all() or not 1e-5 < np.abs(wave).max() < 1000:
        return "finding", f"gave samples with a peak of {np.abs(wave).max()}"
    return "accepted", ""


def work(target: str, seed: int, numbers: range, seconds: float) -> None:
    """The child: judge inputs, a JSON line each; dies of SIGALRM when one takes too long."""
    module, _, name = target.partition(":")
    loader = getattr(importlib.import_module(module), name)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what decoders print goes to the parent's temporary file, wherever they print it
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    for number in numbers:
        content = make_input(seed, number)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        kind, text = judge(loader, content)
        signal.setitimer(signal.ITIMER_REAL, 0)
        printed = os.lseek(2, 0, os.SEEK_END)
        if printed:
            os.lseek(2, 0, os.SEEK_SET)
            said = os.read(2, 2000).decode(errors="replace")
            os.ftruncate(2, 0)
            os.lseek(2, 0, os.SEEK_SET)
            if kind != "finding" and "Traceback" in said:
                kind, text = "finding", f"printed a traceback: {said.splitlines()[-1]}"
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps([number, kind, text, bool(printed), megabytes]), file=answers)


def answers(target: str, seed: int, inputs: int, seconds: float) -> Iterator[list[Any]]:
    """``[number, kind, text, whether something was printed, megabytes]`` of every input, whatever kills a child."""
    done = 0
    while done < inputs:
        options = ["--target", target, "--seed", str(seed), "--inputs", str(inputs), "--seconds", str(seconds)]
        command = [sys.executable, __file__, *options, "--from", str(done)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with tempfile.TemporaryFile() as errors:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
            assert child.stdout is not None
            for line in child.stdout:
                yield json.loads(line)
                done += 1
            if code := child.wait():
                errors.seek(0)
                last = (errors.read().decode(errors="replace").strip().splitlines() or [""])[-1]
                reason = f"exit code {code}: {last}" if code > 0 else signal.Signals(-code).name
                yield [done, "finding", f"killed the process ({reason})", False, 0]
                done += 1


def main(argv: list[str] | None = None) -> int:
    """Run, print the figures, save the inputs of findings; 1 when there is one."""
    parser = argparse.ArgumentParser(description="Fuzz the audio loader.")
    parser.add_argument("--inputs", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0, help="for one input; default: %(default)s")
    parser.add_argument("--save", type=Path, default=Path("fuzz_findings"), help="folder for inputs of findings")
    parser.add_argument("--target", default=TARGET, help="module:function; default: %(default)s")
    parser.add_argument("--from", type=int, dest="start", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.start is not None:
        work(options.target, options.seed, range(options.start, options.inputs), options.seconds)
        return 0
    began, kinds, reasons, printed, most = time.monotonic(), Counter[str](), Counter[str](), 0, 0
    for number, kind, text, loud, megabytes in answers(options.target, options.seed, options.inputs, options.seconds):
        kinds[kind] += 1
        printed += loud
        most = max(most, megabytes)
        if kind == "refused":
            reasons[text] += 1
        if kind == "finding":
            options.save.mkdir(parents=True, exist_ok=True)
            path = options.save / f"seed{options.seed}-input{number}.bin"
            path.write_bytes(make_input(options.seed, number))
            print(f"FINDING {path}: {text}")
    for reason, count in reasons.most_common():
        print(f"{count:7d}  {reason}")
    print(
        f"{sum(kinds.values())} inputs of seed {options.seed} from {len(seeds())} files in "
        f"{time.monotonic() - began:.0f} s: {kinds['accepted']} accepted, {kinds['refused']} refused for "
        f"{len(reasons)} reasons, {kinds['finding']} findings; {printed} made the decoder print something; "
        f"at most {most} MB."
    )
    return int(kinds["finding"] > 0)


if __name__ == "__main__":
    sys.exit(main())
