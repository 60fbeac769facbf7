"""``fit``, ``validate`` and ``test`` as one function of their words."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch.distributed
import yaml

from emolight.data.datamodule import EmotionDataModule
from emolight.errors import EmolightError
from emolight.models.classifier import EmotionClassifier
from emolight.run.command import EmolightCLI
from emolight.run.folder import CLAIMED, CONFIG, Run
from emolight.run.options import insert_run
from emolight.run.parser import EmolightParser, limit_imports, named_modes
from emolight.run.words import with_own_classes, with_recipes


def main(
    argv: list[str],
    callbacks: Sequence[pl.Callback] = (),
    on_run: Callable[[Run], None] = lambda _: None,
    pictures: bool = True,
) -> int:
    """Parse and run ``fit``, ``validate`` or ``test``; returns the exit code.

    Args:
        argv: the command and its options.
        callbacks: for the trainer, after this project's own.
        on_run: is given the run folder, when all is done.
        pictures: whether the run folder gets what is drawn and compared with: of one run of many nobody looks at it.

    Raises:
        EmolightError: a mistake in the options, the data or the checkpoint.
    """
    _quiet_lightning()
    EmolightCLI.command, EmolightCLI.pictures = argv[0], pictures
    with _process_of(argv):
        limit_imports(argv)
        try:
            done = EmolightCLI(
                EmotionClassifier,
                EmotionDataModule,
                save_config_callback=None,
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
                args=insert_run(with_own_classes(named_modes(with_recipes(argv)))),
            )
        except EmolightError:
            _remove_unused(os.environ.get(CLAIMED))
            raise
    if hasattr(done, "recorder"):
        on_run(done.run)
    return 0


def full_config(options: Sequence[str]) -> dict[str, Any]:
    """The complete configuration that ``fit`` would run with these options.

    Raises:
        EmolightError: ``fit`` would refuse them.
    """
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main(["fit", *options, "--print_config"])
    config: dict[str, Any] = yaml.safe_load(text.getvalue())
    return config


@contextlib.contextmanager
def _process_of(argv: Sequence[str]) -> Iterator[None]:
    """Arguments as of a process of its own, from which Lightning starts the others; the variables are put back."""
    words, variables, grouped = sys.argv, dict(os.environ), torch.distributed.is_initialized()
    sys.argv = [words[0], *argv]
    try:
        yield
    finally:
        if torch.distributed.is_initialized() and not grouped:
            torch.distributed.destroy_process_group()  # the other processes are gone, and a later fit makes its own
        sys.argv = words
        for name in set(os.environ) - set(variables):
            del os.environ[name]
        os.environ.update(variables)


def _remove_unused(claimed: str | None) -> None:
    """Remove a run folder whose run ended with a mistake before it trained."""
    found = list(Path(claimed).iterdir()) if claimed and Path(claimed).is_dir() else []
    kept = (CONFIG, "split.csv", "environment.json", "metrics.csv", "hparams.yaml")
    if claimed and all(path.name in kept or path.name.startswith("events.out.tfevents.") for path in found):
        for path in found:
            path.unlink()
        Path(claimed).rmdir()


def _quiet_lightning() -> None:
    """Silence what tells a user of this project nothing."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # This one tells that another process of the group has died.
    logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script").setLevel(logging.INFO)
    for message in (
        "does not have many workers",
        "number of training batches .* is smaller than the logging interval",
        "callbacks used to create the checkpoint need to be provided",
        "isinstance.treespec, LeafSpec",
        "AccumulateGrad node's stream does not match",  # so it is with a recorded pass
        "LightningCLI's args parameter",
        "Experiment logs directory .* exists and is not empty",
    ):
        warnings.filterwarnings("ignore", f".*{message}.*")
