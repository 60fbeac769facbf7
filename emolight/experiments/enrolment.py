"""What a few unlabelled recordings of each scored speaker gain: ``--enrol 0 5 10 all`` of ``crossval`` and ``test``."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from emolight.data.corpus import UNKNOWN
from emolight.data.datamodule import EmotionDataModule
from emolight.data.splits import ALL_TEST
from emolight.errors import EmolightError
from emolight.evaluation.style import BLUE, GREEN, VERMILLION, WIDTH, clean_axis, legend_below, new_figure
from emolight.experiments.results import CROSSVAL, Result, facts_of, read_result, runs_of
from emolight.experiments.summary import score_row, write_crossval, write_found
from emolight.models.classifier import EmotionClassifier
from emolight.models.loading import load_classifier
from emolight.models.networks import Embedder
from emolight.models.speakers import KINDS, ORDINARY
from emolight.run import cli
from emolight.run.command import EmolightCLI
from emolight.run.finish import independence
from emolight.run.folder import read_json
from emolight.run.options import check_enrolment
from emolight.run.recorder import table_of

DRAWS, ONCE = 5, ("0", "all")  # how often clips are drawn; counts of which there is one draw
ENOUGH = 0.75
"""Speakers with fewer other clips than asked for enrol all; a row whose mean is below this share is left out."""
LOOKS = (("o-", BLUE), ("s--", VERMILLION), ("^:", GREEN))
"""Mark, line and colour of each kind of enrolled clips."""
Parts = dict[tuple[str, str], list[pd.DataFrame]]
"""Kind and count of the enrolled clips, to predictions."""


def score_enrolment(result: Result, counts: Sequence[str], kinds: Sequence[str], root: str | list[str] | None) -> None:
    """Score each fold's held-out clips with their speakers enrolled by clips drawn from the others of theirs.

    The clip that is scored is never among those drawn. Each way becomes a result of its own beside the folder of the
    cross-validation, which ``compare``, ``ensemble`` and ``report`` read; the curve is written into that folder.
    """
    parts = Parts()
    for (fold, seed), run in runs_of(result).items():
        data = run.data(root=root)
        data.setup()
        print(f"fold {fold} seed {seed}: enrolment", flush=True)
        for way, draw, table in _ways(load_classifier(run.best), data, result.subset, counts, kinds):
            number = seed if way[1] in ONCE else DRAWS * seed + draw
            parts.setdefault(way, []).append(table.assign(fold=fold, seed=number))
        if result.subset == "test":
            run.count_test(run.best, len(data.subset("test")))
    about = {**read_json(result.folder / CROSSVAL), "openings": read_result(result.folder).openings}  # this one, too
    _write(parts, about, result.folder, result.folder / f"enrolment_{result.subset}")


def score_test(done: EmolightCLI) -> None:
    """As :func:`score_enrolment` for a ``test`` that is done, maybe of another corpus; results stand beside its run."""
    if not done.trainer.is_global_zero:
        return
    run, data, suffix = done.run, done.datamodule, done.recorder.suffix
    data.trainer = None  # every clip in this process
    clips, parts = data.clips.iloc[data.subset("test")], Parts()
    meaning = independence(data, clips, done.model.training_facts, "test")
    if data.split.label == ALL_TEST:
        both = f"labels of both: {', '.join(name for name in data.classes if name in set(clips['emotion']))}"
        meaning = f"{meaning}; {both}"
        print(both, flush=True)
    for way, draw, table in _ways(done.model.cpu().eval(), data, "test", done.own.enrol, done.own.enrol_as):
        parts.setdefault(way, []).append(table.assign(fold=0, seed=draw))
    folder = (whole := run.folder.resolve()).with_name(f"{whole.name}{suffix}")  # it may have been given as `.`
    about = {
        "name": f"{folder.parent.name} {folder.name}",
        "kind": "test",
        "subset": "test",
        "corpus": data.corpus_name,
        "task": data.task_name,
        "protocol": data.split.label,
        "selection": run.split.selection,
        "split": data.split.hash,
        "speaker_independent": data.split.speaker_independent("test") and not meaning.startswith("not independent"),
        "runs": [],
        "openings": run.openings,
        "facts": {**facts_of(run), "meaning": meaning, "speakers": clips["speaker"].nunique()},
    }
    _write(parts, about, folder, run.folder / f"enrolment_test{suffix}")


def _write(parts: Parts, about: Mapping[str, Any], folder: Path, curve: Path) -> None:
    """A result folder of each way, named after ``folder``, and the ``curve`` over all of them."""
    rows = []
    for (kind, count), tables in parts.items():
        table = pd.concat(tables, ignore_index=True).sort_values(["clip_id", "seed"], ignore_index=True)
        mean = float(table.pop("enrolled").mean())
        few = count != "all" and mean < float(count) - 0.05
        if (few and mean < ENOUGH * float(count)) or (count == "all" and not mean):
            print(f"  {count:>4} clips {kind:<12} left out: speakers have {mean:.1f} others on average", flush=True)
            continue
        note = f", {mean:.1f} on average" * few
        seeds = sorted(int(seed) for seed in table["seed"].unique())
        row = score_row(table)
        uar, low, high = row["uar"], row["low"], row["high"]
        values = {"draws": len(seeds), "uar": uar, "low": low, "high": high}
        rows.append({"enrolled": kind, "clips": count, "clips_mean": round(mean, 2), **values})
        print(f"  {count:>4} clips {kind:<12} UAR {uar:.2%} ({low:.1%} to {high:.1%}){note}", flush=True)
        if kind == "one emotion" or (count == "0" and about["runs"]):  # which the runs' own result is
            continue
        said = f"speakers enrolled with {count} clips {KINDS[kind]}{note}, {len(seeds)} draws"
        way, said = (count, "speakers not enrolled") if count == "0" else (f"{count}_{kind}", said)
        own = {"name": f"{about['name']}, {way.replace('_', ' ')} clips enrolled", "runs": [], "seeds": seeds}
        facts = {**about["facts"], "draws": 1 if count in ONCE else DRAWS}
        place = folder.with_name(f"{folder.name}_enrol_{way}")
        write_crossval(place, {**about, **own, "facts": facts, "selection": f"{about['selection']}; {said}"}, table, [])
    if not rows:
        raise EmolightError("No speaker has so many other clips.", "Give smaller numbers to --enrol.")
    write_found(curve, rows, enrolment_figure(rows, f"{about['name']}: {about['subset']} clips of enrolled speakers"))


def _ways(
    model: EmotionClassifier, data: EmotionDataModule, subset: str, counts: Sequence[str], kinds: Sequence[str]
) -> Iterator[tuple[tuple[str, str], int, pd.DataFrame]]:
    """Kind and count, number of the draw, and the predictions, with how many clips were ``enrolled`` for each."""
    speakers = model.speakers
    check_enrolment(counts, speakers is not None)  # options chosen within a fold may say no
    assert speakers is not None
    if (data.clips["speaker"] == UNKNOWN).any():
        raise EmolightError("--enrol needs to know the speakers.", "Give the column speaker.")
    if isinstance(model.network, Embedder) and model.network.frozen:
        data.embed(model.network.key, model.network.embed_numpy)
    batches = list(data.test_dataloader() if subset == "test" else data.val_dataloader())
    rows = torch.cat([batch["index"] for batch in batches]).numpy()
    clips = data.clips.iloc[rows].reset_index(drop=True)
    with torch.inference_mode():
        statistics = torch.cat([model.statistics(batch) for batch in batches])
    emotions = clips["emotion"].to_numpy()
    for kind in dict.fromkeys(kinds):
        pools = {name: np.flatnonzero(clips["speaker"] == name) for name in clips["speaker"].unique()}
        if kind == "ordinary":
            pools = {name: pool[np.isin(emotions[pool], ORDINARY)] for name, pool in pools.items()}
        for count in dict.fromkeys(counts):
            if (count == "0" and kind != kinds[0]) or (count == "all" and kind == "one emotion"):
                continue
            for draw in range(1 if count in ONCE else DRAWS):
                offsets, numbers = torch.zeros_like(statistics), np.zeros(len(clips))
                for name, pool in pools.items():
                    generator = np.random.default_rng([draw, *str(name).encode()])
                    order = generator.permutation(pool)
                    if kind == "one emotion":
                        one = generator.choice(np.unique(emotions[pool]))
                        order = order[emotions[order] == one]
                    for clip in np.flatnonzero(clips["speaker"] == name):
                        drawn = order[order != clip][: len(order) if count == "all" else int(count)]
                        offsets[clip] = speakers.offset(statistics[drawn], ordinary=kind == "ordinary")
                        numbers[clip] = len(drawn)
                table = table_of(data, rows, _probabilities(model, batches, offsets))
                enrolled = table["clip_id"].map(dict(zip(clips["clip_id"], numbers, strict=True)))
                yield (kind, count), draw, table.assign(enrolled=enrolled)


@torch.inference_mode()
def _probabilities(model: EmotionClassifier, batches: Sequence[dict[str, Tensor]], offsets: Tensor) -> np.ndarray:
    """Calibrated probabilities [N, C] with an offset a clip."""
    sizes = [len(batch["index"]) for batch in batches]
    logits = [model.logits(batch, part) for batch, part in zip(batches, torch.split(offsets, sizes), strict=True)]
    probabilities: np.ndarray = (torch.cat(logits).float() / model.temperature).softmax(1).numpy()
    return probabilities


def enrolment_figure(rows: Sequence[dict[str, object]], title: str) -> Figure:
    """UAR by the number of enrolled clips, with intervals by speaker."""
    table = pd.DataFrame(rows)
    counts = list(dict.fromkeys(table["clips"]))
    figure = new_figure(WIDTH, 3.6, title)
    axes, lines = figure.subplots(), []
    for number, kind in enumerate(dict.fromkeys(table["enrolled"])):
        own = table[table["enrolled"] == kind]
        place = [counts.index(count) + 0.1 * number for count in own["clips"]]  # beside each other
        reach = 100 * np.array([own["uar"] - own["low"], own["high"] - own["uar"]])
        mark, colour = LOOKS[number]
        bars: Any = {"fmt": mark, "color": colour, "capsize": 3, "label": kind}
        lines.append(axes.errorbar(place, 100 * own["uar"], reach, **bars))
    axes.set(xticks=range(len(counts)), xticklabels=counts, xlabel="enrolled clips a speaker")
    axes.set_ylabel("UAR (%), 95 % interval by speaker")
    legend_below(figure, lines)
    clean_axis(axes, "y")
    return figure


def main(argv: list[str]) -> int:
    """Run ``test``."""
    return cli.main(["test", *argv], on_done=lambda done: score_test(done) if done.own.enrol else None)
