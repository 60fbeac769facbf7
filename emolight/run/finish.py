"""What ``fit``, ``validate`` and ``test`` say and leave: at the start what they do, at the end what came out.

The model card follows Mitchell et al., *Model Cards for Model Reporting*, 2019.
"""

import contextlib
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console
from rich.table import Table

from emolight.data.datamodule import EmotionDataModule
from emolight.data.splits import ALL_TEST, SUBSETS
from emolight.errors import EmolightError, counted
from emolight.evaluation.predictions import class_names, scores
from emolight.evaluation.statistics import bootstrap, few_speakers, summarise
from emolight.files import write_table, write_text
from emolight.models.classifier import EmotionClassifier
from emolight.models.parts import described
from emolight.run.controls import control_tables, score_controls
from emolight.run.folder import CONFIG, SPLIT, Run
from emolight.run.recorder import Recorder

CARD = "MODEL_CARD.md"
FEW = 1000
"""Clips of a corpus for which ``fit`` shows the controls, too."""


def print_start(run: Run, trainer: pl.Trainer, model: EmotionClassifier, data: EmotionDataModule) -> None:
    """Say what a fit is about to do: folder, clips, speakers, split, device, precision, input and network."""
    if not trainer.is_global_zero:
        return
    split, network = data.make_split(), model.network
    sizes = ", ".join(
        f"{counted(len(split.clips(name)), f'{word} clip')} of {counted(len(split.speakers(name)), 'speaker')}"
        for name, word in SUBSETS.items()
        if split.clips(name)
    )
    with torch.no_grad():
        shape = " × ".join(map(str, model.front_end(torch.zeros(1, data.length)).shape[1:]))
    weights = f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.1f} M weights"
    seen = f"{model.front_end.title} of {data.duration:g} s ({shape})"
    processes = f" × {trainer.world_size}" if trainer.world_size > 1 else ""
    lines = [
        ("run", str(run.folder)),
        ("data", f"{data.corpus_name}, task {data.task_name}: {sizes}"),
        ("split", f"{split.label} ({split.meaning})"),
        ("device", f"{trainer.strategy.root_device}{processes}, precision {trainer.precision}"),
        ("model", f"{seen} into {type(network).__name__} ({weights}), {len(data.classes)} classes"),
    ]
    for name, text in lines:
        print(f"{name + ':':<8}{text}", flush=True)


def finish(
    recorder: Recorder, data: EmotionDataModule, model: EmotionClassifier, command: str, checkpoint: str, pictures: bool
) -> None:
    """Write what belongs to the predictions that count, and say what came out; EmolightError where there are none."""
    run = recorder.run
    # Lightning's loggers leave an empty one; config.yaml holds the parameters.
    (run.folder / "hparams.yaml").unlink(missing_ok=True)
    subset, table = "test" if command == "test" else "val", recorder.best.table
    if table is None:
        fix = "Give it more time or steps." + (f" Go on: fit --resume {run.folder}" if run.last.is_file() else "")
        raise EmolightError("The training ended before its first validation, so there is no result.", fix)
    meaning, grid = data.split.meaning, _grid(table, subset)
    if command != "fit":
        scored = data.clips[data.clips["clip_id"].isin(set(table["clip_id"]))]
        meaning = independence(data, scored, model.training_facts, subset)
        tested = run.split.clips("test") if (run.folder / SPLIT).is_file() else []
        if of_test := set(tested) & set(table["clip_id"]):
            run.count_test(checkpoint, len(of_test))
    note = f"{data.corpus_name}, {data.split.label} ({meaning})"
    if pictures:
        recorder.draw(subset, note)
    few = len(data.clips) <= FEW and run.config["trainer"].get("limit_train_batches") is None
    whole = len(table) == len(data.subset(subset))
    part = "" if whole else f"only {len(table)} of {len(data.subset(subset))} {SUBSETS[subset]} clips were scored"
    if pictures and whole and (subset == "test" or (command == "fit" and few)):
        with contextlib.suppress(EmolightError):  # where the split cannot train them
            controls = score_controls(control_tables(data, subset))
            for control in controls:
                grid.add_row(f"UAR of the control: {control['name']}", f"{control['uar']:.2%}")
            write_table(run.folder / f"controls_{subset}{recorder.suffix}.csv", pd.DataFrame(controls))
    if not recorder.suffix and command != "validate" and (run.folder / CONFIG).is_file():
        write_model_card(run)
    console, times = Console(highlight=False, soft_wrap=True), run.openings
    console.print()
    console.print(grid)
    for name, said in (
        ("note", part and f"{part}, by trainer.limit_val_batches or overfit_batches"),
        ("note", few_speakers(table["speaker"].nunique())),
        ("split", note),
        ("epoch", f"{recorder.best.epoch + 1} ({data.split.selection})" if command == "fit" else ""),
        ("test", f"the test clips of this run were scored {counted(times, 'time')}" if times else ""),
        ("run", str(run.folder)),
        *(("note", text) for text in data.selection.notes if command != "fit"),
    ):
        if said:
            console.print(f"{name + ':':<7}{said}")
    if command != "fit":
        return
    folder, logs = (shlex.quote(str(place)) for place in (run.folder, run.folder.parent.parent))
    console.print(f"\nnext:\n  tensorboard --logdir {logs}")
    if run.best.is_file() and data.split.clips("test"):
        console.print(f"  python -m emolight test --ckpt_path {folder}")
    if run.best.is_file():
        console.print(f"  python -m emolight predict {folder} my_voice.wav")
    if any(corpus.citation == "made by emolight" for corpus in data.selection.corpora):
        console.print("\nwith your own recordings, a CSV with the columns path, emotion and speaker:")
        console.print("  python -m emolight fit --config mfcc --data.corpus mine.csv")


