"""What TensorBoard shows beside the curves: confusion by epoch, features, worst clips, parameters, embeddings."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import Tensor
from torch.utils.tensorboard.summary import hparams as hparams_summaries

from emolight.data.datamodule import EmotionDataModule
from emolight.evaluation.pictures import draw_spectrogram, features_figure
from emolight.evaluation.plots import confusion_figure
from emolight.evaluation.style import new_figure
from emolight.models.classifier import EmotionClassifier
from emolight.models.ood import embeddings_of
from emolight.models.parts import described
from emolight.run.recorder import Recorder, data_of

WORST_CLIPS = 5
LEADING = ("features", "features.n_mels", "features.n_mfcc", "learning_rate", "data.batch_size")
"""Parameters that stand first in TensorBoard's table, which shows five until more are ticked."""


class TensorBoardExtras(pl.Callback):
    """Writes images, audio, parameters and embeddings of a fit, from the first process; stands after ``recorder``.

    Without ``pictures`` it writes the parameters alone.
    """

    def __init__(self, recorder: Recorder, pictures: bool = True) -> None:
        self.recorder, self.pictures = recorder, pictures

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """One feature image of each emotion."""
        writer = _writer(trainer)
        assert isinstance(pl_module, EmotionClassifier)
        front_end = pl_module.front_end
        if writer is None or not self.pictures or not front_end.image:
            return
        data = data_of(trainer)
        train = data.subset("train")
        labels = data.clips["emotion"].iloc[train]
        first = {name: int(train[labels == name][0]) for name in data.classes if (labels == name).any()}
        with torch.no_grad():
            waveforms = _waveforms(data, list(first.values())).to(pl_module.device)
            images = pl_module.normalise(front_end(waveforms))[:, 0].float().cpu().numpy()
        title = f"{front_end.pictured} of training clips, as the network sees them"
        shown = dict(zip(first, images, strict=True))
        rate, unit = data.sample_rate, "standard deviations"
        figure = features_figure(shown, rate, front_end.hop_length, front_end.axis, unit, title)
        figure.set_dpi(80)
        writer.add_figure("features", figure)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The confusion matrix of this epoch."""
        writer = _writer(trainer) if self.pictures else None
        if writer is None or trainer.state.fn != "fit" or trainer.sanity_checking or self.recorder.latest is None:
            return
        epoch = trainer.current_epoch + 1
        figure = confusion_figure(self.recorder.latest, f"validation clips, epoch {epoch}")
        figure.set_dpi(70)
        writer.add_figure("confusion", figure, epoch)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The worst clips and the parameters with the metrics of the model that counts, and the embeddings."""
        writer, best = _writer(trainer), self.recorder.best
        if writer is None or best.table is None:
            return
        assert isinstance(pl_module, EmotionClassifier)
        data = data_of(trainer)
        if self.pictures:
            _add_worst_clips(writer, data, best.table)
            _add_embeddings(writer, pl_module, data)
        metrics = {f"best/{name}": best.metrics[f"val/{name}"] for name in ("uar", "accuracy", "f1", "loss")}
        of_data = {"corpus": data.corpus_name, "split": data.split.label, "batch_size": data.batch_size}
        parameters = dict(_flat({**pl_module.hparams, "data": {**of_data, "clips": len(data.clips)}}))
        experiment, *others = hparams_summaries(parameters, metrics)  # type: ignore[no-untyped-call]
        # TensorBoard sorts by the mark of parameters that differ, then by name.
        content = experiment.value[0].metadata.plugin_data
        told = HParamsPluginData.FromString(content.content)
        for info in told.experiment.hparam_infos:
            info.differs = info.name in LEADING
        content.content = told.SerializeToString()
        for summary in (experiment, *others):
            writer.file_writer.add_summary(summary)
        for name, value in metrics.items():
            writer.add_scalar(name, value, trainer.global_step)


def _add_worst_clips(writer: Any, data: EmotionDataModule, table: pd.DataFrame) -> None:
    truth = np.array([row[f"prob_{row['label']}"] for _, row in table.iterrows()])
    for rank, (_, clip) in enumerate(table.iloc[np.argsort(truth)[:WORST_CLIPS]].iterrows(), start=1):
        waveform = _waveforms(data, np.flatnonzero(data.clips["clip_id"] == clip["clip_id"]))
        said = f"{clip['label']} predicted as {clip['prediction']} ({clip['prob_' + clip['prediction']]:.0%})"
        # The tag carries the text: TensorBoard shows no caption beside audio. No two kinds may share one tag.
        tag, loudest = f"{rank} {clip['clip_id']} {said}", waveform.abs().max().clamp(min=1e-9)
        writer.add_audio(f"worst_clips/{tag}", waveform / loudest, sample_rate=data.sample_rate)
        figure = new_figure(6.4, 3.2, f"worst validation clips: {clip['clip_id']}\n{said}")
        draw_spectrogram(figure.subplots(), waveform[0].numpy(), data.sample_rate)
        figure.set_dpi(80)
        writer.add_figure(f"worst_spectrograms/{tag}", figure)


def _add_embeddings(writer: Any, model: EmotionClassifier, data: EmotionDataModule) -> None:
    training, rows = model.training, data.subset("val")
    model.eval()
    embedded = embeddings_of(model, data, rows)
    model.train(training)
    columns = ["clip_id", "emotion", "speaker", *data.groups]
    metadata = data.clips.iloc[rows][columns].astype(str).to_numpy().tolist()
    shutil.rmtree(folder := Path(writer.log_dir) / "00000", ignore_errors=True)  # of a run that goes on
    folder.with_name("projector_config.pbtxt").unlink(missing_ok=True)
    writer.add_embedding(embedded, metadata=metadata, metadata_header=columns, tag="validation")


def _writer(trainer: pl.Trainer) -> Any:
    """The SummaryWriter of the first process, or None."""
    boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return boards[0].experiment if boards and trainer.is_global_zero else None


def _waveforms(data: EmotionDataModule, rows: Any) -> Tensor:
    """Waveforms ``[B, T]`` of rows of the clip table, cropped in the middle."""
    return data.dataset(np.asarray(rows)).__getitems__(np.arange(len(rows)))["waveform"]  # type: ignore[arg-type]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested parameters as dotted names with values in the types that TensorBoard takes."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, prefix if name == "init_args" else f"{prefix}{name}.")
        elif name == "class_path":  # a whole path would not fit into its cell
            yield prefix[:-1], str(value).rpartition(".")[2]
        else:
            yield prefix + name, value if isinstance(value, bool | int | float | str) else described(value)
