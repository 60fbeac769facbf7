"""What ``fit``, ``validate`` and ``test`` say at their end: the metrics, the folder, what to type next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from emolight.evaluation.predictions import scores, wilson_interval
from emolight.evaluation.statistics import bootstrap
from emolight.recorder import Recorder
from emolight.runs import count_openings


def print_summary(
    recorder: Recorder,
    subset: str,
    note: str,
    command: str,
    last_epoch_counts: bool,
    controls: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Print the table of metrics of the recorder's selected predictions, and the next commands.

    Args:
        recorder: of the run.
        subset: ``val`` or ``test``.
        note: what the split means for the figures.
        command: ``fit``, ``validate`` or ``test``.
        last_epoch_counts: nothing was selected on the validation clips.
        controls: ``name`` and ``uar`` of simple predictors of the same clips.
    """
    table = recorder.selected
    console = Console(highlight=False, soft_wrap=True)
    if table is None:
        console.print("Nothing was left to train: the checkpoint has all its epochs.")
        return
    values = scores(table)
    name = "validation" if subset == "val" else "test"
    grid = Table(title=f"{name}: {len(table)} clips of {table['actor'].nunique()} actors", title_justify="left")
    grid.add_column("metric")
    grid.add_column("value", justify="right")
    low, high = wilson_interval(int((table["label"] == table["prediction"]).sum()), len(table))
    ends = bootstrap(table)["uar"]
    grid.add_row(f"UAR (95 % by actors: {ends.low:.1%} to {ends.high:.1%})", f"{values['uar']:.2%}")
    grid.add_row(f"accuracy (95 % by clips: {low:.1%} to {high:.1%})", f"{values['wa']:.2%}")
    grid.add_row("macro-F1", f"{values['macro_f1']:.2%}", end_section=True)
    for emotion, recall in values["recall"].items():
        grid.add_row(f"recall {emotion}", f"{recall:.2%}")
    grid.add_section()
    for control in controls:
        grid.add_row(f"UAR of the control: {control['name']}", f"{control['uar']:.2%}")
    console.print()
    console.print(grid)
    console.print(f"split: {note}")
    if command == "fit":
        how = "last epoch, nothing selected" if last_epoch_counts else "best epoch by validation UAR"
        console.print(f"epoch: {recorder.selected_epoch + 1} ({how})")
    run = recorder.run
    if subset == "test":
        times = count_openings(run)
        console.print(f"seal:  the test clips of this run were scored {times} time{'s' if times > 1 else ''}")
    console.print(f"run:   {run}")
    if command != "fit":
        return
    console.print("\nnext:")
    console.print(f"  tensorboard --logdir {run.parent.parent}")
    if last_epoch_counts:
        console.print(f"  python -m emolight validate --ckpt_path {run}/checkpoints/last.ckpt")
    else:
        console.print(f"  python -m emolight test --ckpt_path {run}/checkpoints/best.ckpt")
    if "synthetic" in note:
        console.print("  python -m emolight download data/ravdess    # the real recordings, 434 MB")
        console.print("  python -m emolight fit --config configs/mfcc.yaml")
