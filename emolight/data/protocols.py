"""How clips are split: the published folds of a corpus, and the protocols that any corpus can be split by."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from emolight.data.corpora import CORPORA
from emolight.data.corpus import UNKNOWN, Corpus, Fold
from emolight.data.splits import ALL_TEST, SUBSETS, Split
from emolight.errors import EmolightError, check_choice

BY_SPEAKER = {"speakers5": 5, "loso": 3}  # protocols of any corpus that need so many speakers
WITHOUT_FOLDS = ("random", "subset")
RANDOM_VALIDATION_CLIPS = 320  # the article's validation set; corpora of fewer than 640 clips give a fifth instead
DEALS = 20


def protocols_of(corpus: Corpus) -> list[str]:
    """Names of the protocols that a corpus can be split by."""
    return list(dict.fromkeys([*corpus.protocols, *BY_SPEAKER, *WITHOUT_FOLDS]))


def all_folds(corpus: Corpus, protocol: str, clips: pd.DataFrame, seed: int = 0) -> Mapping[int, Fold]:
    """Fold number to its speakers, where clips of its test speakers are there; empty for protocols without folds."""
    check_choice(f"protocol of {corpus.name}", protocol, protocols_of(corpus))
    if protocol in corpus.protocols:
        published, there = corpus.protocols[protocol], set(clips["speaker"])
        return {number: fold for number, fold in published.items() if there & set(fold.test)} or published
    if protocol in WITHOUT_FOLDS:
        return {}
    speakers, needed = sorted(clips["speaker"].unique()), BY_SPEAKER[protocol]
    if len(speakers) < needed:
        nobody = "Nobody knows the speakers of these clips: choose data.protocol random (speaker-dependent)."
        raise EmolightError(
            f"Protocol '{protocol}' needs {needed} speakers or more; {corpus.name} has {len(speakers)}.",
            "Choose data.protocol loso (3 or more) or random (speaker-dependent)." if speakers != [UNKNOWN] else nobody,
        )
    if protocol == "loso":
        held, ring = max(1, round(len(speakers) / 10)), speakers + speakers
        return {n + 1: Fold((who,), tuple(ring[n + 1 : n + 1 + held])) for n, who in enumerate(speakers)}
    parts = _five_parts(clips, seed)
    return {n + 1: Fold(parts[n], parts[(n + 1) % 5]) for n in range(5)}


def _five_parts(clips: pd.DataFrame, seed: int) -> list[tuple[str, ...]]:
    """Five groups of speakers: as many of each corpus and sex in each, and about as many clips of each emotion.

    Speakers are dealt out, about the most talkative first, always to the group that has the fewest of their sex and
    then the fewest clips; the most even of :data:`DEALS` such deals is taken.
    """
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
    return [tuple(counts.index.to_numpy()[best == number]) for number in range(5)]


def folds_of(corpus: Corpus, protocol: str, clips: pd.DataFrame, seed: int = 0) -> list[int]:
    """Numbers of the protocol's folds, sorted; none for ``random`` and ``subset``."""
    return sorted(all_folds(corpus, protocol, clips, seed))


def make_split(clips: pd.DataFrame, corpus: Corpus, protocol: str, fold: int | None = None, seed: int = 0) -> Split:
    """Assign every clip to ``train``, ``val`` or ``test``, by a protocol; by default its first fold."""
    folds = all_folds(corpus, protocol, clips, seed)
    clips = clips.sort_values("clip_id", ignore_index=True)
    subset = np.full(len(clips), "train", dtype=object)
    if fold is not None and fold not in folds:
        fix = "Leave data.fold out; data.split_seed draws another split."
        if folds:
            whole = [*folds] == [*range(min(folds), max(folds) + 1)]
            valid = f"from {min(folds)} to {max(folds)}" if whole else f"one of {', '.join(map(str, folds))}"
            fix = f"Give data.fold {valid}."
        raise EmolightError(f"Protocol '{protocol}' has no {f'fold {fold}' if folds else 'folds'}.", fix)
    if folds:
        fold = min(folds) if fold is None else fold
        label = f"{protocol} fold {fold}" + (f" seed {seed}" if protocol == "speakers5" else "")
        subset[clips["speaker"].isin(folds[fold].val)] = "val"
        subset[clips["speaker"].isin(folds[fold].test)] = "test"
    elif protocol == "random":
        label = f"random seed {seed}"
        held_out = RANDOM_VALIDATION_CLIPS if len(clips) >= 2 * RANDOM_VALIDATION_CLIPS else len(clips) // 5
        subset[np.random.default_rng(seed).permutation(len(clips))[:held_out]] = "val"
    else:
        label = "subset"
        if label not in clips:
            problem = f"Protocol 'subset' needs a column `subset` in the table of {corpus.name}."
            raise EmolightError(problem, "Add it with train, val and test, or choose data.protocol speakers5.")
        subset = clips[label].to_numpy()
        if strange := set(subset) - SUBSETS.keys():
            problem = f"The column `subset` of {corpus.name} has '{min(strange)}'."
            raise EmolightError(problem, "Say train, val or test of each clip.")
    for name in ("train", "val"):
        if name not in subset:
            present = ", ".join(sorted(set(clips["speaker"]))[:30])
            fix = "Call some of the training clips `val`, which choose the epoch." if label == "subset" else ""
            problem = f"Split '{label}' leaves no clip for '{name}'; the corpus has speakers {present}."
            raise EmolightError(problem, fix or "Choose another data.fold, or data.protocol random.")
    return Split(clips[["clip_id", "emotion", "speaker"]].assign(subset=subset), label)


def check_label(split: Split, corpus: Corpus) -> None:
    """Refuse a split that calls itself by the name of a protocol that it is not."""
    other = "Give its `protocol` column another name, such as custom, or take the protocol's speakers."
    pairs = split.table[["speaker", "subset"]].drop_duplicates().sort_values(["speaker", "subset"])
    twice, folds = pairs["speaker"][pairs["speaker"].duplicated()], corpus.protocols.get(split.protocol)
    problem = ""
    if split.label == ALL_TEST and set(split.table["subset"]) != {"test"}:
        problem = "has other subsets"
    elif folds is None and split.protocol in BY_SPEAKER and len(twice):
        problem = f"has speaker {twice.iloc[0]} in two subsets"
    elif folds is None and any(split.protocol in {*one.protocols} - {*BY_SPEAKER} for one in CORPORA.values()):
        problem = f"{corpus.name} has no such protocol"
    elif folds is not None and split.fold not in folds:
        problem = f"{corpus.name} has no such fold"
        other = f"Name it custom, or one of {', '.join(f'{split.protocol} fold {one}' for one in folds)}."
    elif folds is not None and split.fold is not None:
        test, val = folds[split.fold]
        for speaker, subset in pairs.itertuples(index=False):
            published = "test" if speaker in test else "val" if speaker in val else "train"
            if subset != published and not problem:
                problem = f"has speaker {speaker} in '{subset}', not in '{published}'"
    if problem:
        raise EmolightError(f"The split calls itself '{split.label}', but {problem}.", other)
