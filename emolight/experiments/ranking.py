"""Results ranked where they may be ranked together, and the tests of their differences.

Results stand in one table only where their fingerprints agree and they scored the same clips. Every pair of a table
is tested, and p is corrected for all of them: number 1 was chosen by the same figures, so that a correction for the
comparisons with it alone would find differences between equal systems far too often.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from emolight.errors import EmolightError
from emolight.evaluation.predictions import METRICS, metrics_of, unit_counts
from emolight.evaluation.statistics import Interval, holm, percentiles, resampled_counts, sign_flip, speaker_shares
from emolight.experiments.results import CROSSVAL, Result, read_result

SORTS = (*METRICS, "name", "seconds")
FACTS = ("seconds", "commit", "precision")
"""What is passed on of a result's facts."""
LEVEL = 0.05
UNFINISHED = "its training did not come to the end: it was killed, pruned, or still runs"


class Comparison(NamedTuple):
    """UAR of ``one`` minus that of ``other`` as a fraction, with its interval by speaker; and the test of it.

    There is no interval from one speaker. ``p`` is of :func:`~emolight.evaluation.statistics.sign_flip`, ``p_holm``
    corrected for all pairs of the table.
    """

    one: str
    other: str
    difference: float
    low: float | None
    high: float | None
    p: float
    p_holm: float

    @property
    def differs(self) -> bool:
        """Whether the difference is more than chance between these speakers."""
        return self.p_holm <= LEVEL


class Row(NamedTuple):
    """A result in its table: its ``rank`` by UAR, scores as fractions, and the leader ``against`` it."""

    rank: int
    result: Result
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    against: Comparison | None


class Group(NamedTuple):
    """Results of one fingerprint and the same clips: ``rows`` as sorted, and every pair, the higher UAR first."""

    fingerprint: dict[str, str]
    leader: Result
    rows: list[Row]
    pairs: list[Comparison]


def find_results(folders: Sequence[Path]) -> tuple[list[Result], list[str]]:
    """Read the results in ``folders``: runs, cross-validations, or folders that contain such.

    Returns:
        The finished results, each once and of a unique name; and a line for each other one with the reason.

    Raises:
        EmolightError: a folder is missing, has no finished result, or is itself a result that cannot be read.
    """
    results: dict[Path, Result] = {}
    skipped: dict[Path, str] = {}
    for folder in folders:
        if not folder.is_dir():
            fix = "Give lightning_logs/NAME/version_N or a folder above, or train first: python -m emolight fit."
            raise EmolightError(f"There is no folder '{folder}'.", fix)
        for found in _scan(folder):
            place = found.resolve()
            if place in results:
                continue
            try:
                result = read_result(found)
            except EmolightError as error:
                if found == folder:
                    raise
                skipped[place] = f"skipped {found}: {str(error).splitlines()[0]}"
                continue
            if result.finished:
                results[place] = result
            else:
                skipped[place] = f"skipped {found}: {UNFINISHED}."
    if not results:
        where = ", ".join(f"'{folder}'" for folder in folders)
        others = f" {len(skipped)} cannot be ranked, one is {next(iter(skipped.values()))}" if skipped else ""
        raise EmolightError(f"There is no result in {where}.{others}", "Train first: python -m emolight fit --help")
    count = Counter(result.name for result in results.values())
    named = [one if count[one.name] == 1 else one._replace(name=str(one.folder)) for one in results.values()]
    return named, list(skipped.values())


def _scan(folder: Path) -> Iterator[Path]:
    """``folder`` or the folders below it that hold a result; what lies inside of one is not listed by itself."""
    for path, inner, files in os.walk(folder):
        inner.sort()
        if {CROSSVAL, "config.yaml"} & set(files):
            inner.clear()
            yield Path(path)


def make_groups(results: Sequence[Result], sort: str = "uar") -> list[Group]:
    """Rank the results of each fingerprint and the same clips, and test every pair.

    Args:
        results: of :func:`find_results`.
        sort: one of :data:`SORTS`, the order of the rows; scores fall, names and seconds rise.
    """
    found: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        found.setdefault(tuple(fingerprint_of(result).values()), []).append(result)
    return [_group(found[key], sort) for key in sorted(found)]


def fingerprint_of(result: Result) -> dict[str, str]:
    """What must agree: the result's fingerprint, and the clips that it scored with their speakers and labels."""
    clips = result.table[["clip_id", "speaker", "label"]].drop_duplicates().sort_values("clip_id")
    digest = hashlib.sha256(clips.to_csv(index=False).encode()).hexdigest()
    return {**result.fingerprint, "clips": f"{len(clips)} ({digest[:6]})"}


