"""The LightningModule: front-end, normalisation, augmentation, network, loss, metrics, optimiser."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from emolight.errors import EmolightError
from emolight.models import classical, encoder, stems  # noqa: F401  whose parts are known by name from here on
from emolight.models.augment import DEFAULT, Augmentation, mixup
from emolight.models.features import MFCC, Features
from emolight.models.fitting import average_again, fit_inputs, fit_speakers, fit_temperatures
from emolight.models.networks import Embedder, ForeignNetwork, Network, head_inputs
from emolight.models.normalise import Normalise
from emolight.models.ood import OutOfDistribution
from emolight.models.parts import maker, without_cast
from emolight.models.replay import Replay
from emolight.models.schedule import one_cycle
from emolight.models.scores import Batch, Scores
from emolight.models.speakers import SpeakerNorm
from emolight.models.vision import ResNet18

JOINED = ("hashes", "val_hashes", "speakers", "val_speakers")
"""What a model that is trained further keeps of its earlier training, and an ensemble of all members'."""


class EmotionClassifier(pl.LightningModule):
    """Emotion of a clip from its waveform: ``[B, T]`` float32 to logits ``[B, C]``.

    Args:
        features: what the network sees: MFCC, MelSpectrogram, Spectrogram, Stacked, Waveform, or a class of your own.
        network: such as ResNet18, or for Stacked MultiStemResNet18; for Waveform SpeechEncoder, Classical, WaveCNN.
        augment: changes of the training clips; null is time shift, noise, gain and SpecAugment, ``[]`` nothing.
        mixup: parameter alpha of mixup's Beta(alpha, alpha) distribution; 0 turns it off.
        label_smoothing: share of the target spread over all classes.
        class_weights: weigh the loss by inverse class frequency of the training clips.
        speaker_norm: take off what a speaker's clips share; then a few clips enrol a speaker.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: AdamW's decay.
        warmup: share of the steps in which the learning rate rises.
        classes: class names in order; empty: they and the next three come from the data module's ``contract``.
        sample_rate: Hz of the waveforms; the command line links it from the data.
        duration: seconds of a training clip; linked from the data.
        trim_db: the trimming rule of the training clips; linked from the data.
        seed: base of the augmentation's random numbers; linked from ``seed_everything``.

    Attributes:
        front_end: the :class:`~emolight.models.features.Features`.
        network: the :class:`~emolight.models.networks.Network`.
        speakers: the :class:`~emolight.models.speakers.SpeakerNorm`, or None.
        ood: the :class:`~emolight.models.ood.OutOfDistribution` of a run's best checkpoint, or None.
        temperature: divides the logits of predictions, not of the loss. Each validation of a fit fits it.
        training_facts: the data module's ``training_facts()``; a checkpoint keeps them.
        predictions: after validation or test, of the clips of all processes, by ``index``: ``index`` and ``label``
            int64 [N], and uncalibrated ``probabilities`` float32 [N, C]. Callbacks read it in ``on_validation_end``.

    Example:
        >>> trainer.fit(EmotionClassifier(network=ResNet34), datamodule=EmotionDataModule(corpus="RAVDESS"))
    """

    class_weight: Tensor
    temperature: Tensor
    front_end: Features
    network: Network

    def __init__(
        self,
        features: Callable[[int], Features] | None = MFCC,
        network: Callable[[int, int], Network] | None = ResNet18,
        augment: list[Augmentation] | None = None,
        mixup: float = 0.2,
        label_smoothing: float = 0.1,
        class_weights: bool = False,
        speaker_norm: bool = False,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.2,
        classes: Sequence[str] = (),
        sample_rate: int = 16000,
        duration: float = 2.25,
        trim_db: float | None = 30.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for holds, name, value, valid, usual in (
            (0 <= mixup < math.inf, "mixup", mixup, "at least 0", 0.2),
            (0 <= label_smoothing < 1, "label_smoothing", label_smoothing, "from 0 to below 1", 0.1),
            (0 < learning_rate < math.inf, "learning_rate", learning_rate, "above 0", 0.001),
            (0 <= weight_decay < math.inf, "weight_decay", weight_decay, "at least 0", 0.01),
            (0 < warmup < 1, "warmup", warmup, "between 0 and 1", 0.2),
        ):
            if not holds:
                raise EmolightError(f"model.{name} is {value:g}; it must be {valid}.", f"{usual:g} is usual.")
        changes: Sequence[Any] = DEFAULT if augment is None else augment
        self.augment = nn.ModuleList(maker(change, Augmentation)() for change in changes)
        self.ood: OutOfDistribution | None = None
        self.training_facts, self.predictions = dict[str, Any](), dict[str, np.ndarray]()
        training = {"mixup": mixup, "label_smoothing": label_smoothing, "class_weights": class_weights, "seed": seed}
        optimiser = {"learning_rate": learning_rate, "weight_decay": weight_decay, "warmup": warmup}
        self._settings: dict[str, Any] = {**training, **optimiser, "speaker_norm": speaker_norm}
        self._settings["augment"] = [change.spec for change in self.augment]
        self._makers = (maker(features or MFCC, Features), maker(network or ResNet18, Network))
        if classes:
            self._build(classes, sample_rate, duration, trim_db)

    def _build(self, classes: Sequence[str], sample_rate: int, duration: float, trim_db: float | None) -> None:
        """Make everything whose size depends on the data."""
        if len(classes) < 2:
            problem = f"The classes are [{', '.join(classes)}]; a classifier needs at least two."
            raise EmolightError(problem, "Change data.emotions.")
        make_features, make_network = self._makers
        del self._makers  # what jsonargparse makes cannot be pickled
        self.classes = [str(name) for name in classes]
        for change in self.augment:
            assert isinstance(change, Augmentation)
            change.sample_rate = sample_rate
        self.front_end = make_features(sample_rate)
        self.front_end.check_length(round(duration * sample_rate))
        self.normalise = Normalise(self.front_end.channels, self.front_end.rows)
        network: nn.Module = make_network(self.front_end.channels, len(classes))
        if not isinstance(network, Network):
            network = ForeignNetwork(make_network, self.front_end.channels, len(classes), self.front_end.image)
        self.network, self._pass = network, Replay(network)
        if isinstance(network, Embedder) and (level := self.front_end.level) is not None:
            network.level, network.key = level, f"{network.key} {level.kind}"
        if self.network.image != self.front_end.image:
            takes, fits = ("images", "WaveCNN") if self.network.image else ("samples", "ResNet18")
            problem = f"{type(self.network).__name__} takes {takes}; {type(self.front_end).__name__} gives none."
            raise EmolightError(problem, f"For example: --model.network {fits}")
        if (wanted := getattr(self.network, "sample_rate", sample_rate)) != sample_rate:
            problem = f"{type(self.network).__name__} was trained at {wanted} Hz; data.sample_rate is {sample_rate}."
            raise EmolightError(problem, f"Set data.sample_rate {wanted}.")
        parts = {"features": self.front_end.spec, "network": self.network.spec, **self._settings}  # plain values
        data = {"sample_rate": sample_rate, "duration": duration, "trim_db": trim_db}
        self.save_hyperparameters({**parts, "classes": self.classes, **data}, logger=False)
        shape = network.shape if isinstance(network, Embedder) else (self.front_end.channels, self.front_end.rows)
        self.speakers = SpeakerNorm(shape) if self.hparams["speaker_norm"] else None
        self.enrolled = (torch.zeros(1, *shape), torch.zeros(0, dtype=torch.int64))
        self.register_buffer("class_weight", torch.ones(len(classes)))
        self.register_buffer("temperature", torch.tensor(1.0))
        self.val_scores, self.test_scores = Scores(self.classes, "val"), Scores(self.classes, "test")

    def setup(self, stage: str) -> None:
        """Take classes, sample rate and clip length from the data module, or check that they are the same."""
        # bf16-true would cut the samples to 8 bits before the front-end sees them.
        setattr(self.trainer.precision_plugin, "convert_input", lambda batch: batch)  # noqa: B010
        data = self._data()
        contract = getattr(data, "contract", None)
        if not hasattr(self, "network"):
            if contract is None:
                problem = "The classifier does not know its classes: the Trainer has no data module with a contract."
                fix = "Give EmotionClassifier(classes=[...], sample_rate=...), or fit with an EmotionDataModule."
                raise EmolightError(problem, fix)
            self._build(**contract)
            average_again(self, stage)
        if stage != "fit":  # the rows were of the clips of a fit
            self.enrolled = (self.enrolled[0], self.enrolled[1][:0])
        for name in ("classes", "sample_rate"):
            ours, theirs = self.hparams[name], (contract or self.hparams)[name]
            if theirs != ours:
                problem = f"The model was made for data.{name} {ours}; the data has {theirs}."
                raise EmolightError(problem, "Make them the same.")
        learns = any(weights.requires_grad for weights in self.parameters())
        vars(self.trainer.strategy).pop("configure_ddp", None)  # of a model before
        if not learns:  # DDP refuses to wrap such a model
            setattr(self.trainer.strategy, "configure_ddp", lambda: None)  # noqa: B010
        # Augmented clips need embeddings of their own, where the head is trained by batches.
        changing = stage == "fit" and learns and any(change.level == "waveform" for change in self.augment)
        if isinstance(self.network, Embedder) and self.network.frozen and hasattr(data, "embed") and not changing:
            training, network = self.network.training, self.network.to(self.trainer.strategy.root_device).eval()
            data.embed(network.key, network.embed_numpy, network.copies if stage == "fit" else {})
            network.train(training)  # Lightning leaves it as it is: dropout would be off

    def _data(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def features(self, waveform: Tensor, offset: Tensor | float = 0.0) -> Tensor:
        """Normalised features ``[B, channels, rows, N]`` (or ``[B, 1, T]``) in the network's type."""
        image: Tensor = self.front_end(waveform)
        image = self.normalise(image - (offset[..., None] if isinstance(offset, Tensor) else offset))
        return image.to(next(self.network.parameters(), image).dtype)

    def forward(self, waveform: Tensor) -> Tensor:
        """Logits ``[B, C]`` of waveforms ``[B, T]``."""
        return self.logits({"waveform": waveform}, 0.0)

    def logits(self, batch: Batch, offset: Tensor | float | None = None) -> Tensor:
        """Logits ``[B, C]`` of a batch of waveforms, or of the embeddings that stand for them.

        ``offset`` is the speakers', as of :meth:`SpeakerNorm.offset`; None takes what :meth:`enrol` set.
        """
        offset = self.offset(batch) if offset is None else offset
        if isinstance(self.network, Embedder):
            return self.network.classify(self.statistics(batch) - offset)
        logits: Tensor = self.network(self.features(batch["waveform"], offset))
        return logits

    def statistics(self, batch: Batch) -> Tensor:
        """What :class:`SpeakerNorm` shifts, ``[B, ...]``: the clips' embeddings, or the means of their feature rows."""
        if "embedding" in batch:
            return batch["embedding"]
        seen: Tensor = self.front_end(batch["waveform"])
        return self.network.embed(seen.squeeze(1)) if isinstance(self.network, Embedder) else seen.mean(-1)

    def enrol(self, offsets: Tensor, numbers: Tensor) -> None:
        """Shift the clip of row ``i`` of a fit's table by ``offsets[numbers[i]]``; no shift behind the last row."""
        self.enrolled = (offsets, numbers)

    def offset(self, batch: Batch) -> Tensor:
        """The offsets of a batch's clips ``[B, ...]``; 0 without any."""
        offsets, numbers = self.enrolled
        if self.speakers is None or not len(numbers) or "index" not in batch:
            return torch.zeros(1, 1, device=self.device)
        return offsets[numbers[batch["index"].cpu()]].to(self.device)

    @torch.no_grad()
    def embed(self, batch: Tensor | Batch) -> Tensor:
        """What the network's last layer sees, ``[B, E]`` float32, of waveforms ``[B, T]`` or of a batch."""
        with head_inputs(self.network) as seen:
            self.logits({"waveform": batch} if isinstance(batch, Tensor) else batch)
        return seen[0].flatten(1).float()

    def on_fit_start(self) -> None:
        """Fit what is fitted on the training clips in one step, unless a checkpoint brought it."""
        data, resumed = self._data(), self.normalise.fitted and self.trainer.ckpt_path
        self.ood = None  # of the weights before
        if not (hasattr(data, "training_facts") and hasattr(data, "statistics_dataloader")):
            problem = "The classifier is fitted to a data module with statistics_dataloader() and training_facts()."
            raise EmolightError(problem, "Fit with an EmotionDataModule, or give yours these methods.")
        if self.speakers is not None:
            fit_speakers(self, self.speakers, data)
        if resumed:
            return
        facts, earlier = data.training_facts(), self.training_facts
        joined = {name: sorted({*facts.get(name, []), *earlier[name]}) for name in JOINED if name in earlier}
        self.training_facts = {**facts, **joined}
        if not self.normalise.fitted:
            fit_inputs(self, data.statistics_dataloader())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the users of the checkpoint must know of its training clips."""
        checkpoint["training"] = self.training_facts

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the same from a checkpoint."""
        self.training_facts, state = checkpoint["training"], checkpoint["state_dict"]
        if own := {name[4:]: values for name, values in state.items() if name.startswith("ood.")}:
            self.ood = OutOfDistribution(**own)

    def on_train_start(self) -> None:
        """Let a GPU record the network's pass, where nothing stands in the way."""
        alone = self.trainer.world_size == self.trainer.accumulate_grad_batches == 1
        threads = getattr(self._data(), "num_workers", 1)  # CUDA refuses to record while another thread calls it
        self._pass = Replay(self.network, alone and not threads and self.network.recordable)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the augmentation by epoch, batch and process: a resumed run draws what an uninterrupted one does."""
        words = (self.hparams["seed"], self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one augmented batch."""
        learns = any(weights.requires_grad for weights in self.front_end.parameters())
        targets, offset = F.one_hot(batch["label"], len(self.classes)).float(), self.offset(batch)
        if isinstance(self.network, Embedder):
            if "waveform" in batch:
                batch = {**batch, "waveform": self._augmented(batch["waveform"], "waveform")}
            seen, targets = mixup(self.statistics(batch) - offset, targets, self.hparams["mixup"])
            logits = self.network.classify(seen)
        else:
            with torch.set_grad_enabled(learns):
                image = self.features(self._augmented(batch["waveform"], "waveform"), offset)
                image = self._augmented(image, "image") if self.front_end.image else image
                image, targets = mixup(image, targets, self.hparams["mixup"])
            logits = self._pass(image)
        smoothing = self.hparams["label_smoothing"]
        loss = F.cross_entropy(logits.float(), targets, weight=self.class_weight, label_smoothing=smoothing)
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(targets), sync_dist=True)
        return loss if loss.requires_grad else loss + self._idle

    def _augmented(self, clips: Tensor, level: str) -> Tensor:
        for change in (one for one in self.augment if one.level == level):
            clips = change(clips)
        return clips

    def validation_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Score one batch; callbacks receive ``index`` [B] and ``probabilities`` [B, C]."""
        return self.val_scores.add(batch, self.logits(batch))

    def test_step(self, batch: Batch, batch_idx: int) -> Batch:
        """As :meth:`validation_step`, on the test clips."""
        return self.test_scores.add(batch, self.logits(batch))

    def predict_step(self, batch: Batch, batch_idx: int) -> Batch:
        """``index`` [B] and calibrated ``probabilities`` [B, C] of a batch."""
        logits = self.logits(batch).float() / self.temperature
        return {"index": batch["index"], "probabilities": logits.softmax(dim=1)}

    def on_validation_epoch_start(self) -> None:
        """Forget an evaluation that broke off; all processes score with the buffers that a checkpoint would have."""
        self.val_scores.reset()
        for buffer in filter(torch.is_floating_point, self.network.buffers()) if self.trainer.world_size > 1 else ():
            torch.distributed.broadcast(buffer, 0)  # between two steps of accumulated gradients DDP does not

    def on_validation_epoch_end(self) -> None:
        """Log the metrics, gather the predictions, and in a fit the temperature; refuse a loss that is not finite."""
        self._finish(self.val_scores)
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            fit_temperatures(self)
            if self.speakers is not None and not getattr(self.network, "frozen", True):  # its embeddings have moved
                fit_speakers(self, self.speakers, self._data())

    def on_test_epoch_end(self) -> None:
        """Log the metrics and gather the predictions."""
        self._finish(self.test_scores)

    def _finish(self, scores: Scores) -> None:
        loss = (values := scores.compute())[scores.loss_name]
        if not loss.isfinite() and not self.trainer.sanity_checking:
            problem = f"{scores.loss_name} is {loss:g} after {self.trainer.global_step} steps: training diverged."
            raise EmolightError(problem, "Lower model.learning_rate, or train with trainer.precision 32-true.")
        self.log_dict(values, sync_dist=True)
        self.predictions = scores.predictions(self.trainer.world_size)
        scores.reset()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig | Optimizer:
        """See :func:`~emolight.models.schedule.one_cycle`."""
        front_end = [weights for weights in self.front_end.parameters() if weights.requires_grad]
        groups = [(weights, share) for weights, share in (*self.network.rates(), (front_end, 1.0)) if weights]
        if not groups:  # fitted in one step, not by batches
            self._idle = torch.zeros((), device=self.device, requires_grad=True)  # several processes may skip no step
            return SGD([self._idle], lr=0.0)
        rate, decay, warmup = (self.hparams[name] for name in ("learning_rate", "weight_decay", "warmup"))
        self.steps = self.trainer.estimated_stepping_batches
        return one_cycle(groups, rate, decay, warmup, self.steps, fused=self.device.type in ("cpu", "cuda"))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move and cast as PyTorch does, but keep the classifier's own buffers in float32."""
        kept = {name: without_cast(fn)(buffer) for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._buffers.update(kept)
        return self
