"""``fit``, ``validate`` and ``test`` as one function of their words."""

import contextlib
import io
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch.distributed
import yaml

from emolight.data.datamodule import EmotionDataModule
from emolight.errors import EmolightError
from emolight.models.classifier import EmotionClassifier
from emolight.run.command import EmolightCLI
from emolight.run.folder import CLAIMED, CONFIG, ENVIRONMENT, SPLIT
from emolight.run.options import insert_run
from emolight.run.parser import EmolightParser, limit_imports, named_modes
from emolight.run.words import with_own_classes, with_recipes

DEFAULTS = {
    "max_epochs": 30,
    "gradient_clip_val": 1.0,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 10,
    "enable_model_summary": False,
    "use_distributed_sampler": False,  # the data module shards without padding
    "reload_dataloaders_every_n_epochs": 1,  # and reshuffles by epoch
}
"""Of the Trainer."""
SILENT = (
    "does not have many workers",
    "number of training batches .* is smaller than the logging interval",
    "callbacks used to create the checkpoint need to be provided",
    "isinstance.treespec, LeafSpec",
    "LightningCLI's args parameter",
    "Experiment logs directory .* exists and is not empty",
    "module.s. in eval mode at the start of training",
    "AccumulateGrad node's stream does not match",  # so it is with a recorded pass
)
"""Warnings that tell a user of this project nothing."""


def main(
    argv: list[str],
    callbacks: Sequence[pl.Callback] = (),
    on_done: Callable[[EmolightCLI], None] = lambda _: None,
    pictures: bool = True,
) -> int:
    """Parse and run ``fit``, ``validate`` or ``test``; returns the exit code.

    ``callbacks`` are for the trainer, after this project's own; ``on_done`` is given everything, when all is done.
    Without ``pictures`` a run folder of many gets neither what is drawn nor the controls.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # This one tells that another process of the group has died.
    logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", f".*({'|'.join(SILENT)}).*")
    argv = with_own_classes(named_modes(with_recipes(argv)))  # so it is noted, and a requeued job knows its run by it
    EmolightCLI.command, EmolightCLI.pictures = argv[0], pictures
    plain = {"exit_on_error": False}
    with _process_of(argv):
        limit_imports(argv)
        try:
            done = EmolightCLI(
                EmotionClassifier,
                EmotionDataModule,
                save_config_callback=None,
                parser_class=EmolightParser,
                parser_kwargs={**plain, **dict.fromkeys(EmolightCLI.subcommands(), plain)},
                trainer_defaults={**DEFAULTS, "callbacks": list(callbacks)},
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                args=insert_run(argv),
            )
        except EmolightError:
            _remove_unused(os.environ.get(CLAIMED))
            raise
    if hasattr(done, "recorder"):
        on_done(done)
    return 0


def full_config(options: Sequence[str]) -> dict[str, Any]:
    """The complete configuration that ``fit`` would run with these options; errors as those of ``fit``."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main(["fit", *options, "--print_config"])
    config: dict[str, Any] = yaml.safe_load(text.getvalue())
    return config


@contextlib.contextmanager
def _process_of(argv: Sequence[str]) -> Iterator[None]:
    """Arguments as of a process of its own, from which Lightning starts the others; the variables are put back."""
    words, variables, grouped = sys.argv, dict(os.environ), torch.distributed.is_initialized()
    script = sys.modules["__main__"]
    sys.argv, spec = [words[0], *argv], script.__spec__
    # By this Lightning finds the command of the others; a script of the user would begin anew in each of them.
    script.__spec__ = find_spec("emolight.__main__")
    try:
        yield
    finally:
        script.__spec__ = spec
        if torch.distributed.is_initialized() and not grouped:
            torch.distributed.destroy_process_group()  # the other processes are gone, and a later fit makes its own
        sys.argv = words
        for name in set(os.environ) - set(variables):
            del os.environ[name]
        os.environ.update(variables)


@pl.utilities.rank_zero_only  # of a group, in which each knows the folder
def _remove_unused(claimed: str | None) -> None:
    """Remove a run folder whose run ended with a mistake before it trained."""
    if claimed and Path(claimed).is_dir():
        found = list(Path(claimed).iterdir())
        begun = (CONFIG, SPLIT, ENVIRONMENT, "metrics.csv", "hparams.yaml")
        if all(path.name in begun or path.name.startswith("events.out.tfevents.") for path in found):
            shutil.rmtree(claimed)
