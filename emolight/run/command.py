"""The LightningCLI of ``fit``, ``validate`` and ``test``: links data and model, and gives every run its folder."""

import argparse
import errno
import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from jsonargparse import ArgumentError
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import callbacks, loggers
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import LearningRateMonitor, RichProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher, _SubprocessScriptLauncher

from emolight.data.datamodule import EmotionDataModule
from emolight.errors import EmolightError, nearest
from emolight.files import expand, remove_left_overs, write_text
from emolight.models.checkpoint import read_checkpoint
from emolight.run.finish import finish, print_start
from emolight.run.folder import CLAIMED, CONFIG, SPLIT, Run, logs_of
from emolight.run.options import add_enrolment, check_enrolment, contradictions
from emolight.run.parser import check_groups, option_error
from emolight.run.precision import fast_precision
from emolight.run.progress import EpochLines
from emolight.run.recorder import ContinuedCSVLogger, LastCheckpoint, Recorder, RunCheckpoints, StopOnSignal
from emolight.run.tensorboard import TensorBoardExtras

BESIDE = {"model", "train_dataloaders", "val_dataloaders", "dataloaders", "datamodule", "verbose", "weights_only"}
"""Arguments of the Trainer's methods that are no options."""
LOGGED = {"val/loss": "min", "val/uar": "max", "val/accuracy": "max", "val/f1": "max", "train/loss": "min"}
"""What callbacks can monitor, and which value of it is best."""
FINDERS = {"LearningRateFinder": "model.learning_rate", "BatchSizeFinder": "data.batch_size"}
"""Callbacks that change an option when ``config.yaml`` is written already."""
NO_PACKAGE = re.compile(r"Requirement '([\w-]+)|No module named '(\w+)|`(?:pip|uv pip) install (\S+?)`")
PROCESS_GONE = re.compile(r"peer|connection|gloo|nccl|socket", re.IGNORECASE)
"""In the message of a collective operation when another process of the group has died."""


