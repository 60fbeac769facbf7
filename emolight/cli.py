"""``fit``, ``validate`` and ``test``: a LightningCLI that links data and model and writes the run folder."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import yaml
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from emolight.data.datamodule import EmotionDataModule
from emolight.data.splits import describe_protocol
from emolight.errors import EmolightError
from emolight.files import atomic_write, remove_left_overs
from emolight.model_card import write_model_card
from emolight.models.checkpoint import CheckpointFiles, read_checkpoint
from emolight.models.classifier import EmotionClassifier
from emolight.option_errors import check_groups, option_error
from emolight.parser import EmolightParser, limit_imports
from emolight.progress import progress
from emolight.recorder import Recorder, speaker_dependent
from emolight.resume import BestAndLast, ContinuedCSVLogger
from emolight.run_options import contradictions, insert_run_config
from emolight.runs import CLAIMED, LOGS, claim_run_folder, remove_unused, run_folder_of
from emolight.signals import OTHER_PROCESS_GONE, StopOnSignal
from emolight.summary import print_summary
from emolight.tensorboard import TensorBoardExtras


class EmolightCLI(LightningCLI):
    """Links class names and sample rate into the model, and gives every run its folder."""

    run: Path
    recorder: Recorder

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The commands, and the Trainer arguments that are not options of theirs."""
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"},
            "validate": {"model", "dataloaders", "datamodule", "verbose", "weights_only"},
            "test": {"model", "dataloaders", "datamodule", "verbose", "weights_only"},
        }

    def add_default_arguments_to_parser(self, parser: Any) -> None:
        """Options of the run itself."""
        parser.add_argument(
            "--name", type=str, default="emolight", help="Run folder: lightning_logs/NAME/version_N."
        )
        parser.add_argument(
            "--seed_everything", type=int, default=0, help="Seed of weights, order and augmentation."
        )

    def _prepare_subcommand_parser(self, klass: Any, subcommand: str, **kwargs: Any) -> Any:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        # The others must know it as well: they read the config.yaml of a fit.
        about = "Run folder of an interrupted fit to go on with." if subcommand == "fit" else argparse.SUPPRESS
        parser.add_argument("--resume", type=str, help=about)
        return parser

    def add_arguments_to_parser(self, parser: Any) -> None:
        """Link what the model must know of the data."""
        parser.link_arguments("data.emotions", "model.classes")
        for name in ("sample_rate", "duration", "trim_db"):
            parser.link_arguments(f"data.{name}", f"model.{name}")
        parser.link_arguments("seed_everything", "model.seed")
        parser.link_arguments("seed_everything", "data.seed")

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Parse, with errors in this project's words."""
        if args and args[0] in self._subcommand_parsers:
            check_groups(args)
        try:
            super().parse_arguments(parser, args)
        except (ArgumentError, argparse.ArgumentError) as error:
            raise option_error(str(error), self._subcommand_parsers[args[0]], args) from None
        except (UnicodeDecodeError, RecursionError) as error:
            text = f"Problems parsing config: {error}"
            raise option_error(text, self._subcommand_parsers[args[0]], args) from None
        seed = self.config[self.config.subcommand].seed_everything
        if not 0 <= seed < 2**32:
            raise EmolightError(f"seed_everything is {seed}; it must be from 0 to 4294967295.", "0 is usual.")

    def _parse_ckpt_path(self) -> None:
        """Lightning lets a checkpoint override flags in silence; `before_instantiate_classes` refuses instead."""

    def before_instantiate_classes(self) -> None:
        """Refuse flags that contradict the checkpoint they are given with."""
        config = self.config[self.subcommand]
        epochs = config.trainer.max_epochs
        if self.subcommand == "fit" and epochs is not None and epochs < 1:
            raise EmolightError(
                f"trainer.max_epochs is {epochs}; it must be at least 1.",
                "The learning rate's schedule is laid out over the epochs.",
            )
        if config.ckpt_path is None:
            if self.subcommand != "fit":
                raise EmolightError(
                    f"`{self.subcommand}` needs a checkpoint.",
                    f"Type: python -m emolight {self.subcommand} --ckpt_path RUN/checkpoints/best.ckpt",
                )
            return
        self.run = run_folder_of(Path(config.ckpt_path)) or Path(config.ckpt_path).parent
        given = yaml.safe_load(self.parser.dump(self.config, skip_link_targets=False, skip_unset=False))
        changed = contradictions(config.ckpt_path, self.run, given[self.subcommand], str(self.subcommand))
        if changed:
            raise EmolightError(
                f"The checkpoint was trained with {changed[0]}.",
                "Leave the flag out; a checkpoint keeps the model and the task that it was trained with.",
            )

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Give the trainer the run folder's loggers, checkpoints, recorder and progress."""
        config = self.config[self.subcommand]
        options = dict(kwargs)
        callbacks: list[pl.Callback] = []
        fitting = self.subcommand == "fit"
        logs = Path(config.trainer.default_root_dir or ".") / LOGS
        if fitting and not config.trainer.fast_dev_run:
            if config.ckpt_path is None:
                self.run = claim_run_folder(logs, config.name)
            else:
                remove_left_overs(self.run)
            os.environ[CLAIMED] = str(self.run)
            if config.trainer.logger in (None, True):
                options["logger"] = self._loggers(config.ckpt_path)
                callbacks.append(LearningRateMonitor("epoch"))
            self.recorder = Recorder(self.run)
            callbacks += [self.recorder, TensorBoardExtras(self.recorder), StopOnSignal(self.run)]
            if config.trainer.enable_checkpointing is not False:
                callbacks.append(BestAndLast(self.run / "checkpoints"))
        elif not fitting:
            options["logger"] = False
            stem = Path(config.ckpt_path).stem
            own_split = f"_{Path(config.data.split_csv).stem}" if self._own_split(config) else ""
            suffix = ("" if self.subcommand == "test" and stem == "best" else f"_{stem}") + own_split
            self.recorder = Recorder(self.run, suffix)
            callbacks.append(self.recorder)
        else:
            options["logger"] = False
        if config.trainer.enable_progress_bar is not False:
            callbacks += progress()
            options["enable_progress_bar"] = sys.stdout.isatty()
        self.trainer_defaults["callbacks"] = [*callbacks, *self.trainer_defaults["callbacks"]]
        given = options.get("plugins", config.trainer.plugins) or []
        options["plugins"] = [*(given if isinstance(given, list) else [given]), CheckpointFiles()]
        try:
            trainer: pl.Trainer = super().instantiate_trainer(**options)
        except (MisconfigurationException, ImportError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise EmolightError(
                f"The trainer cannot be made: {reason}",
                "Change that; without --trainer.accelerator and --trainer.devices, what is there is taken.",
            ) from None
        cores = os.cpu_count() or 1
        if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > 2 * cores:
            raise EmolightError(
                f"trainer.devices is {trainer.num_devices}, each a process, but this machine has {cores} cores.",
                "Leave it out: one process uses them all.",
            )
        return trainer

    def _loggers(self, checkpoint: str | None) -> list[Logger]:
        """TensorBoard and ``metrics.csv``; from a checkpoint on they go on where its epoch began."""
        place: dict[str, Any] = {"save_dir": str(self.run.parent), "name": "", "version": self.run.name}
        board = {**place, "default_hp_metric": False}
        if checkpoint is None:
            return [TensorBoardLogger(**board), CSVLogger(**place)]
        step = read_checkpoint(checkpoint)["global_step"]
        return [TensorBoardLogger(**board, purge_step=step), ContinuedCSVLogger(self.run, step)]

    def _own_split(self, config: Any) -> bool:
        return (
            bool(config.data.split_csv)
            and Path(config.data.split_csv).resolve() != (self.run / "split.csv").resolve()
        )

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        # The closing table says it better than Lightning's own.
        return kwargs if subcommand == "fit" else {**kwargs, "verbose": False}

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except SystemExit as error:
            # Lightning turns Ctrl-C into exit code 1.
            if self.trainer.interrupted and error.code == 1:
                raise KeyboardInterrupt from None
            raise
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise EmolightError(f"The disk is full: {error}.", f"Free some space. {self._how_to_go_on()}") from None
        except RuntimeError as error:
            if self.trainer.world_size == 1 or not OTHER_PROCESS_GONE.search(str(error)):
                raise
            reason = str(error).splitlines()[0][:120]
            raise EmolightError(f"Another process of this run is gone: {reason}", self._how_to_go_on()) from None

    def _how_to_go_on(self) -> str:
        return f"Go on with: python -m emolight fit --resume {self.run}" if self.subcommand == "fit" else ""

    def after_fit(self) -> None:
        """Plots and the closing table."""
        self._finish("val")

    def after_validate(self) -> None:
        """Plots and the closing table."""
        self._finish("val")

    def after_test(self) -> None:
        """Plots and the closing table."""
        self._finish("test")

    @rank_zero_only
    def _finish(self, subset: str) -> None:
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        label = str(self.datamodule.split["protocol"].iloc[0])
        note = f"{label} ({describe_protocol(label)})"
        if self.datamodule.synthetic:
            note = f"synthetic voices, {note}"
        # Lightning's loggers leave an empty one; config.yaml holds the parameters.
        (self.run / "hparams.yaml").unlink(missing_ok=True)
        self.recorder.draw(subset, note)
        controls = self._controls() if subset == "test" else []
        own = self.recorder.selected is not None and not self.recorder.suffix and self.subcommand != "validate"
        if own and (self.run / "config.yaml").is_file():
            write_model_card(self.run)
        dependent = speaker_dependent(self.trainer)
        print_summary(self.recorder, subset, note, str(self.subcommand), dependent, controls)

    def _controls(self) -> list[dict[str, Any]]:
        """What simple predictors score on the same test clips; none where the split cannot train them."""
        from emolight.experiments.controls import control_tables
        from emolight.experiments.summary import score_controls

        try:
            scored = score_controls(control_tables(self.datamodule, "test"))
        except EmolightError:
            return []
        with atomic_write(self.run / f"controls_test{self.recorder.suffix}.csv") as part:
            pd.DataFrame(scored).to_csv(part, index=False, float_format="%.6f", lineterminator="\n")
        return scored


class SaveConfigOnFit(SaveConfigCallback):
    """Writes ``config.yaml`` once, by ``fit``: a later ``test`` must not overwrite it."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Save when a fit begins; a resumed one has it."""
        if stage == "fit" and trainer.loggers and not (Path(str(trainer.log_dir)) / "config.yaml").is_file():
            super().setup(trainer, pl_module, stage)


def main(argv: list[str], callbacks: Sequence[pl.Callback] = ()) -> int:
    """Parse and run ``fit``, ``validate`` or ``test``; returns the exit code.

    Args:
        argv: the command and its options.
        callbacks: for the trainer, after this project's own.

    Raises:
        EmolightError: a mistake in the options, the data or the checkpoint.
    """
    _quiet_lightning()
    limit_imports()
    arguments = insert_run_config(argv)
    # Lightning's DDP launcher starts the other processes from sys.argv.
    before, sys.argv = sys.argv, [sys.argv[0], *argv]
    first_process = CLAIMED not in os.environ
    try:
        EmolightCLI(
            EmotionClassifier,
            EmotionDataModule,
            SaveConfigOnFit,
            parser_class=EmolightParser,
            parser_kwargs={
                "exit_on_error": False,
                **{name: {"exit_on_error": False} for name in EmolightCLI.subcommands()},
            },
            trainer_defaults={
                "callbacks": list(callbacks),
                "max_epochs": 30,
                "gradient_clip_val": 1.0,
                "num_sanity_val_steps": 0,
                "log_every_n_steps": 10,
                "enable_model_summary": False,
                # The data module shards without padding and reshuffles by epoch.
                "use_distributed_sampler": False,
                "reload_dataloaders_every_n_epochs": 1,
            },
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=arguments,
        )
    except EmolightError:
        if first_process and (claimed := os.environ.get(CLAIMED)):
            remove_unused(Path(claimed))
        raise
    finally:
        sys.argv = before
        if first_process:
            os.environ.pop(CLAIMED, None)
    return 0


def _quiet_lightning() -> None:
    """Silence what tells a user of this project nothing."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # This one tells that another process of the group has died.
    logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*number of training batches .* is smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint need to be provided.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", ".*(skip_none|instantiate_classes|JsonargparseDeprecationWarning).*")
    warnings.filterwarnings("ignore", ".*LightningCLI's args parameter.*")
    warnings.filterwarnings("ignore", ".*Experiment logs directory .* exists and is not empty.*")
