"""What a run keeps while it trains: tables and checkpoints of its best model, its state, its curves."""

import contextlib
import shlex
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
import numpy as np
import pandas as pd
from lightning.pytorch.callbacks import Checkpoint, StochasticWeightAveraging, Timer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.plugins import MixedPrecision

from emolight.data.datamodule import EmotionDataModule
from emolight.data.splits import ALL_TEST
from emolight.errors import EmolightError
from emolight.evaluation.calibration import calibrate
from emolight.evaluation.plots import confusion_figure, curves_figure, recall_figure, speaker_figure
from emolight.evaluation.predictions import predictions_table, scores
from emolight.evaluation.style import save_figure
from emolight.files import write_json, write_table
from emolight.models.checkpoint import CheckpointFiles, read_checkpoint, save_checkpoint, weights_only_state
from emolight.models.classifier import EmotionClassifier
from emolight.models.loading import classifier_of
from emolight.models.ood import fit_ood
from emolight.run.environment import environment, slurm_job
from emolight.run.folder import SPLIT, Run

WEIGHTS_ONLY = "weights only"


@dataclass
class Best:
    """The validation that counts: its epoch from 0, its metrics by logged name, and its predictions."""

    epoch: int = -1
    metrics: dict[str, float] = field(default_factory=dict)
    table: pd.DataFrame | None = None


