"""What a signal does to a fit: it ends, says how to go on, and exits with the code that shells expect."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import threading
from typing import Any, NoReturn

import lightning.pytorch as pl

from emolight.run.environment import slurm_job
from emolight.run.folder import Run

TERMINATED = 128 + signal.SIGTERM
OTHER_PROCESS_GONE = re.compile(r"peer|connection|gloo|nccl|socket", re.IGNORECASE)
"""In the message of a collective operation when another process of the group has died."""


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

        def stop(*_: Any) -> NoReturn:
            if trainer.strategy.launcher is not None:
                trainer.strategy.launcher.kill(signal.SIGTERM)
            raise SystemExit(TERMINATED)

        def requeue(*_: Any) -> NoReturn:
            if trainer.is_global_zero:
                subprocess.run(["scontrol", "requeue", str(slurm_job())], check=False)
            stop()

        signal.signal(signal.SIGTERM, stop)
        if slurm_job() is not None:
            signal.signal(signal.SIGUSR1, requeue)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Say how to go on."""
        stopped = isinstance(exception, KeyboardInterrupt | SystemExit)
        if stopped and trainer.is_global_zero and self.run.last.is_file():
            print(
                f"\nstopped in epoch {trainer.current_epoch + 1}; what came before it is kept. Go on with:\n"
                f"  python -m emolight fit --resume {shlex.quote(str(self.run.folder))}",
                flush=True,
            )
