"""The words of the report: who was held out, how the epoch was chosen, how often the test set was scored."""

from __future__ import annotations

from collections.abc import Sequence

from emolight import __version__
from emolight.data.splits import BEST_EPOCH, LAST_EPOCH
from emolight.evaluation.predictions import class_names
from emolight.experiments.results import Result
from emolight.report.pages import wall_time
from emolight.report.sheets import listed
from emolight.report.study import Study

Pairs = list[tuple[str, str]]


def protocol(study: Study) -> Pairs:
    """The terms and descriptions of the first section."""
    result, first = study.result, next(iter(study.runs), None)
    names = ", ".join(class_names(result.table))
    members = ", ".join(member["name"] for member in result.facts.get("members", []))
    has_test = first is None or bool(first.split.clips("test"))
    pairs = [
        ("Who was held out", held_out(result)),
        ("How the epoch was chosen", epoch(result)),
        ("How often the test set was scored", scorings(result, [run.openings for run in study.runs], has_test)),
        ("Split", f"{result.protocol}, {result.facts['meaning']}. SHA-256 {result.split[:12]}."),
        ("Corpus", " ".join(f"{one.name}: {one.about}." for one in study.corpora) or result.corpus),
        ("Task", f"{result.task}: {names}." if result.task != names.replace(", ", "-") else names),
        ("Members", members),
        ("Notes", ". ".join(first.environment.get("notes", [])) if first else ""),
    ]
    return [pair for pair in pairs if pair[1]]


def facts(study: Study, command: str) -> Pairs:
    """What the footer tells of recordings and making; what nobody knows is left out."""
    known, corpora = study.result.facts, study.corpora
    seconds, parameters = known.get("seconds"), known.get("parameters")
    pairs = [
        ("citation", "; ".join(dict.fromkeys(one.citation for one in corpora if one.citation))),
        ("licence", "; ".join(dict.fromkeys(one.licence for one in corpora if one.licence))),
        ("made by", command),
        ("emolight", __version__),
        ("commit of the training", known.get("commit")),
        ("wall time of training", wall_time(seconds) if seconds else None),
        ("features", spec_words(known.get("features"))),
        ("network", spec_words(known.get("network"))),
        ("precision", known.get("precision")),
        ("parameters", f"{parameters:,}".replace(",", "\u202f") if parameters else None),
    ]
    return [(name, str(value)) for name, value in pairs if value]


def held_out(result: Result) -> str:
    """Which voices of the scored clips the networks had in training."""
    table, tested = result.table, result.subset == "test"
    if not result.speaker_independent:
        return (
            "No speaker was held out: clips of the same voices are in training. "
            "The figures say nothing about a new voice."
        )
    if "fold" in table and table["fold"].nunique() > 1:
        sizes = sorted(set(table.groupby("fold")["speaker"].nunique()))
        each, every = " or ".join(str(size) for size in sizes), result.facts.get("speakers")
        each += f" of {every} speakers" if every else " speakers" if sizes != [1] else " speaker"
        kind = "held out" if tested else "kept out of training, for validation"
        return (
            f"{table['fold'].nunique()} folds, in each of which {each} {'is' if sizes == [1] else 'are'} {kind}. "
            "Every prediction on this page is by a network with no clip of that speaker in its training."
        )
    speakers = sorted(table["speaker"].unique())
    named = f"speaker{'s' * (len(speakers) > 1)} {listed(speakers)}"
    if tested:
        return f"Held out: {named}. No clip of theirs was in training or chose anything."
    return f"Kept out of training, for validation: {named}. The test speakers are not on this page."


def epoch(result: Result) -> str:
    """How the epoch was chosen, and whether the scored clips chose it."""
    if result.selection == LAST_EPOCH:
        return "The last epoch, fixed beforehand: nothing was selected by a score."
    if result.selection != BEST_EPOCH:
        return result.selection
    chosen = "The epoch with the highest UAR on the validation clips. "
    if result.subset == "test":
        return chosen + "The test clips had no part in it."
    return chosen + "These are those clips, which flatters the figures."


def scorings(result: Result, counts: Sequence[int], has_test: bool) -> str:
    """How often the test set was scored.

    Args:
        result: of a run, a cross-validation or an ensemble.
        counts: of each run that is at hand.
        has_test: whether the split has test clips.
    """
    total = result.openings
    if not has_test:
        return "This split has no test set: the figures are of the validation clips."
    times = "Once" if total == 1 else f"{total} times"
    if result.subset == "val":
        return f"{times if total else 'Never'}; the figures here are of the validation clips."
    if result.kind == "ensemble":
        return f"{times} by the runs that the ensemble is made of."
    if not total:
        return "It is not recorded."
    if max(counts, default=1) > 1:
        return f"{times} by {len(counts)} run{'s' * (len(counts) > 1)}. The more often, the more may be chosen."
    return f"Once by each of the {len(counts)} runs." if total == len(counts) > 1 else f"{times}."


def spec_words(spec: object) -> str:
    """A part of the model in words: ``MFCC: n_mfcc 40, deltas 2``."""
    if not isinstance(spec, dict):
        return str(spec or "")
    name = str(spec.get("class_path", "")).rpartition(".")[2]
    given = (spec.get("init_args") or {}).items()
    arguments = ", ".join(f"{key} {value}" for key, value in given if value is not None)
    return f"{name}: {arguments}" if arguments else name
