"""What a few unlabelled recordings of each held-out speaker gain: ``crossval --enrol 0 5 10 all``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from emolight.data.datamodule import EmotionDataModule
from emolight.errors import EmolightError
from emolight.evaluation.predictions import predictions_table
from emolight.evaluation.statistics import summarise
from emolight.evaluation.style import BLUE, clean_axis, new_figure
from emolight.experiments.results import CROSSVAL, Result, runs_of
from emolight.experiments.summary import write_crossval, write_found
from emolight.models.classifier import EmotionClassifier
from emolight.models.loading import load_classifier
from emolight.models.networks import Embedder
from emolight.models.speakers import ORDINARY
from emolight.run.folder import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS = 5
KINDS = {
    "mixed": "of all emotions",
    "ordinary": "neutral or calm",
    "one emotion": "of one emotion, taken for all: what a wrong draw costs",
}
"""What the drawn clips are."""


def score_enrolment(result: Result, counts: Sequence[str], kinds: Sequence[str], root: str | list[str] | None) -> None:
    """Score each fold's held-out clips with their speakers enrolled by clips drawn from the others of theirs.

    The clip that is scored is never among those drawn. Each way becomes a result of its own beside the folder of the
    cross-validation, which ``compare``, ``ensemble`` and ``report`` read; the curve is written into that folder.

    Raises:
        EmolightError: the models were trained without ``speaker_norm``.
    """
    parts: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for (fold, seed), run in runs_of(result).items():
        data = run.data(root=root)
        data.prepare_data()
        data.setup()
        model = load_classifier(run.best)
        print(f"fold {fold} seed {seed}: enrolment", flush=True)
        for way, draw, table in _ways(model, data, run, result.subset, counts, kinds):
            parts.setdefault(way, []).append(table.assign(fold=fold, seed=DRAWS * seed + draw))
        if result.subset == "test":
            run.count_test(run.best, len(data.subset("test")))
    rows = []
    about = json.loads((result.folder / CROSSVAL).read_text(encoding="utf-8"))
    for (kind, count), tables in parts.items():
        table = pd.concat(tables, ignore_index=True).sort_values(["clip_id", "seed"], ignore_index=True)
        uar = summarise(table)["pooled"]["uar"]
        low, high = uar["by_speaker"]
        draws = table["seed"].nunique()
        rows.append({"enrolled": kind, "clips": count, "draws": draws, "uar": uar["value"], "low": low, "high": high})
        print(f"  {count:>4} clips {kind:<12} UAR {uar['value']:.2%} ({low:.1%} to {high:.1%})", flush=True)
        if count == "0" or kind == "one emotion":
            continue
        said = f"speakers enrolled with {count} clips {KINDS[kind]}, {draws} draws"
        folder = result.folder.with_name(f"{result.folder.name}_enrol_{count}_{kind}")
        own = {"name": f"{about['name']}, {count} {kind} clips enrolled", "runs": [], "openings": result.openings}
        seeds = sorted(int(seed) for seed in table["seed"].unique())
        selection = f"{about['selection']}; {said}"
        write_crossval(folder, {**about, **own, "seeds": seeds, "selection": selection}, table, [])
    title = f"{result.name}: {result.subset} clips of enrolled speakers"
    write_found(str(result.folder / f"enrolment_{result.subset}"), rows, enrolment_figure(rows, title))


def _ways(
    model: EmotionClassifier,
    data: EmotionDataModule,
    run: Run,
    subset: str,
    counts: Sequence[str],
    kinds: Sequence[str],
) -> Iterator[tuple[tuple[str, str], int, pd.DataFrame]]:
    """Kind and count, number of the draw, and the predictions."""
    speakers = model.speakers
    if speakers is None:
        raise EmolightError(
            f"{run.folder} was trained without model.speaker_norm: its speakers cannot be enrolled.",
            "Train with --model.speaker_norm true, under another --name.",
        )
    if isinstance(model.network, Embedder) and model.network.frozen:
        data.embed(model.network.key, model.network.embed_numpy)
    batches = list(data.test_dataloader() if subset == "test" else data.val_dataloader())
    rows = torch.cat([batch["index"] for batch in batches]).numpy()
    clips = data.clips.iloc[rows].reset_index(drop=True)
    with torch.inference_mode():
        statistics = torch.cat([model.statistics(batch) for batch in batches])
    emotions = clips["emotion"].to_numpy()
    for kind in kinds:
        pools = {name: np.flatnonzero(clips["speaker"] == name) for name in clips["speaker"].unique()}
        if kind == "ordinary":
            pools = {name: pool[np.isin(emotions[pool], ORDINARY)] for name, pool in pools.items()}
        for count in counts:
            if (count == "0" and kind != kinds[0]) or (count == "all" and kind == "one emotion"):
                continue
            for draw in range(1 if count in ("0", "all") else DRAWS):
                offsets = torch.zeros_like(statistics)
                for name, pool in pools.items():
                    generator = np.random.default_rng([draw, *str(name).encode()])
                    order = generator.permutation(pool)
                    if kind == "one emotion":
                        one = generator.choice(np.unique(emotions[pool]))
                        order = order[emotions[order] == one]
                    for clip in np.flatnonzero(clips["speaker"] == name):
                        drawn = order[order != clip][: len(order) if count == "all" else int(count)]
                        offsets[clip] = speakers.offset(statistics[drawn], ordinary=kind == "ordinary")
                table = predictions_table(clips, data.classes, _probabilities(model, batches, offsets), data.groups)
                yield (kind, count), draw, table


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
    figure = new_figure(6.4, 3.6, title)
    axes = figure.subplots()
    for number, (kind, mark) in enumerate(zip(dict.fromkeys(table["enrolled"]), ("o-", "s--", "^:"), strict=False)):
        own = table[table["enrolled"] == kind]
        place = [counts.index(count) + 0.1 * number for count in own["clips"]]  # beside each other
        below, above = own["uar"] - own["low"], own["high"] - own["uar"]
        line = axes.errorbar(place, 100 * own["uar"], 100 * np.array([below, above]), fmt=mark, capsize=3, label=kind)
        if mark == "o-":
            line[0].set_color(BLUE)
    axes.set(xticks=range(len(counts)), xticklabels=counts, xlabel="enrolled clips a speaker", ylabel="UAR (%)")
    axes.legend(frameon=False)
    clean_axis(axes, "y")
    return figure