class Recorder(pl.Callback):
    """Writes the run folder's tables, and ``best.ckpt`` together with the predictions that it makes.

    What counts is decided at one event, the end of a validation: the highest UAR so far; or the last validation, where
    validation speakers are in training too, since to choose the best of many and then quote it flatters. Whatever shows
    a run's result (table, card, TensorBoard, checkpoint, sweep) takes it from here.
    """

    def __init__(self, run: Run, suffix: str = "", checkpoints: bool = True) -> None:
        self.run, self.suffix, self.checkpoints = run, suffix, checkpoints
        self.best = Best()
        self.latest: pd.DataFrame | None = None
        self._started = self._earlier = 0.0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write ``split.csv`` and ``environment.json``, and tell what is odd about the clips."""
        self._started = time.monotonic()
        if not trainer.is_global_zero:
            return
        data = data_of(trainer)
        data.split.write(self.run.folder / SPLIT)
        corpus, seed = data.selection.corpus, int(pl_module.hparams["seed"])
        self.run.note(
            **environment(str(pl_module.device), str(trainer.precision), seed, trainer.world_size),
            **{"corpus": corpus.name, "about": corpus.about, "licence": corpus.licence, "citation": corpus.citation},
            task=data.task_name,
            groups=list(data.groups),
            notes=data.selection.notes,
            parameters=sum(weights.numel() for weights in pl_module.parameters()),
            pretrained=getattr(pl_module.network, "about", None),
            resumed=self.run.environment.get("resumed", -1) + 1,
            finished=False,
        )
        for note in data.selection.notes:
            print(f"note:   {note}", flush=True)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a training that would stop before its first validation, or go on with another schedule."""
        for config in trainer.lr_scheduler_configs:  # as a checkpoint left it
            begun = getattr(config.scheduler, "total_steps", None)
            now = max(int(getattr(pl_module, "steps", begun or 1)), 1)  # before a callback that adds epochs
            if begun not in (None, now):
                problem = f"The run was begun for {begun} steps, and with these options it would have {now}."
                fix = "Resume it with the clips, the data.batch_size and as many trainer.devices as it had."
                raise EmolightError(problem, fix)
        swa, callbacks = StochasticWeightAveraging, trainer.callbacks  # type: ignore[attr-defined]
        if any(isinstance(one, swa) for one in callbacks) and not swa.pl_module_contains_batch_norm(pl_module):
            problem = "StochasticWeightAveraging averages a network without batch norm after the last validation."
            raise EmolightError(problem, "It would be in no result; take EMAWeightAveraging, which is validated.")
        first = int(min(trainer.val_check_batch or np.inf, trainer.num_training_batches))
        first = -(-first // trainer.accumulate_grad_batches) * (trainer.check_val_every_n_epoch or 1)
        if 0 <= trainer.max_steps < first:
            problem = f"trainer.max_steps is {trainer.max_steps}, but the first validation comes after {first} steps."
            raise EmolightError(problem, "Raise it, or lower trainer.val_check_interval.")
        # A run that was stopped early stays so: each resume would train another epoch, which then counts.
        trainer.should_stop |= any(one.stopping_reason_message for one in trainer.early_stopping_callbacks)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Decide whether this validation is the one that counts."""
        if trainer.sanity_checking:
            return
        found, fitting = self._found(trainer, pl_module, "val"), trainer.state.fn == "fit"
        better = found.metrics["val/uar"] > self.best.metrics.get("val/uar", -1.0)
        if better or not fitting or not data_of(trainer).split.selects_epoch:
            self.best = found
            if trainer.is_global_zero:
                self._write("val", fitting)
            if fitting and self.checkpoints:
                # Not Lightning's own weights_only, which leaves out what callbacks average.
                trainer.save_checkpoint(self.run.best, storage_options=WEIGHTS_ONLY)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write ``predictions_test.csv``."""
        self.best = self._found(trainer, pl_module, "test")
        if trainer.is_global_zero:
            self._write("test", fitting=False)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the best checkpoint its out-of-distribution score, and note the wall time and what came out."""
        if trainer.is_global_zero:
            if self.checkpoints and self.best.table is not None:
                with contextlib.suppress(EmolightError):  # of a network that has no embedding
                    self._add_ood(trainer, pl_module)
            callbacks, loop = trainer.callbacks, trainer.fit_loop  # type: ignore[attr-defined]
            timers = [one.time_remaining() for one in callbacks if isinstance(one, Timer)]
            timed = any(left is not None and left <= 0 for left in timers)
            if timed or any(one.stopping_reason_message for one in trainer.early_stopping_callbacks):
                why = "the time of trainer.max_time or Timer is over" if timed else "EarlyStopping has ended it"
                progress: Any = loop.epoch_progress.current
                whole = loop.epoch_loop.batch_progress.is_last_batch
                cut = "" if whole else ", in the middle of the last one, whose rest a resumed run leaves out"
                epochs = f"{progress.processed} of {trainer.max_epochs} epochs"
                print(f"note:   trained for {epochs}: {why}{cut}", flush=True)
            found = {"best_epoch": self.best.epoch + 1, "best_metrics": self.best.metrics}
            self.run.note(seconds=round(self._seconds, 1), finished=self.best.table is not None, **found)

    def _add_ood(self, trainer: pl.Trainer, trained: Any) -> None:
        checkpoint = read_checkpoint(self.run.best)
        model = classifier_of(checkpoint, self.run.best).to(trained.device)
        model.enrol(*trained.enrolled)
        mixed = isinstance(trainer.precision_plugin, MixedPrecision)
        cast = trainer.precision_plugin.forward_context if mixed else contextlib.nullcontext
        score = fit_ood(model, data_of(trainer), cast)
        checkpoint["state_dict"] |= {f"ood.{name}": values for name, values in score.named_buffers()}
        save_checkpoint(checkpoint, self.run.best)

    @property
    def _seconds(self) -> float:
        """Wall time of the training, with what came before it was stopped and resumed."""
        return self._earlier + time.monotonic() - self._started

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know of the epochs before."""
        return {"epoch": self.best.epoch, "metrics": self.best.metrics, "seconds": self._seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it over; the predictions stand in the run folder, unless they are of an epoch that will come again."""
        self._earlier, metrics = state_dict["seconds"], state_dict["metrics"]
        if metrics and (self.run.folder / "predictions_val.csv").is_file():
            table = self.run.predictions()
            if abs(scores(table)["uar"] - metrics["val/uar"]) < 1e-6:
                self.best = Best(state_dict["epoch"], metrics, table)

    def _found(self, trainer: pl.Trainer, model: pl.LightningModule, subset: str) -> Best:
        """Metrics and calibrated predictions, of all processes."""
        assert isinstance(model, EmotionClassifier)
        data, metrics = data_of(trainer), trainer.callback_metrics
        probabilities = calibrate(model.predictions["probabilities"], float(model.temperature))
        self.latest = table_of(data, model.predictions["index"], probabilities)
        own = {name: float(value) for name, value in metrics.items() if name.startswith(f"{subset}/")}
        return Best(trainer.current_epoch, own, self.latest)

    def _write(self, subset: str, fitting: bool) -> None:
        assert self.best.table is not None
        write_table(self.run.folder / f"predictions_{subset}{self.suffix}.csv", self.best.table)
        if not fitting:
            write_json(self.run.folder / f"metrics_{subset}{self.suffix}.json", scores(self.best.table))
        for old in ("predictions_test*", "metrics_test*", "controls_test*", "plots/test_*") if fitting else ():
            for path in self.run.folder.glob(old):  # of the model before
                path.unlink()

    def draw(self, subset: str, note: str) -> None:
        """Draw the plots of the predictions that count, and the learning curves after a fit."""
        assert self.best.table is not None
        plots, name = self.run.folder / "plots", "/".join(self.run.folder.resolve().parts[-2:])
        title = f"{name}: {'validation' if subset == 'val' else subset} clips, {note}"
        for kind, draw in (("confusion", confusion_figure), ("recall", recall_figure), ("speakers", speaker_figure)):
            save_figure(draw(self.best.table, title), plots / f"{subset}_{kind}{self.suffix}.png")
        if subset == "val" and not self.suffix and (self.run.folder / "metrics.csv").exists():
            curves = curves_figure(pd.read_csv(self.run.folder / "metrics.csv"), f"{name}: learning curves")
            save_figure(curves, plots / "curves.png")


class RunCheckpoints(CheckpointFiles):
    """Writes the best model as its weights alone: those that were validated, also where a callback averages them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """As of Lightning's trainer."""
        if storage_options == WEIGHTS_ONLY:
            checkpoint = weights_only_state(checkpoint)
        super().save_checkpoint(checkpoint, path)


class LastCheckpoint(Checkpoint):
    """Writes ``last.ckpt`` at the start and after every epoch: a run goes on exactly from between two epochs.

    Lightning calls checkpoint callbacks after all others, so the states of these are in it.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make sure that a run can be resumed which is stopped in its first epoch."""
        if trainer.global_step == 0:
            trainer.save_checkpoint(self.run.last)
        # Under max_steps Lightning would pass through the epoch before once more, without a batch.
        progress: Any = trainer.fit_loop.epoch_progress.current
        if progress.ready == progress.processed:
            progress.completed = progress.processed
            _Loop.restarting.fset(trainer.fit_loop, False)  # type: ignore[attr-defined]
            trainer.fit_loop.reset_restart_stage()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save."""
        trainer.save_checkpoint(self.run.last)


def data_of(trainer: pl.Trainer) -> EmotionDataModule:
    """The data module of a trainer."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, EmotionDataModule)
    return data


def table_of(data: EmotionDataModule, rows: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """The predictions table of some rows of ``data.clips`` and their calibrated probabilities ``[N, C]``.

    Of another corpus than the model's the labels that both have compete, and no others.
    """
    clips = data.clips.iloc[rows]
    if data.split.label == ALL_TEST:
        probabilities = probabilities * np.isin(data.classes, data.clips["emotion"])
        probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    return predictions_table(clips, data.classes, probabilities, data.groups)


class ContinuedCSVLogger(CSVLogger):
    """Keeps the rows of ``metrics.csv`` before the optimiser's ``step``, where Lightning would begin anew."""

    def __init__(self, folder: Path, step: int) -> None:
        path = folder / "metrics.csv"
        earlier = pd.read_csv(path) if path.is_file() and path.stat().st_size else pd.DataFrame()
        super().__init__(str(folder.parent), name="", version=folder.name)
        if len(earlier):
            rows = [row.dropna().to_dict() for _, row in earlier[earlier["step"] < step].iterrows()]
            self.experiment.metrics = [{**row, "step": int(row["step"])} for row in rows]
            self.save()


class StopOnSignal(pl.Callback):
    """Ends a fit on SIGTERM with exit code 143; on SLURM's SIGUSR1 it puts the job back into the queue first.

    The checkpoint of the last whole epoch stands already: a state in mid-epoch could not be continued exactly.
    Lightning's own handlers, which these replace, exit with 0 and may wait for ever for another process.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals, after Lightning has; it puts the handlers before its own back at the end."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python allows handlers there alone

        numbers = (signal.SIGTERM, *([signal.SIGUSR1] if slurm_job() else []))

        def stop(number: int, *_: Any) -> NoReturn:
            for one in numbers:
                signal.signal(one, signal.SIG_IGN)  # a second one, of a parent that ends too, must not cut off the end
            if number == signal.SIGUSR1 and trainer.is_global_zero:
                subprocess.run(["scontrol", "requeue", str(slurm_job())], check=False)
            if trainer.strategy.launcher is not None:
                trainer.strategy.launcher.kill(signal.SIGTERM)
            raise SystemExit(128 + signal.SIGTERM)

        for number in numbers:
            signal.signal(number, stop)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Say how to go on."""
        stopped = isinstance(exception, KeyboardInterrupt | SystemExit)
        if stopped and trainer.is_global_zero and self.run.last.is_file():
            go_on = f"python -m emolight fit --resume {shlex.quote(str(self.run.folder))}"
            epoch = trainer.current_epoch + 1
            print(f"\nstopped in epoch {epoch}; what came before it is kept. Go on with:\n  {go_on}", flush=True)
