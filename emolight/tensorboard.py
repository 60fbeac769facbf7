"""What TensorBoard shows beside the curves: confusion by epoch, features, worst clips, parameters, embeddings."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import Tensor
from torch.utils.tensorboard.summary import hparams as hparams_summaries

from emolight.evaluation.plots import confusion_figure, features_figure
from emolight.models.classifier import EmotionClassifier
from emolight.models.frontend import Features, FrontEnd
from emolight.recorder import Recorder

WORST_CLIPS = 5
LEADING = ("features.mode", "features.n_mels", "features.n_mfcc", "learning_rate", "data.batch_size")
"""Parameters that stand first in TensorBoard's table, which shows five until more are ticked."""


class TensorBoardExtras(pl.Callback):
    """Writes images, audio, parameters and embeddings of a fit, from the first process.

    Args:
        recorder: gives the predictions that count; stands before this callback in the trainer's list.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """One feature image of each emotion."""
        writer, data = _writer(trainer), trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(pl_module, EmotionClassifier)
        features = pl_module.front_end.features
        if writer is None or features.mode == "waveform":
            return
        train = data.subset("train")
        of_train = data.clips["emotion"].iloc[train]
        names = [name for name in data.emotions if (of_train == name).any()]
        rows = [train[of_train == name][0] for name in names]
        with torch.no_grad():
            images = pl_module.normalise(pl_module.front_end(_waveforms(data, rows).to(pl_module.device)))
        y_label = {"spectrogram": "frequency bin", "mel": "mel bin", "mfcc": "coefficient"}[features.mode]
        figure = features_figure(
            dict(zip(names, images.squeeze(1).cpu().numpy(), strict=True)),
            features.hop_length / data.sample_rate,
            y_label,
            f"{features.mode} of training clips, as the network sees them",
            "standard deviations",
        )
        figure.set_dpi(70)
        writer.add_figure("features", figure)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The confusion matrix of this epoch."""
        writer = _writer(trainer)
        if writer is not None and trainer.state.fn == "fit" and self.recorder.latest is not None:
            figure = confusion_figure(self.recorder.latest, f"validation clips, epoch {trainer.current_epoch + 1}")
            figure.set_dpi(60)
            writer.add_figure("confusion", figure, trainer.current_epoch)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The worst clips, the embeddings, and the parameters with the final metrics."""
        writer, table = _writer(trainer), self.recorder.latest
        if writer is None or table is None:
            return
        assert isinstance(pl_module, EmotionClassifier)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._add_worst_clips(writer, data, table)
        self._add_embeddings(writer, pl_module, data)
        names = ("val/uar", "val/accuracy", "val/f1", "val/loss")
        metrics = {f"final/{name}": float(trainer.callback_metrics[name]) for name in names}
        parameters = _flat(dict(pl_module.hparams)) | _flat({"data": _of_data(data)})
        experiment, start, end = hparams_summaries(parameters, metrics)  # type: ignore[no-untyped-call]
        for summary in (_leading(experiment), start, end):
            writer.file_writer.add_summary(summary)
        for name, value in metrics.items():
            writer.add_scalar(name, value, trainer.global_step)

    def _add_worst_clips(self, writer: Any, data: Any, table: Any) -> None:
        truth = np.array([row[f"prob_{row['label']}"] for _, row in table.iterrows()])
        worst = table.iloc[np.argsort(truth)[:WORST_CLIPS]]
        rows = [int(np.flatnonzero(data.clips["clip_id"] == clip_id)[0]) for clip_id in worst["clip_id"]]
        spectrogram = FrontEnd(Features(mode="spectrogram", hop_length=128), data.sample_rate)
        for rank, (row, (_, clip)) in enumerate(zip(rows, worst.iterrows(), strict=True), start=1):
            said = f"{clip['label']} heard as {clip['prediction']} ({clip['prob_' + clip['prediction']]:.0%})"
            waveform = _waveforms(data, [row])
            # The tag carries the text: TensorBoard shows no caption beside audio. No two kinds may share one tag.
            tag = f"{rank} {clip['clip_id']} {said}"
            writer.add_audio(
                f"worst_clips/{tag}", waveform / waveform.abs().max().clamp(min=1e-9), sample_rate=data.sample_rate
            )
            image = spectrogram(waveform)[0, 0].numpy()
            step = data.sample_rate / spectrogram.features.n_fft
            figure = features_figure(
                {f"{clip['clip_id']}\n{said}": image},
                spectrogram.features.hop_length / data.sample_rate,
                f"frequency bin ({step:.0f} Hz each)",
                "worst validation clips",
                "dB",
            )
            figure.set_dpi(70)
            writer.add_figure(f"worst_spectrograms/{tag}", figure)

    @torch.no_grad()
    def _add_embeddings(self, writer: Any, model: EmotionClassifier, data: Any) -> None:
        kept: list[Tensor] = []
        head = [layer for layer in model.network.modules() if isinstance(layer, torch.nn.Linear)][-1]
        hook = head.register_forward_hook(lambda _layer, inputs, _output: kept.append(inputs[0].float().cpu()))
        training, rows = model.training, data.subset("val")
        model.eval()
        for start in range(0, len(rows), data.batch_size):
            model(_waveforms(data, rows[start : start + data.batch_size]).to(model.device))
        model.train(training)
        hook.remove()
        clips = data.clips.iloc[rows]
        columns = ["clip_id", "emotion", "actor", "sex", "channel", "intensity"]
        metadata = clips[columns].astype(str).to_numpy().tolist()
        writer.add_embedding(torch.cat(kept), metadata=metadata, metadata_header=columns, tag="validation")


def _writer(trainer: pl.Trainer) -> Any:
    """The SummaryWriter of this process, or None when there is nothing to write."""
    if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    return next((logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)


def _waveforms(data: Any, rows: Any) -> Tensor:
    """Waveforms ``[B, T]`` of rows of the clip table, cropped in the middle."""
    dataset = data.dataset(np.asarray(rows))
    waveforms: Tensor = dataset.__getitems__(np.arange(len(rows)))["waveform"]
    return waveforms


def _of_data(data: Any) -> dict[str, Any]:
    return {"protocol": data.split["protocol"].iloc[0], "batch_size": data.batch_size, "clips": len(data.clips)}


def _leading(experiment: Summary) -> Summary:
    """Put :data:`LEADING` first: TensorBoard sorts by the mark of parameters that differ, then by name."""
    content = experiment.value[0].metadata.plugin_data
    told = HParamsPluginData.FromString(content.content)
    for info in told.experiment.hparam_infos:
        info.differs = info.name in LEADING
    content.content = told.SerializeToString()
    return experiment


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested parameters as one level with dotted names, in the types that TensorBoard takes."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat
