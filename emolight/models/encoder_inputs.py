"""Speech encoders of ``transformers``, and what they take: Whisper's log-mel, or samples."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torchaudio.functional as audio
from torch import Tensor, nn
from torch.nn import functional as F

from emolight.errors import EmolightError, needing
from emolight.files import expand

SHARED: ContextVar[dict[Any, Any] | None] = ContextVar("SHARED", default=None)
SHORTEST = 400
"""Samples: a shorter clip counts as one so long."""


class WhisperFront(nn.Module):
    """Whisper's log-mel features, as ``WhisperFeatureExtractor`` computes them, without padding to 30 s."""

    basis: Tensor
    filters: Tensor

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.n_fft, self.hop = int(settings.get("n_fft", 400)), int(settings.get("hop_length", 160))
        self.sample_rate, bins = int(settings.get("sampling_rate", 16000)), 1 + self.n_fft // 2
        angles = 2 * torch.pi / self.n_fft * torch.outer(torch.arange(bins), torch.arange(self.n_fft)).double()
        basis = torch.cat([angles.cos(), angles.sin()]) * torch.hann_window(self.n_fft, dtype=torch.float64)
        self.register_buffer("basis", basis[:, None].float(), persistent=False)
        mels = int(settings.get("feature_size", 80))
        filters = audio.melscale_fbanks(bins, 0.0, 8000.0, mels, self.sample_rate, "slaney", "slaney")
        self.register_buffer("filters", filters, persistent=False)

    def __str__(self) -> str:
        return f"Whisper mel {tuple(self.filters.shape)}"

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel ``[B, mels, M]`` of samples ``[B, T]``, zero behind each clip, and the clips' frames ``[B]``."""
        half, end = self.n_fft // 2, lengths[:, None] - 1
        place = torch.arange(-half, samples.shape[1] + half, device=samples.device).abs()  # reflected at the start
        place = torch.where(place > end, 2 * end - place, place).clamp(min=0)  # and at each clip's end
        padded = torch.gather(samples, 1, place)
        with torch.autocast(samples.device.type, enabled=False):
            parts = F.conv1d(padded[:, None].float(), self.basis, stride=self.hop)[:, :, :-1]
            real, imaginary = parts.chunk(2, dim=1)
            mel = self.filters.T @ (real.square() + imaginary.square())
            frames = lengths // self.hop
            mask = within(frames, mel.shape[2])[:, None]
            log = mel.clamp(min=1e-10).log10()
            top = log.masked_fill(~mask, -20.0).amax(dim=(1, 2), keepdim=True)
            log = (torch.maximum(log, top - 8) + 4) / 4
        return log * mask, frames


class SampleFront(nn.Module):
    """Samples for wav2vec 2.0 and its relatives: zero mean and unit variance of each clip, where the model wants it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.sample_rate, self.normalise = int(settings.get("sampling_rate", 16000)), bool(settings.get("do_normalize"))

    def __str__(self) -> str:
        return f"samples, normalised {self.normalise}"

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Samples ``[B, T]`` as the encoder takes them, zero behind each clip, and their lengths ``[B]``."""
        if not self.normalise:
            return samples, lengths
        mask = within(lengths, samples.shape[1])
        mean = (samples * mask).sum(1, keepdim=True) / lengths[:, None]
        variance = ((samples - mean).square() * mask).sum(1, keepdim=True) / lengths[:, None]
        return (samples - mean) / (variance + 1e-7).sqrt() * mask, lengths


Loaded: TypeAlias = tuple[Any, WhisperFront | SampleFront, dict[str, Any]]
"""What :func:`load_encoder` gives."""
FRONTS: dict[str, type[WhisperFront | SampleFront]] = {
    "WhisperFeatureExtractor": WhisperFront,
    "Wav2Vec2FeatureExtractor": SampleFront,
}
"""The preprocessing by the name that ``transformers`` has for it."""


def lengths_of(samples: Tensor) -> Tensor:
    """Samples ``[B]`` of each clip of ``[B, T]`` without the zeros behind it, at least :data:`SHORTEST`."""
    place = torch.arange(1, samples.shape[1] + 1, device=samples.device)
    return ((samples != 0) * place).amax(dim=1).clamp(min=min(SHORTEST, samples.shape[1]))


def within(lengths: Tensor, size: int) -> Tensor:
    """Which of ``size`` places lie within clips of some ``lengths`` ``[B]``: ``[B, size]`` bool."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def load_encoder(path: str, revision: str | None) -> Loaded:
    """An encoder in float32, its preprocessing, and what is known of it: ``revision``, ``sha256``, ``licence``.

    Weights are read from safetensors alone; no code of the folder is executed. EmolightError where transformers is
    missing, or there is no such encoder.
    """
    with needing("encoders", "A speech encoder needs transformers."):
        from transformers import AutoConfig, AutoModel
        from transformers.feature_extraction_utils import FeatureExtractionMixin
        from transformers.utils import cached_file, logging  # type: ignore[attr-defined]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    folder = expand(path)
    place = str(folder) if folder.is_dir() else path
    if folder.is_absolute() and not folder.is_dir():
        raise EmolightError(f"There is no folder of a speech encoder at '{path}'.", "Give it, or a name of the hub.")
    known = {"revision": revision, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(place, **known)
        settings, _ = FeatureExtractionMixin.get_feature_extractor_dict(place, revision=revision)
        encoder: Any = AutoModel.from_pretrained(place, **known, use_safetensors=True, dtype=torch.float32)
    except Exception as error:  # of transformers, the hub's library and safetensors
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        seen = "" if folder.is_dir() else f"It is no folder seen from {Path.cwd()}. "
        fix = f"{seen}Without internet give a folder with config.json, preprocessor_config.json and model.safetensors."
        raise EmolightError(f"There is no usable speech encoder '{path}': {reason}", fix) from None
    encoder = getattr(encoder, "encoder", encoder) if config.model_type == "whisper" else encoder
    name = settings.get("feature_extractor_type")
    if name not in FRONTS or not hasattr(encoder.config, "num_hidden_layers"):
        problem = f"'{path}' is a {config.model_type} with {name}, which is not known here."
        raise EmolightError(problem, "Take Whisper, wav2vec 2.0, HuBERT, WavLM, data2vec-audio or MMS.")
    digest = hashlib.sha256()
    for key, value in sorted(encoder.state_dict().items()):
        digest.update(key.encode() + value.contiguous().numpy().tobytes())
    card = ""
    with suppress(OSError):  # there is none, or no way to it
        card = Path(cached_file(place, "README.md", revision=revision) or "").read_text("utf-8", "replace")
    licence = re.search(r"^license:\s*(\S+)", card[:4000], re.M)
    found = {
        "revision": getattr(config, "_commit_hash", None) or revision,
        "sha256": digest.hexdigest(),
        "licence": licence[1] if licence else "unknown: see the encoder's page",
    }
    return encoder, FRONTS[name](settings), found


@contextmanager
def shared_encoders() -> Iterator[None]:
    """Within, frozen encoders of the same weights are one module, read once: for models of one device."""
    token = SHARED.set({})
    try:
        yield
    finally:
        SHARED.reset(token)


def frozen_encoder(path: str, revision: str | None) -> Loaded:
    """As :func:`load_encoder`; maybe a module that other models have as well, see :func:`shared_encoders`."""
    kept = SHARED.get()
    if kept is None:
        return load_encoder(path, revision)
    if (path, revision) not in kept:
        encoder, front, found = load_encoder(path, revision)
        kept[path, revision] = kept.setdefault(found["sha256"], encoder), front, found
    shared: Loaded = kept[path, revision]
    return shared