class EmolightCLI(LightningCLI):
    """Links class names and sample rate into the model, and gives every run its folder."""

    run: Run
    recorder: Recorder
    command, pictures = "", True

    @classmethod
    def subcommands(cls) -> dict[str, set[str]]:
        """The command that is run, and the Trainer arguments that are no options of it; each parser takes time."""
        return {name: set(BESIDE) for name in ("fit", "validate", "test") if cls.command in ("", name)}

    def add_default_arguments_to_parser(self, parser: Any) -> None:
        """Options of the run itself."""
        parser.add_argument("--name", type=str, default="emolight", help="Run folder: lightning_logs/NAME/version_N.")
        parser.add_argument("--seed_everything", type=int, default=0, help="Seed of weights, order and augmentation.")

    def _prepare_subcommand_parser(self, klass: Any, subcommand: str, **kwargs: Any) -> Any:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "fit":
            parser.add_argument("--resume", type=str, help="Run folder of an interrupted fit to go on with.")
        if subcommand == "test":
            add_enrolment(parser)
        return parser

    def add_arguments_to_parser(self, parser: Any) -> None:
        """Link what the model must know of the data."""
        parser.link_arguments("data.classes", "model.classes", apply_on="instantiate")
        for name in ("sample_rate", "duration", "trim_db"):
            parser.link_arguments(f"data.{name}", f"model.{name}")
        parser.link_arguments("seed_everything", "model.seed")
        parser.link_arguments("seed_everything", "data.seed")

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Parse, with errors in this project's words."""
        check_groups(args)
        try:
            super().parse_arguments(parser, args)
        except (ArgumentError, argparse.ArgumentError, UnicodeDecodeError, RecursionError) as error:
            raise option_error(str(error), self._subcommand_parsers[args[0]], args) from None
        if not 0 <= (seed := self.config[self.config.subcommand].seed_everything) < 2**32:
            raise EmolightError(f"seed_everything is {seed}; it must be from 0 to 4294967295.", "0 is usual.")

    def _parse_ckpt_path(self) -> None:
        """Lightning lets a checkpoint override flags in silence; `before_instantiate_classes` refuses instead."""

    @property
    def own(self) -> Any:
        """The configuration of the command."""
        return self.config[self.subcommand]

    def before_instantiate_classes(self) -> None:
        """Refuse flags that contradict the checkpoint they are given with, and trainers without a result."""
        config, command = self.own, str(self.subcommand)
        if command == "fit":
            _check_trainer(config.trainer)
        part = config.trainer.limit_test_batches
        whole = part is None or (isinstance(part, float) and part == 1)  # the number 1 is one batch
        if command == "test" and not whole and not config.trainer.fast_dev_run:
            problem = f"trainer.limit_test_batches is {part}: a part of the test clips would stand for all of them."
            raise EmolightError(problem, "Leave it out.")
        if config.ckpt_path is None and command != "fit":
            fix = f"Type: python -m emolight {command} --ckpt_path lightning_logs/NAME/version_N"
            raise EmolightError(f"`{command}` needs a checkpoint.", fix)
        if config.ckpt_path is None:
            self.run = Run(Path())  # named when the trainer knows its processes
            return
        around = Run.around(Path(config.ckpt_path))
        self.run = around or Run(Path(config.ckpt_path).parent)
        given = yaml.safe_load(self.parser.dump(self.config, skip_link_targets=False, skip_unset=False))
        if changed := contradictions(config.ckpt_path, around, given[command], command):
            fix = "Leave the flag out; a checkpoint keeps the model and the task that it was trained with."
            raise EmolightError(f"The checkpoint was trained with {changed[0]}.", fix)
        self.run.check_writable()
        if command == "test":
            check_enrolment(config.enrol, config.model.speaker_norm)

    def instantiate_classes(self) -> None:
        """Make data, model and trainer; EmolightError where arguments do not fit, or a package is not installed."""
        try:
            super().instantiate_classes()
        except (ArgumentError, argparse.ArgumentError) as error:
            raise option_error(str(error), self._subcommand_parsers[str(self.subcommand)], []) from None
        except (ImportError, TypeError, ValueError) as error:
            if not (found := NO_PACKAGE.search(str(error))):
                *_, (frame, _) = traceback.walk_tb(error.__traceback__)
                if frame.f_globals["__name__"].partition(".")[0] not in ("lightning", "jsonargparse"):
                    raise
                reason = re.search(r"Errors:\s+- (.+)", str(error))  # of a class that did not like its arguments
                problem = f"An object of the configuration cannot be made: {reason[1] if reason else error}."
                raise EmolightError(problem, "Change its arguments.") from None
            package = next(filter(None, found.groups()))
            raise EmolightError(f"The package {package} is not installed.", f"pip install {package}") from None

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Give the trainer the run folder's loggers, checkpoints, recorder and progress."""
        config, options = self.own, dict(kwargs)
        dry, saves = config.trainer.fast_dev_run, config.trainer.enable_checkpointing is not False
        fitting = self.subcommand == "fit" and not dry
        own: list[pl.Callback] = []
        if not dry:
            self.recorder = Recorder(self.run, "" if fitting else self._suffix(config), checkpoints=fitting and saves)
            own.append(self.recorder)
        if fitting:
            own += [
                LearningRateMonitor("epoch"),
                TensorBoardExtras(self.recorder, self.pictures),
                StopOnSignal(self.run),
            ]
            own += [LastCheckpoint(self.run)] if saves else []
        if config.trainer.enable_progress_bar is not False:
            given = [getattr(one, "class_path", "") for one in _listed(config.trainer.callbacks)]
            theirs, shown = any(name.endswith("ProgressBar") for name in given), sys.stdout.isatty()
            own += [EpochLines(), RichProgressBar()] if shown and not theirs else [EpochLines()]
            options["enable_progress_bar"] = shown or theirs
        if self.subcommand == "fit" and config.trainer.precision is None:  # into config.yaml too
            config.trainer.precision = options["precision"] = fast_precision(config.trainer.accelerator)
        self.trainer_defaults["callbacks"] = [*own, *self.trainer_defaults["callbacks"]]
        # The user's, ours for checkpoints, and where `srun` starts a run a task, what keeps Lightning from SLURM.
        plugins = [*_listed(options.get("plugins", config.trainer.plugins)), RunCheckpoints()]
        devices = str(config.trainer.devices)
        alone = devices == "1" or (devices == "auto" and torch.cuda.device_count() < 2)
        if alone and config.trainer.num_nodes == 1 and "SLURM_NTASKS" in os.environ:
            plugins.append(LightningEnvironment())
        try:
            trainer: pl.Trainer = super().instantiate_trainer(**{**options, "logger": False, "plugins": plugins})
        except (MisconfigurationException, ImportError, ValueError, TypeError, RuntimeError) as error:
            fix = "Take what is there: --trainer.accelerator auto --trainer.devices auto --trainer.strategy auto"
            asked = {str(config.trainer[name]) for name in ("accelerator", "devices", "strategy", "num_nodes")}
            fix = fix if asked - {"auto", "cpu", "1"} else "Change that option of the trainer."
            raise EmolightError(f"The trainer cannot be made: {str(error)[:200]}", fix) from None
        if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > 2 * (cores := os.cpu_count() or 1):
            problem = f"trainer.devices is {trainer.num_devices}, each a process, but there are {cores} cores."
            raise EmolightError(problem, "Leave it out: one process uses them all.")
        if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
            problem = f"trainer.strategy is {config.trainer.strategy}: what its processes find would end with them."
            raise EmolightError(problem, "Take --trainer.strategy ddp, or one device.")
        scripted = isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher) and trainer.num_devices > 1
        if scripted and (own_class := re.search(r"__main__\.\w+", str(config))):
            problem = f"{own_class[0]} is a class of your script, which the other processes do not run."
            raise EmolightError(problem, "Put the class into a file of its own, and name it as FILE.CLASS.")
        # It came from RANK or SLURM_PROCID, also where this process trains for itself.
        rank_zero_only.rank = trainer.global_rank  # type: ignore[attr-defined]
        if fitting:
            self._take_folder(config, trainer.is_global_zero)
            trainer.loggers = self._loggers(config)
        return trainer

    def _take_folder(self, config: Any, first: bool) -> None:
        """Claim the run folder and write its configuration; other processes of the group learn where it is."""
        logs = logs_of(config)
        if config.ckpt_path is None:
            here = Run.claim(logs, config.name).folder if first else Path(os.environ.get(CLAIMED, logs / config.name))
            self.run.folder = here
        if first:
            remove_left_overs(self.run.folder)
            os.environ[CLAIMED] = str(self.run.folder)
            if not (self.run.folder / CONFIG).is_file():
                write_text(self.run.folder / CONFIG, self._parser("fit").dump(config, skip_unset=False))

    def _loggers(self, config: Any) -> list[Logger]:
        """TensorBoard and ``metrics.csv``, from a checkpoint on where its epoch began; and the user's own."""
        place: dict[str, Any] = {"save_dir": str(self.run.folder.parent), "name": "", "version": self.run.folder.name}
        step = None if config.ckpt_path is None else read_checkpoint(config.ckpt_path)["global_step"]
        table = CSVLogger(**place) if step is None else ContinuedCSVLogger(self.run.folder, step)
        given = _listed(self._get(self.config_init, "trainer.logger", default=None))
        theirs = [one for one in given if isinstance(one, Logger)]
        return [TensorBoardLogger(**place, default_hp_metric=False, purge_step=step), table, *theirs]

    def _suffix(self, config: Any) -> str:
        """What tells these tables from those of the best checkpoint on the run's own clips."""
        stem = Path(config.ckpt_path).stem
        suffix = "" if self.subcommand == "test" and stem == "best" else f"_{stem}"
        if config.data.protocol == "test":
            data: EmotionDataModule = self._get(self.config_init, "data")
            return f"{suffix}_{data.corpus_name.replace(' ', '_')}"
        split = config.data.split_csv and expand(config.data.split_csv)
        own = split and split.resolve() != (self.run.folder / SPLIT).resolve()
        return suffix + (f"_{split.stem}" if own else "")

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        # The closing table says it better than Lightning's own.
        return kwargs if subcommand == "fit" else {**kwargs, "verbose": False}

    def _run_subcommand(self, subcommand: str) -> None:
        dry = self.trainer.fast_dev_run  # type: ignore[attr-defined]
        fitting = subcommand == "fit" and not dry
        go_on = f"Go on with: python -m emolight fit --resume {self.run.folder}" if fitting else ""
        if fitting:
            print_start(self.run, self.trainer, self.model, self.datamodule)
        try:
            super()._run_subcommand(subcommand)
            if self.trainer.is_global_zero and not dry:
                finish(self.recorder, self.datamodule, self.model, subcommand, self.own.ckpt_path or "", self.pictures)
        except SystemExit as error:
            # Lightning turns Ctrl-C into exit code 1.
            if self.trainer.interrupted and error.code == 1:
                raise KeyboardInterrupt from None
            raise
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            if not full and (error.filename is not None or error.errno in (None, errno.EPIPE)):
                raise
            what = "The disk is full" if full else "The system does not read or write"
            raise EmolightError(f"{what}: {error}.", f"{'Free some space' if full else 'Mend that'}. {go_on}") from None
        except EmolightError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            misused = isinstance(error, MisconfigurationException)
            if not misused and self.trainer.world_size > 1 and PROCESS_GONE.search(str(error)):
                raise EmolightError(f"Another process of this run is gone: {reason}", go_on) from None
            if kind := self._named_in(error):
                problem = f"{kind} cannot be used: {reason.partition(' Pass in')[0]}"
                raise EmolightError(problem, "Change its options, or leave it out.") from None
            *_, (frame, _) = traceback.walk_tb(error.__traceback__)
            if misused or (isinstance(error, ValueError) and frame.f_globals["__name__"].startswith("lightning.")):
                raise EmolightError(reason, "Change that option of the trainer.") from None
            raise

    def _named_in(self, error: BaseException) -> str:
        """The callback or logger of Lightning's that the configuration names and in which an error arose, or ``""``."""
        modules: dict[str, str] = {}
        for option, package in (("callbacks", callbacks), ("logger", loggers)):
            for one in _listed(self.own.trainer[option]):
                kind = getattr(package, getattr(one, "class_path", "").rpartition(".")[2], None)
                modules[getattr(kind, "__module__", "")] = f"trainer.{option}: {getattr(kind, '__name__', '')}"
        names = (frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__))
        return next((modules[name] for name in names if name in modules), "")