def _grid(table: pd.DataFrame, subset: str) -> Table:
    values, speakers = scores(table), table["speaker"].nunique()
    ends, (low, high) = bootstrap(table)["uar"], bootstrap(table, "clip_id")["accuracy"]
    title = f"{SUBSETS[subset]}: {counted(len(table), 'clip')} of {counted(speakers, 'speaker')}"
    interval = f" (95 % by speakers: {ends.low:.1%} to {ends.high:.1%})" if speakers > 1 else ""
    grid = Table("metric", title=title, title_justify="left")
    grid.add_column("value", justify="right")
    grid.add_row(f"UAR{interval}", f"{values['uar']:.2%}")
    grid.add_row(f"accuracy (95 % by clips: {low:.1%} to {high:.1%})", f"{values['accuracy']:.2%}")
    grid.add_row("macro-F1", f"{values['macro_f1']:.2%}", end_section=True)
    for emotion, recall in values["recall"].items():
        grid.add_row(f"recall {emotion}", f"{recall:.2%}")
    grid.add_section()
    return grid


def independence(data: EmotionDataModule, clips: pd.DataFrame, training: Mapping[str, Any], subset: str) -> str:
    """One sentence: whether a model knows the speakers and recordings ``clips`` that it is scored on.

    ``training`` is what the checkpoint tells of it: :meth:`~emolight.data.datamodule.EmotionDataModule.training_facts`.
    Validation clips chose the model by themselves; ``test`` clips must not have.
    """
    trained, hashes = str(training.get("corpus")), {data.cache.content(clip_id) for clip_id in clips["clip_id"]} - {""}
    same, parts = data.corpus_name in (trained, *trained.split(" + ")), []
    speakers = _voices(data.corpus_name, clips["speaker"])
    for prefix, did in (("", "trained the model"), ("val_", "chose the epoch"))[: 1 + (subset == "test")]:
        known = hashes & set(training.get(f"{prefix}hashes", ()))
        theirs = _voices(trained, training.get(f"{prefix}speakers", ()))
        shared = sorted(speakers[voice] for voice in set(speakers) & set(theirs))
        what = [f"{len(known)} of the {len(clips)} clips"] if known else []
        what += [f"speaker{'s' if len(shared) > 1 else ''} {', '.join(shared[:8])}"] if shared else []
        parts += [f"{' and '.join(what)} {did}"] if what else []
    if parts:
        return f"not independent, which flatters the figures: {'; '.join(parts)}"
    if not training.get("hashes"):
        return "what the model was trained on is not known"
    if data.split.label == ALL_TEST and not same:
        return f"another corpus than the model was trained on ({training['corpus']}); no clip was in training"
    return data.split.meaning if same else "speaker-independent as far as the names tell"


def _voices(corpus: str, speakers: Iterable[str]) -> dict[str, str]:
    """Speakers as they are called among several corpora, and as they are called here."""
    return {name if " + " in corpus else f"{corpus}/{name}": name for name in speakers}


def write_model_card(run: Run) -> None:
    """Write ``MODEL_CARD.md`` from the files of a run: of its test clips, else of validation clips with a warning."""
    table, warning = run.predictions(run.subset), ""
    if run.subset == "val" and run.split.selects_epoch:
        warning = "They chose the epoch and the temperature, which flatters every figure below; `test` gives fair ones."
    elif run.subset == "val":
        warning = "Their speakers are in training: new voices will score lower."
    pages = Environment(loader=PackageLoader("emolight.run", "templates"), undefined=StrictUndefined, trim_blocks=True)
    few, summary, classes = few_speakers(table["speaker"].nunique()), summarise(table), class_names(table)
    facts = {"described": described, "classes": classes, "warning": warning, "few": few, "summary": summary}
    write_text(run.folder / CARD, pages.get_template("model_card.md.j2").render(run=run, **facts))
