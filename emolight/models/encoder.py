"""Speech encoders of ``transformers``: pretrained on thousands of hours, frozen or fine-tuned, under a small head."""

import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal, Self

import numpy as np
import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchaudio import functional as audio

from emolight.errors import EmolightError, needing
from emolight.models.encoder_inputs import WhisperFront, frozen_encoder, lengths_of, load_encoder, within
from emolight.models.fitting import fit_linear, fit_scale
from emolight.models.networks import Embedder
from emolight.models.parts import Float32

FEED_FORWARD = ["fc1", "fc2", "intermediate_dense", "output_dense"]
"""Of Whisper, and of wav2vec 2.0 and its relatives. WavLM's attention reads weights, and would pass adapters by."""
ADAPTER = ".lora_"
"""In the names of an adapter's parameters."""


class SpeechEncoder(Float32, Embedder):
    """A pretrained speech encoder, samples ``[B, 1, T]`` to logits ``[B, num_classes]``.

    Each clip's embedding is the mean and the deviation over time of chosen layers. Zeros behind a clip are padding:
    they are masked, so that an embedding depends neither on the padding nor on the batch. Weights stay float32.

    Args:
        path: hub name such as openai/whisper-base or microsoft/wavlm-base-plus, or a folder with config.json,
            preprocessor_config.json and model.safetensors.
        revision: commit of the hub; null takes the newest. A checkpoint refuses other weights than its own.
        layers: which of the layers, 1 is the first; null takes all.
        pooling: concatenate the layers, or weight them by what is learnt (not with head logistic).
        head: linear, mlp (one hidden layer), or logistic (fitted by scikit-learn in one step, not by gradients).
        hidden: units of the mlp.
        dropout: in front of the head.
        inverse_penalty: of head logistic; scikit-learn's C.
        speeds: of head logistic, which learns from the training clips at these speeds too; 1.07 is faster and higher.
        trainable_layers: so many, up to the highest of ``layers``, are trained too; 0 freezes the encoder.
        lora: rank of adapters beside the feed-forward layers, which are trained instead of the layers; 0 takes none.
        encoder_rate: learning rate of the top layer as a share of the head's; each layer below has 0.8 of the next.
        gradient_checkpointing: saves memory for time in the trained layers of Whisper.

    Raises:
        EmolightError: transformers (for ``lora`` peft) is not installed; the encoder cannot be had, or is of an unknown
            kind; or the options contradict each other.

    Example:
        >>> EmotionClassifier(features=Waveform, network=partial(SpeechEncoder, path="openai/whisper-base"))

    Source:
        Radford et al., *Robust Speech Recognition via Large-Scale Weak Supervision*, 2022; Baevski et al.,
        *wav2vec 2.0*, 2020; Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, 2021.
    """

    digest: Tensor
    standard_mean: Tensor
    standard_std: Tensor

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        path: str,
        revision: str | None = None,
        layers: list[int] | None = None,
        pooling: Literal["concatenate", "weighted"] = "concatenate",
        head: Literal["linear", "mlp", "logistic"] = "linear",
        hidden: int = 256,
        dropout: float = 0.0,
        inverse_penalty: PositiveFloat = 0.01,
        speeds: list[float] | None = None,
        trainable_layers: NonNegativeInt = 0,
        lora: NonNegativeInt = 0,
        encoder_rate: float = 0.1,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(in_channels, num_classes)
        if bool(trainable_layers) + bool(lora) + (head == "logistic") > 1:
            problem = f"trainable_layers is {trainable_layers}, lora {lora}, head {head}: one way to train at a time."
            raise EmolightError(problem, "Set trainable_layers or lora to 0; both need head linear or mlp.")
        if head == "logistic" and pooling == "weighted":
            fix = "Set pooling concatenate, or head linear or mlp."
            raise EmolightError("model.network.pooling weighted is learnt by batches; head logistic is fitted.", fix)
        self.speeds = speeds or []
        if wrong := [speed for speed in self.speeds if not 0.5 <= speed <= 2 or round(100 * speed) == 100]:
            problem = f"model.network.speeds has {wrong[0]:g}; take 0.5 to 2 in hundredths, and not 1."
            raise EmolightError(problem, "[0.93, 1.07] is usual.")
        if self.speeds and head != "logistic":
            raise EmolightError(f"model.network.speeds is of head logistic; the head is {head}.", "Leave one out.")
        load = load_encoder if trainable_layers or lora else frozen_encoder
        self.encoder, self.front, found = load(path, revision)
        self.sample_rate = self.front.sample_rate
        self.about = {"encoder": path, **found}
        self.register_buffer("digest", torch.tensor(list(bytes.fromhex(found["sha256"])), dtype=torch.uint8))
        config, count = self.encoder.config, self.encoder.config.num_hidden_layers
        self.layers = sorted(set(layers or range(1, count + 1)))
        if not 1 <= self.layers[0] <= self.layers[-1] <= count:
            problem = f"model.network.layers is {layers}; '{path}' has the layers 1 to {count}."
            raise EmolightError(problem, "Choose among them.")
        self.pooling, self.kind, self.inverse_penalty = pooling, head, inverse_penalty
        self.encoder_rate, self.gradient_checkpointing = encoder_rate, gradient_checkpointing
        self.encoder.requires_grad_(False)
        stack = (self.encoder if hasattr(self.encoder, "layers") else self.encoder.encoder).layers
        self.trained: list[nn.Module] = list(stack)[max(0, self.layers[-1] - trainable_layers) : self.layers[-1]]
        for block in self.trained:
            block.requires_grad_(True)
        self.lora = lora
        if lora:
            add_adapters(self.encoder, lora)
        size = 2 * config.hidden_size
        self.shape = (len(self.layers), size)
        self.key = f"{found['sha256']} layers {self.layers} {self.front}"
        self.register_buffer("standard_mean", torch.zeros(self.shape))
        self.register_buffer("standard_std", torch.ones(self.shape))
        self.weights = nn.Parameter(torch.zeros(len(self.layers)), requires_grad=pooling == "weighted")
        size *= 1 if pooling == "weighted" else len(self.layers)
        last = nn.Linear(hidden if head == "mlp" else size, num_classes)
        before = [nn.Linear(size, hidden), nn.ReLU(), nn.Dropout(dropout)] if head == "mlp" else []
        self.top = nn.Sequential(nn.Dropout(dropout), *before, last)
        if head == "logistic":
            self.requires_grad_(False)
        # Group norm runs over time, and so do data2vec's positions, layer on layer: each clip passes alone, in a loop.
        self.alone = config.model_type == "data2vec-audio" or getattr(config, "feat_extract_norm", "") == "group"
        self.frozen = not (self.trained or lora)
        if not self.trained:  # a checkpoint holds the digest of frozen weights, not the weights
            self.register_state_dict_post_hook(_without_encoder)  # type: ignore[no-untyped-call]
            self.register_load_state_dict_pre_hook(_with_encoder)  # type: ignore[no-untyped-call]

    def exportable(self) -> nn.Module:
        """The encoder as it is; a loop over clips is no graph."""
        if self.alone:
            problem = "A speech encoder in which padding leaks, so that each clip passes alone, cannot be exported."
            raise EmolightError(problem, "Take float32 and another encoder, or predict with its run.")
        return with_merged_adapters(self) if self.lora else self

    def train(self, mode: bool = True) -> Self:
        """As PyTorch's; a frozen encoder stays as it is for evaluation."""
        super().train(mode)
        self.encoder.train(mode and not self.frozen)
        return self

    @property
    def copies(self) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
        """The clips at other speeds."""
        return {f"at speed {speed:.2f}": functools.partial(self._embed_at, round(100 * speed)) for speed in self.speeds}

    def _embed_at(self, hundredths: int, samples: np.ndarray) -> np.ndarray:
        waves = torch.from_numpy(samples)
        changed = audio.resample(waves, hundredths, 100)
        # The filter rings on behind a clip, which would be longer in a batch than alone.
        ends = (100 * lengths_of(waves) + hundredths - 1) // hundredths
        return self.embed_numpy((changed * within(ends, changed.shape[1])).numpy())

    def embed(self, samples: Tensor) -> Tensor:
        """Embeddings ``[B, layers, 2 * hidden size]`` float32 of samples ``[B, T]``, with zeros behind each clip."""
        states, mask = self._states(samples, lengths_of(samples))
        weight = mask.unsqueeze(-1).to(states[0].dtype) / mask.sum(1).clamp(min=1)[:, None, None]
        pooled = []
        for state in states:
            mean = (state * weight).sum(1)
            variance = ((state - mean.unsqueeze(1)).square() * weight).sum(1)
            pooled.append(torch.cat([mean, variance.clamp(min=1e-10).sqrt()], dim=1))
        return torch.stack(pooled, dim=1).float()

    def classify(self, embeddings: Tensor) -> Tensor:
        """Logits of what :meth:`embed` gives."""
        with torch.autocast(embeddings.device.type, enabled=False):  # it costs nothing, and frozen it is all
            standard = (embeddings - self.standard_mean) / self.standard_std
            if self.pooling == "weighted":
                standard = (standard * self.weights.softmax(0)[:, None]).sum(1)
            logits: Tensor = self.top(standard.flatten(1))
        return logits

    def fit(self, embeddings: Tensor, labels: Tensor) -> None:
        """Standardise by training embeddings ``[N, layers, E]``; with head logistic fit it to the labels ``[N]``."""
        values = fit_scale(embeddings, self.standard_mean, self.standard_std)
        if self.kind == "logistic":
            each = self.inverse_penalty / (1 + len(self.speeds))  # copies share a clip's weight
            fit_linear(self.head, values, labels, "logistic", each)

    def rates(self) -> Iterator[tuple[list[nn.Parameter], float]]:
        """Trained parameters, and their share of the learning rate."""
        trained = {name: one for name, one in self.named_parameters() if one.requires_grad}
        yield [one for name, one in trained.items() if not name.startswith("encoder.") or ADAPTER in name], 1.0
        for depth, block in enumerate(reversed(self.trained)):
            yield list(block.parameters()), self.encoder_rate * 0.8**depth

    def _states(self, samples: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """The chosen layers' outputs, each ``[B, N, H]``, and which of the N are no padding, ``[B, N]``."""
        inputs, lengths = self.front(samples, lengths)
        if isinstance(self.front, WhisperFront):
            return self._whisper(inputs, lengths)
        if self.alone:
            parts = [self._plain(row[None, : int(length)], None) for row, length in zip(inputs, lengths, strict=True)]
            sizes = torch.tensor([part[0].shape[1] for part in parts], device=samples.device)
            padded = [nn.utils.rnn.pad_sequence([part[k][0] for part in parts], True) for k in range(len(self.layers))]
            return padded, within(sizes, padded[0].shape[1])
        states = self._plain(inputs, within(lengths, inputs.shape[1]).long())
        sizes = self.encoder._get_feat_extract_output_lengths(lengths)
        return states, within(sizes, states[0].shape[1])

    def _plain(self, inputs: Tensor, mask: Tensor | None) -> list[Tensor]:
        states = self.encoder(inputs, attention_mask=mask, output_hidden_states=True).hidden_states
        return [states[layer] for layer in self.layers]

    def _whisper(self, mel: Tensor, frames: Tensor) -> tuple[list[Tensor], Tensor]:
        """Whisper's encoder with a mask: transformers' own takes 30 s alone."""
        encoder, positions = self.encoder, self.encoder.embed_positions.weight
        state = F.gelu(encoder.conv1(mel)) * within(frames, mel.shape[2])[:, None]
        state = F.gelu(encoder.conv2(state)).transpose(1, 2)
        if state.shape[1] > len(positions):
            fix = "Take at most 30 s: data.duration in training, the window in prediction."
            raise EmolightError(f"A clip of {mel.shape[2] / 100:g} s is too long for Whisper.", fix)
        state = state + positions[: state.shape[1]]
        mask = within((frames + 1) // 2, state.shape[1])
        keys = torch.zeros(mask.shape, dtype=state.dtype, device=mel.device).masked_fill(~mask, -1e4)[:, None, None]
        states, last = [], len(encoder.layers)
        for number, layer in enumerate(encoder.layers[: self.layers[-1]], start=1):
            if self.gradient_checkpointing and self.training and layer in self.trained:
                state = checkpoint(layer, state, keys, use_reentrant=False)
            else:
                state = layer(state, keys)
            if number in self.layers:
                states.append(encoder.layer_norm(state) if number == last else state)
        return states, mask


def add_adapters(encoder: nn.Module, rank: int) -> None:
    """Put low-rank adapters beside :data:`FEED_FORWARD`; nothing else of the encoder is trained."""
    with needing("lora", "model.network.lora needs the package peft."):
        from peft import LoraConfig, inject_adapter_in_model
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=FEED_FORWARD), encoder)  # in place


def with_merged_adapters(network: SpeechEncoder) -> SpeechEncoder:
    """A copy with plain layers that answer as those with adapters do."""
    network = copy.deepcopy(network)
    for name, module in list(network.encoder.named_modules()):
        if hasattr(module, "base_layer"):
            module.merge()
            network.encoder.set_submodule(name, module.base_layer)
    return network


def _without_encoder(network: SpeechEncoder, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}encoder.") and ADAPTER not in name]:
        del state[name]


def _with_encoder(network: SpeechEncoder, state: dict[str, Any], prefix: str, *_: Any) -> None:
    digest = state.get(f"{prefix}digest")
    if digest is not None and not torch.equal(digest.cpu(), network.digest.cpu()):
        raise EmolightError(
            f"The weights of '{network.about['encoder']}' are not those that the model was trained with (SHA-256"
            f" {bytes(digest.tolist()).hex()[:12]}…, found {network.about['sha256'][:12]}…).",
            "Give that folder, or that revision of the hub.",
        )
    own = {f"{prefix}encoder.{name}": value for name, value in network.encoder.state_dict().items()}
    state.update({name: value for name, value in own.items() if name not in state})
