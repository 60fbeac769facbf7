"""How clips are split: the published folds of a corpus, and the protocols that any corpus can be split by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from emolight.data.corpora import CORPORA
from emolight.data.corpus import UNKNOWN, Corpus, Fold
from emolight.data.splits import ALL_TEST, SUBSETS, Split
from emolight.errors import EmolightError, check_choice

if TYPE_CHECKING:
    import pandas as pd

BY_SPEAKER = ("speakers5", "loso")
WITHOUT_FOLDS = ("random", "subset")
FOR_ALL = (*BY_SPEAKER, *WITHOUT_FOLDS)
"""Protocols of any corpus, beside its published ones."""
RANDOM_VALIDATION_CLIPS = 320
"""The article's validation set; corpora of fewer than 640 clips give a fifth instead."""
DEALS = 20


def protocols_of(corpus: Corpus) -> list[str]:
    """Names of the protocols that a corpus can be split by."""
    return list(dict.fromkeys([*corpus.protocols, *FOR_ALL]))


def all_folds(corpus: Corpus, protocol: str, clips: pd.DataFrame, seed: int = 0) -> Mapping[int, Fold]:
    """Fold number to its speakers; empty for protocols without folds.

    Raises:
        EmolightError: the corpus has no such protocol, or too few speakers for it.
    """
    check_choice(f"protocol of {corpus.name}", protocol, protocols_of(corpus))
    if protocol in corpus.protocols:
        return corpus.protocols[protocol]
    if protocol in WITHOUT_FOLDS:
        return {}
    speakers = sorted(clips["speaker"].unique())
    needed = 5 if protocol == "speakers5" else 3
    if len(speakers) < needed:
        raise EmolightError(
            f"Protocol '{protocol}' needs {needed} speakers or more; {corpus.name} has {len(speakers)}.",
            "Choose data.protocol loso (3 or more) or random (speaker-dependent)."
            if set(speakers) != {UNKNOWN}
            else "Nobody knows the speakers of these clips: choose data.protocol random (speaker-dependent).",
        )
    if protocol == "loso":
        held = max(1, round(len(speakers) / 10))
        ring = speakers + speakers
        return {n + 1: Fold((who,), tuple(ring[n + 1 : n + 1 + held])) for n, who in enumerate(speakers)}
    parts = _five_parts(clips, seed)
    return {n + 1: Fold(parts[n], parts[(n + 1) % 5]) for n in range(5)}


def _five_parts(clips: pd.DataFrame, seed: int) -> list[tuple[str, ...]]:
    """Five groups of speakers: as many of each corpus and sex in each, and about as many clips of each emotion.

    Speakers are dealt out, about the most talkative first, always to the group that has the fewest of their sex and
    then the fewest clips; the most even of :data:`DEALS` such deals is taken.
    """
    import pandas as pd

    counts = pd.crosstab(clips["speaker"], clips["emotion"])
    clips_of = counts.to_numpy(dtype=float)  # [speakers, emotions]
    first = clips.drop_duplicates("speaker").set_index("speaker").reindex(counts.index)
    kinds = [first[name].astype(str) for name in ("corpus", "sex") if name in first]
    members = [np.asarray(rows) for rows in first.groupby(kinds or np.zeros(len(first))).indices.values()]
    rng = np.random.default_rng(seed)
    best, least = np.zeros(len(counts), dtype=int), np.inf
    for _ in range(DEALS):
        part, total = np.zeros(len(counts), dtype=int), np.zeros((5, clips_of.shape[1]))
        for rows in members:
            held = np.zeros(5)
            sizes = clips_of[rows].sum(axis=1) * rng.uniform(0.8, 1.2, len(rows))
            for row in rows[np.argsort(-sizes)]:
                to = part[row] = np.lexsort((total.sum(axis=1), held))[0]
                held[to] += 1
                total[to] += clips_of[row]
        if (uneven := float((total.std(axis=0) / total.mean(axis=0)).mean())) < least:
            best, least = part, uneven
    speakers = counts.index.to_numpy()
    return [tuple(speakers[best == number]) for number in range(5)]


def folds_of(corpus: Corpus, protocol: str, clips: pd.DataFrame, seed: int = 0) -> list[int]:
    """Numbers of the protocol's folds, sorted; none for ``random`` and ``subset``."""
    return sorted(all_folds(corpus, protocol, clips, seed))