def _check_trainer(trainer: Any) -> None:
    """Refuse options of the trainer with which it could not train, or would train without a result."""
    epochs, every = trainer.max_epochs, trainer.check_val_every_n_epoch or 1
    for name in ("accumulate_grad_batches", "check_val_every_n_epoch", "val_check_interval"):
        if isinstance(trainer[name], int | float) and trainer[name] <= 0:
            raise EmolightError(f"trainer.{name} is {trainer[name]}; it must be above 0.", "Leave it out, or raise it.")
    if epochs is not None and epochs < 1:
        fix = "The learning rate's schedule is laid out over the epochs."
        raise EmolightError(f"trainer.max_epochs is {epochs}; it must be at least 1.", fix)
    if epochs is not None and every > epochs:
        problem = f"trainer.check_val_every_n_epoch is {every}, and max_epochs {epochs}: there would be no result."
        raise EmolightError(problem, "Lower it, or raise trainer.max_epochs.")
    for name in ("limit_train_batches", "limit_val_batches"):
        if trainer[name] == 0:
            raise EmolightError(f"trainer.{name} is 0: there would be no result.", "Leave it out, or raise it.")
    given = [one for one in _listed(trainer.callbacks) if hasattr(one, "class_path")]
    own = any(not one.class_path.startswith("lightning.") for one in given)  # may log something else
    for one in given:
        chosen, kind = one.get("init_args") or {}, one.class_path.rpartition(".")[2]
        monitor, mode = str(chosen.get("monitor") or ""), chosen.get("mode")
        if kind in FINDERS:
            problem = f"trainer.callbacks has {kind}: config.yaml and the schedule would not know what it finds."
            raise EmolightError(problem, f"Give {FINDERS[kind]}, or let `sweep` search it.")
        measured = not monitor or monitor.startswith(("lr", "val/recall_")) or monitor in ("epoch", "step", *LOGGED)
        if not measured and not own:
            near = nearest(monitor.lower().replace("_", "/", 1), LOGGED)
            problem = f"trainer.callbacks monitors '{monitor}', which is not logged."
            raise EmolightError(problem, f"{near}Logged are {', '.join(LOGGED)}.")
        best = "max" if monitor.startswith("val/recall_") else LOGGED.get(monitor, mode)
        if mode in ("min", "max") and mode != best:
            problem = f"{kind} monitors {monitor} with mode '{mode}', but of {monitor} the {best}imum is best."
            raise EmolightError(problem, f"Give it mode: {best}, as by --trainer.callbacks.mode {best}")


def _listed(value: Any) -> list[Any]:
    """An option that takes one or several, as a list."""
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