def _group(results: list[Result], sort: str) -> Group:
    scored = []
    for result in results:
        counts = unit_counts(result.table, "speaker")
        metrics = {name: float(value) for name, value in metrics_of(counts.sum(axis=0)).items()}
        scored.append((result, metrics, metrics_of(resampled_counts(counts)), speaker_shares(result.table)))
    scored.sort(key=lambda one: (-one[1]["uar"], one[0].name))
    pairs = list(combinations(scored, 2))
    p_values = [sign_flip(one[3] - other[3]) for one, other in pairs]
    compared = []
    for (one, other), *p in zip(pairs, p_values, holm(p_values), strict=True):
        # The same speakers were drawn for both. One speaker drawn again and again is no interval.
        ends = percentiles(one[2]["uar"] - other[2]["uar"]) if len(one[3]) > 1 else (None, None)
        difference = one[1]["uar"] - other[1]["uar"]
        compared.append(Comparison(one[0].name, other[0].name, difference, *ends, *p))
    leader = scored[0][0]
    against = {one.other: one for one in compared if one.one == leader.name}
    rows = []
    for rank, (result, metrics, drawn, shares) in enumerate(scored, start=1):
        intervals = {name: percentiles(values) for name, values in drawn.items()} if len(shares) > 1 else {}
        rows.append(Row(rank, result, metrics, intervals, against.get(result.name)))
    if sort == "name":
        rows.sort(key=lambda row: row.result.name)
    elif sort == "seconds":
        rows.sort(key=lambda row: float("inf") if (time := row.result.facts.get("seconds")) is None else time)
    else:
        rows.sort(key=lambda row: -row.metrics[sort])
    return Group(fingerprint_of(leader), leader, rows, compared)


def seeds_of(result: Result) -> int:
    """How many seeds scored the clips."""
    return int(result.table["seed"].nunique()) if "seed" in result.table else 1


def what_differs(fingerprints: Sequence[dict[str, str]]) -> str:
    """Why there is more than one table, such as ``other protocol: emobox6 fold 1 / random seed 0``.

    Splits and sets of clips are named where nothing else tells two tables apart.
    """
    marks = ("split", "clips")
    shown = [name for name in fingerprints[0] if name not in marks]
    for mark in marks:
        tables = [tuple(one[name] for name in shown) for one in fingerprints]
        if len({(table, one[mark]) for table, one in zip(tables, fingerprints, strict=True)}) > len(set(tables)):
            shown.append(mark)
    values = {name: dict.fromkeys(one[name] for one in fingerprints) for name in shown}
    return "; ".join(f"other {name}: {' / '.join(found)}" for name, found in values.items() if len(found) > 1)


def records(group: Group) -> list[dict[str, Any]]:
    """Everything of the rows in plain values: scores and differences as fractions, None where there is none."""
    found = []
    for row in group.rows:
        result, against = row.result, row.against
        record: dict[str, Any] = {"rank": row.rank, "name": result.name, "kind": result.kind}
        for name in METRICS:
            low, high = row.intervals.get(name, (None, None))
            record |= {name: row.metrics[name], f"{name}_low": low, f"{name}_high": high}
        record |= {"clips": int(result.table["clip_id"].nunique()), "speakers": result.table["speaker"].nunique()}
        record |= {"seeds": seeds_of(result), "test_scored": result.openings, "leader": group.leader.name}
        record |= {f"lead_{name}": getattr(against, name, None) for name in ("difference", "low", "high")}
        record |= {name: getattr(against, name, None) for name in ("p", "p_holm", "differs")}
        record |= {name: result.facts.get(name) for name in FACTS}
        found.append({**record, "folder": str(result.folder)})
    return found


def to_json(groups: Sequence[Group], skipped: Sequence[str]) -> str:
    """All groups as a JSON document, with every pair."""
    found = [
        {
            "fingerprint": group.fingerprint,
            "speaker_independent": group.leader.speaker_independent,
            "results": records(group),
            "pairs": [{**pair._asdict(), "differs": pair.differs} for pair in group.pairs],
        }
        for group in groups
    ]
    return json.dumps({"groups": found, "skipped": list(skipped)}, indent=1, allow_nan=False) + "\n"


def to_csv(groups: Sequence[Group]) -> str:
    """All groups as CSV: a row a result, the fingerprint in front. Tests of pairs are in the JSON only."""
    rows = [
        {**group.fingerprint, "speaker_independent": group.leader.speaker_independent, **record}
        for group in groups
        for record in records(group)
    ]
    # As objects, integers stay integers in a column that has gaps.
    return pd.DataFrame(rows, dtype=object).to_csv(index=False, lineterminator="\n")
