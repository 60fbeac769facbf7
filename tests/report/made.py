"""Result folders as the commands leave them, and pages taken apart."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from emolight.data.datamodule import EmotionDataModule
from emolight.evaluation.predictions import predictions_table
from emolight.experiments.results import facts_of
from emolight.experiments.summary import write_crossval
from emolight.files import write_table
from emolight.run.folder import Run

CONTROL = {"name": "duration only", "uar": 0.25, "uar_low": 0.2, "uar_high": 0.3, "accuracy": 0.25, "macro_f1": 0.2}


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.html, self.raw = html, ""
        self.feed(html)
        self.text = " ".join(self.raw.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.raw += " " if tag == "dd" else ""

    def handle_data(self, data: str) -> None:
        self.raw += data

    def of(self, tag: str, attribute: str) -> list[str]:
        return [str(attributes[attribute]) for name, attributes in self.tags if name == tag]


def make_run(folder: Path, corpus: Path, seed: int = 0, **data: Any) -> Run:
    """A tested run of synthetic voices as `fit` and `test` leave it, with predictions that are mostly right."""
    folder.mkdir(parents=True)
    options = {"corpus": "Synthetic", "root": str(corpus), "protocol": "emobox6", "fold": 1, "trim_db": 30.0, **data}
    options["splits_dir"] = str(folder.parent / "splits")
    module = EmotionDataModule(**options)
    split = module.make_split()
    split.write(folder / "split.csv")
    features = {"class_path": "emolight.models.features.MFCC", "init_args": {"n_mfcc": 40}}
    model = {"features": features, "network": {"class_path": "emolight.models.vision.ResNet18"}}
    config = {"name": "demo", "seed_everything": seed, "data": options, "model": model, "trainer": {}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    facts = {"corpus": module.corpus_name, "task": module.task_name, "seconds": 310.0, "finished": True}
    (folder / "environment.json").write_text(json.dumps({**facts, "commit": "abc1234", "parameters": 11_169_605}))
    losses = {"epoch": [0, 0, 1, 1], "train/loss": [1.5, None, 1.2, None], "val/loss": [None, 1.4, None, 1.3]}
    pd.DataFrame({**losses, "val/uar": [None, 0.3, None, 0.5]}).to_csv(folder / "metrics.csv", index=False)
    chance = np.random.default_rng(seed)
    for subset in ("val", "test"):
        own = module.selection.clips
        own = own[own["clip_id"].isin(split.clips(subset))].sample(frac=0.7, random_state=0)
        if len(own):
            values = chance.dirichlet(np.ones(len(module.classes)), len(own))
            values[np.arange(len(own)), own["emotion"].map(module.classes.index)] += 0.3
            values /= values.sum(axis=1, keepdims=True)
            table = predictions_table(own, module.classes, values, module.groups)
            write_table(folder / f"predictions_{subset}.csv", table)
    run = Run.open(folder)
    if split.clips("test"):
        run.count_test("best.ckpt", 3)
    return run


def make_crossval(folder: Path, corpus: Path, folds: tuple[int, ...], seeds: tuple[int, ...]) -> Path:
    """A cross-validation as the command leaves it."""
    runs = {
        (fold, seed): make_run(folder / f"fold_{fold}_seed_{seed}", corpus, seed, fold=fold)
        for fold in folds
        for seed in seeds
    }
    tables = [run.predictions("test").assign(fold=fold, seed=seed) for (fold, seed), run in runs.items()]
    first = runs[folds[0], seeds[0]]
    about = {
        **{"name": f"{folder.parent.name} emobox6", "kind": "crossval", "subset": "test", "protocol": "emobox6"},
        **{"corpus": "synthetic voices", "task": "article", "selection": first.split.selection, "split": "0123456789"},
        **{"speaker_independent": True, "facts": {**facts_of(first), "seconds": 3725.0, "speakers": 24}},
        "runs": [
            {"fold": fold, "seed": seed, "folder": run.folder.name, "openings": 1} for (fold, seed), run in runs.items()
        ],
    }
    write_crossval(folder, about, pd.concat(tables, ignore_index=True), [CONTROL])
    return folder
