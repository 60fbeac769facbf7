"""What ``fit``, ``validate`` and ``test`` say: at the start what they are about to do, at the end what came out."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.table import Table

from emolight.data.datamodule import EmotionDataModule
from emolight.evaluation.predictions import scores, wilson_interval
from emolight.evaluation.statistics import bootstrap, few_speakers
from emolight.models.classifier import EmotionClassifier
from emolight.run.folder import Run
from emolight.run.recorder import Recorder

SUBSETS = {"train": "training", "val": "validation", "test": "test"}


def print_start(run: Run, trainer: pl.Trainer, model: EmotionClassifier, data: EmotionDataModule) -> None:
    """Say what a fit is about to do: folder, clips, speakers, split, device, precision, input and network."""
    if not trainer.is_global_zero:
        return
    split = data.make_split()
    sizes = ", ".join(
        f"{len(split.clips(name))} {word} clips of {len(split.speakers(name))} speakers"
        for name, word in SUBSETS.items()
        if split.clips(name)
    )
    with torch.no_grad():
        shape = " × ".join(map(str, model.front_end(torch.zeros(1, data.length)).shape[1:]))
    weights = sum(parameter.numel() for parameter in model.network.parameters()) / 1e6
    processes = f" × {trainer.world_size}" if trainer.world_size > 1 else ""
    lines = {
        "run": str(run.folder),
        "data": f"{data.corpus_name}, task {data.task_name}: {sizes}",
        "split": f"{split.label} ({split.meaning})",
        "device": f"{trainer.strategy.root_device}{processes}, precision {trainer.precision}",
        "model": f"{model.front_end.title} of {data.duration:g} s ({shape}) into {type(model.network).__name__} "
        f"({weights:.1f} M weights), {len(data.classes)} classes",
    }
    for name, text in lines.items():
        print(f"{name + ':':<8}{text}", flush=True)
    for note in data.selection.notes:
        print(f"note:   {note}", flush=True)


def print_summary(
    run: Run,
    recorder: Recorder,
    data: EmotionDataModule,
    subset: str,
    note: str,
    command: str,
    controls: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Print the table of metrics of the predictions that count, and the next commands."""
    table = recorder.best.table
    assert table is not None
    console = Console(highlight=False, soft_wrap=True)
    values = scores(table)
    speakers = table["speaker"].nunique()
    grid = Table(title=f"{SUBSETS[subset]}: {len(table)} clips of {speakers} speakers", title_justify="left")
    grid.add_column("metric")
    grid.add_column("value", justify="right")
    low, high = wilson_interval(int((table["label"] == table["prediction"]).sum()), len(table))
    ends = bootstrap(table)["uar"]
    grid.add_row(f"UAR (95 % by speakers: {ends.low:.1%} to {ends.high:.1%})", f"{values['uar']:.2%}")
    grid.add_row(f"accuracy (95 % by clips: {low:.1%} to {high:.1%})", f"{values['accuracy']:.2%}")
    grid.add_row("macro-F1", f"{values['macro_f1']:.2%}", end_section=True)
    for emotion, recall in values["recall"].items():
        grid.add_row(f"recall {emotion}", f"{recall:.2%}")
    grid.add_section()
    for control in controls:
        grid.add_row(f"UAR of the control: {control['name']}", f"{control['uar']:.2%}")
    console.print()
    console.print(grid)
    if warning := few_speakers(speakers):
        console.print(f"note:  {warning}")
    console.print(f"split: {note}")
    if command == "fit":
        console.print(f"epoch: {recorder.best.epoch + 1} ({data.split.selection})")
    if run.openings:
        times = run.openings
        console.print(f"test:  the test clips of this run were scored {times} time{'s' if times > 1 else ''}")
    console.print(f"run:   {run.folder}")
    if command == "fit":
        _print_next(console, run, data)


def _print_next(console: Console, run: Run, data: EmotionDataModule) -> None:
    folder = shlex.quote(str(run.folder))
    console.print("\nnext:")
    console.print(f"  tensorboard --logdir {shlex.quote(str(run.folder.parent.parent))}")
    if run.best.is_file() and data.split.clips("test"):
        console.print(f"  python -m emolight test --ckpt_path {folder}")
    if run.best.is_file():
        console.print(f"  python -m emolight predict {folder} my_voice.wav")
    if any(corpus.citation == "made by emolight" for corpus in data.corpora):
        console.print("\nwith your own recordings, a CSV with the columns path, emotion and speaker:")
        console.print("  python -m emolight fit --config mfcc --data.corpus mine.csv")