def make_split(clips: pd.DataFrame, corpus: Corpus, protocol: str, fold: int | None = None, seed: int = 0) -> Split:
    """Assign every clip to ``train``, ``val`` or ``test``.

    Args:
        clips: clip table of the task.
        corpus: knows the published folds.
        protocol: one of :func:`protocols_of`.
        fold: one of its folds; None takes the first.
        seed: which random split, and which five folds by speaker.

    Raises:
        EmolightError: unknown protocol or fold, too few speakers, or a subset without clips.
    """
    folds = all_folds(corpus, protocol, clips, seed)
    table = clips[["clip_id", "emotion", "speaker"]].sort_values("clip_id", ignore_index=True)
    if not folds:
        if fold is not None:
            raise EmolightError(
                f"Protocol '{protocol}' has no folds: data.fold is {fold}.",
                "Leave data.fold out, or vary data.split_seed.",
            )
        return _without_folds(clips, table, corpus, protocol, seed)
    fold = min(folds) if fold is None else fold
    if fold not in folds:
        raise EmolightError(
            f"Protocol '{protocol}' has no fold {fold}.", f"Give data.fold from {min(folds)} to {max(folds)}."
        )
    label = f"{protocol} fold {fold}" + (f" seed {seed}" if protocol == "speakers5" else "")
    subset = np.full(len(table), "train", dtype=object)
    subset[table["speaker"].isin(folds[fold].val)] = "val"
    subset[table["speaker"].isin(folds[fold].test)] = "test"
    _check_subsets(label, subset, clips)
    return Split(table.assign(subset=subset), label)


def _without_folds(clips: pd.DataFrame, table: pd.DataFrame, corpus: Corpus, protocol: str, seed: int) -> Split:
    subset = np.full(len(table), "train", dtype=object)
    label = f"random seed {seed}" if protocol == "random" else "subset"
    if protocol == "random":
        held_out = RANDOM_VALIDATION_CLIPS if len(table) >= 2 * RANDOM_VALIDATION_CLIPS else len(table) // 5
        subset[np.random.default_rng(seed).permutation(len(table))[:held_out]] = "val"
    elif "subset" in clips:
        subset = clips.sort_values("clip_id")["subset"].to_numpy()
        if strange := sorted(set(subset) - set(SUBSETS)):
            raise EmolightError(
                f"The column `subset` of {corpus.name} has '{strange[0]}'.",
                "Say train, val or test of each clip.",
            )
        if "val" not in subset:
            raise EmolightError(
                f"The column `subset` of {corpus.name} has no validation clips: {', '.join(sorted(set(subset)))}.",
                "Call some of the training clips `val`, which choose the epoch; or choose data.protocol speakers5.",
            )
    else:
        raise EmolightError(
            f"Protocol 'subset' needs a column `subset` in the table of {corpus.name}.",
            "Add it with train, val and test, or choose data.protocol speakers5.",
        )
    _check_subsets(label, subset, clips)
    return Split(table.assign(subset=subset), label)


def _check_subsets(label: str, subset: np.ndarray, clips: pd.DataFrame) -> None:
    for name in ("train", "val"):
        if name not in subset:
            present = ", ".join(sorted(set(clips["speaker"]))[:30])
            raise EmolightError(
                f"Split '{label}' leaves no clip for '{name}'; the corpus has speakers {present}.",
                "Choose another data.fold, or data.protocol random.",
            )


def check_label(split: Split, corpus: Corpus) -> None:
    """Refuse a split that calls itself by the name of a protocol that it is not.

    Raises:
        EmolightError: which speaker is in the wrong subset, or in two.
    """
    calls = f"The split calls itself '{split.label}'"
    other = "Give its `protocol` column another name, such as custom, or take the protocol's speakers."
    pairs = split.table[["speaker", "subset"]].drop_duplicates().sort_values(["speaker", "subset"])
    if split.label == ALL_TEST and set(split.table["subset"]) != {"test"}:
        raise EmolightError(f"{calls}, but has other subsets.", other)
    if split.protocol not in corpus.protocols:
        twice = pairs["speaker"][pairs["speaker"].duplicated()]
        if split.protocol in BY_SPEAKER and len(twice):
            raise EmolightError(f"{calls}, but has speaker {twice.iloc[0]} in two subsets.", other)
        if any(split.protocol in one.protocols for one in CORPORA.values()) and split.protocol not in FOR_ALL:
            raise EmolightError(f"{calls}, but {corpus.name} has no such protocol.", other)
        return
    folds = corpus.protocols[split.protocol]
    fold = folds.get(-1 if split.fold is None else split.fold)
    if fold is None:
        valid = ", ".join(f"{split.protocol} fold {one}" for one in folds)
        raise EmolightError(f"{calls}, but {corpus.name} has no such fold.", f"Name it custom, or one of {valid}.")
    place = {**dict.fromkeys(fold.val, "val"), **dict.fromkeys(fold.test, "test")}
    for speaker, subset in pairs.itertuples(index=False):
        if (published := place.get(speaker, "train")) != subset:
            raise EmolightError(f"{calls}, but has speaker {speaker} in '{subset}', not in '{published}'.", other)
