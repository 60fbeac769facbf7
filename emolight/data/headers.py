"""What the header of a sound file promises, held to the bytes that are there.

libsndfile reads a cut WAV, Wave64, AIFF, AU or Ogg as a shorter recording, and says nothing.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

RATES = (1_000, 768_000)
MAX_CHANNELS = 32
MAX_CHUNKS = 10_000
UNKNOWN_SIZES = (0xFFFFFFFF, 0x7FFFF000)
"""Sizes that ffmpeg and sox write into the header of a stream whose length they do not know."""
PLAIN = (0x0001, 0x0003, 0xFFFE)
"""WAV codes of plain samples: integers, floats, and the extensible header over either."""

Order: TypeAlias = Literal["big", "little"]


def header_fault(content: bytes) -> str | None:
    """Why a file cannot be trusted to be whole, or None.

    WAV (also RF64 and big-endian), Wave64, AIFF, AU and Ogg are looked into; FLAC, MP3 and CAF tell libsndfile
    themselves when something is missing.

    Args:
        content: the whole file.
    """
    start = content[:4]
    if start in (b"RIFF", b"RIFX", b"RF64") and content[8:12] == b"WAVE":
        return _wav_fault(content)
    if start == b"OggS":
        return _ogg_fault(content)
    promised = 0
    if start == b"FORM" and content[8:11] == b"AIF":
        size = _number(content, 4, 4, "big")
        # Some writers leave out the byte that pads the end.
        promised = 0 if size in UNKNOWN_SIZES or size == len(content) - 7 else 8 + size
    elif start == b"riff" and content[24:28] == b"wave":
        promised = _number(content, 16, 8, "little")
    elif start in (b".snd", b"dns."):
        order: Order = "big" if start == b".snd" else "little"
        size = _number(content, 8, 4, order)
        promised = 0 if size in UNKNOWN_SIZES else _number(content, 4, 4, order) + size
    if promised > len(content):
        return f"cut short: {len(content)} of the {promised} bytes that its header promises"
    return None


def rate_fault(rate: int) -> str | None:
    """Whether a sample rate in Hz is absurd."""
    if RATES[0] <= rate <= RATES[1]:
        return None
    return f"absurd sample rate of {rate} Hz (expected {RATES[0]} to {RATES[1]})"


def _wav_fault(content: bytes) -> str | None:
    order: Order = "big" if content[:4] == b"RIFX" else "little"
    at, wide = 12, None
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(content):
            break
        name, size, start = content[at : at + 4], _number(content, at + 4, 4, order), at + 8
        if name == b"fmt " and (reason := _format_fault(content, start, order)):
            return reason
        if name == b"ds64":
            wide = _number(content, start + 8, 8, "little")
        if name == b"data":
            if size == 0xFFFFFFFF and wide is not None:
                size = wide
            there = len(content) - start
            if size in UNKNOWN_SIZES:
                return None
            if size > there:
                return f"cut short: {there} of the {size} bytes of samples that its header promises"
            rest = content[start + size + size % 2 :]
            if rest.strip(b"\0") and not all(32 <= byte < 127 for byte in rest[:4]):
                return f"its header promises {size} bytes of samples, but {there} are there"
            return None
        at = start + size + size % 2
    return "has no samples (no complete data chunk)"


def _format_fault(content: bytes, start: int, order: Order) -> str | None:
    """What is absurd in a WAV's ``fmt`` chunk; libsndfile has only a riddle to say about rates of 0 and 4e9."""
    if reason := rate_fault(_number(content, start + 4, 4, order)):
        return reason
    code, channels, block, bits = (_number(content, start + place, 2, order) for place in (0, 2, 12, 14))
    width = (bits + 7) // 8
    if code in PLAIN and 1 <= channels <= MAX_CHANNELS and block != channels * width:
        return f"its header contradicts itself: {channels} × {bits} bits in {block} bytes"
    return None


def _ogg_fault(content: bytes) -> str | None:
    """Whether the last page ends the stream and is whole (RFC 3533, section 6)."""
    last = content.rfind(b"OggS")
    sizes = content[last + 27 : last + 27 + _number(content, last + 26, 1, "little")]
    whole = last + 27 + len(sizes) + sum(sizes) <= len(content)
    if whole and _number(content, last + 5, 1, "little") & 4:
        return None
    return "cut short: the page that ends its stream is not there"


def _number(content: bytes, start: int, width: int, order: Order) -> int:
    """An unsigned integer, from fewer bytes (down to none: 0) at the end of the file."""
    return int.from_bytes(content[start : start + width], order)
