from __future__ import annotations

import csv
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from emolight.errors import EmolightError
from emolight.evaluation.predictions import predictions_table, scores, write_predictions
from emolight.evaluation.statistics import holm, mcnemar_clips, paired_difference, wilcoxon_actors
from emolight.experiments.compare import main
from emolight.experiments.ranking import find_results, make_groups, what_differs
from emolight.results import read_result

EMOTIONS = ("calm", "happy", "sad")
EXAMPLES = {"strong": 0.9, "middle": 0.75, "weak": 0.4}
"""Runs and the share of clips that they have right."""


def predictions(right: float, seed: int = 0, actors: int = 8) -> pd.DataFrame:
    """20 clips of each actor; a random share of them is right."""
    random = np.random.default_rng(seed)
    number = 20 * actors
    clips = pd.DataFrame(
        {
            "clip_id": [f"clip-{place:03d}" for place in range(number)],
            "emotion": [EMOTIONS[place % 3] for place in range(number)],
            "actor": [1 + place // 20 for place in range(number)],
            **{"sex": "male", "channel": "speech", "intensity": "normal", "statement": 1, "repetition": 1},
        }
    )
    guess = np.where(random.random(number) < right, 0, random.integers(1, 3, number))
    return predictions_table(clips, EMOTIONS, np.eye(3)[(np.arange(number) + guess) % 3] * 0.7 + 0.1)


def write_run(
    folder: Path,
    table: pd.DataFrame | None,
    protocol: str = "emobox6 fold 1",
    subset: str = "test",
    openings: int = 1,
) -> Path:
    """A run folder as ``fit`` and ``test`` leave it; without predictions when ``table`` is None."""
    folder.mkdir(parents=True)
    config = {
        "name": folder.parent.name,
        "data": {"emotions": list(EMOTIONS), "channels": ["speech"], "root": "data/ravdess"},
        "model": {"features": {"mode": "mfcc"}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "split.csv").write_text(f"clip_id,emotion,actor,subset,protocol\nclip-000,calm,1,test,{protocol}\n")
    (folder / "environment.json").write_text(json.dumps({"commit": "abc", "precision": "32-true", "versions": {}}))
    (folder / "test_openings.csv").write_text("when,command\n" + "today,test\n" * openings)
    if table is not None:
        write_predictions(folder / f"predictions_{subset}.csv", table)
    return folder


def write_crossval(folder: Path, right: float, facts: dict[str, Any] | None = None) -> Path:
    """Two seeds of one fold of a cross-validation, each with its run inside, opened once."""
    tables = [predictions(right, seed).assign(fold=1, seed=seed) for seed in (0, 1)]
    runs = [write_run(folder / "runs" / f"seed{seed}", table) for seed, table in enumerate(tables)]
    about = {
        **{"name": folder.name, "kind": "crossval", "subset": "test", "protocol": "emobox6", "task": "article"},
        **{"selection": "best epoch by validation UAR", "split": "f" * 64, "facts": facts or {}},
        "runs": [{"folder": run.relative_to(folder).as_posix()} for run in runs],
    }
    (folder / "crossval.json").write_text(json.dumps(about))
    write_predictions(folder / "predictions.csv", pd.concat(tables))
    return folder


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Three runs of one fold."""
    for number, (name, right) in enumerate(EXAMPLES.items()):
        write_run(tmp_path / "logs" / name / "version_0", predictions(right, number))
    return tmp_path / "logs"


def as_json(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    """What the command prints as JSON, and nothing else."""
    assert main([*(str(word) for word in argv), "--json", "-"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def shown(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """What the command prints, each run of white space as one blank."""
    assert main([str(word) for word in argv]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_leader_is_tested_against_each_and_corrected_by_holm(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (group,) = as_json(capsys, logs)["groups"]
    tables = {name: read_result(logs / name / "version_0").table for name in EXAMPLES}
    assert [row["name"] for row in group["results"]] == [f"{name} version_0" for name in EXAMPLES]
    assert [row["rank"] for row in group["results"]] == [1, 2, 3]
    first, *rest = group["results"]
    assert first["wilcoxon_p"] is None
    assert first["difference"] is None
    for name, row in zip(tables, group["results"], strict=True):
        assert row["uar"] == pytest.approx(scores(tables[name])["uar"])
        assert row["wa"] == pytest.approx(scores(tables[name])["wa"])
        assert row["macro_f1"] == pytest.approx(scores(tables[name])["macro_f1"])
        assert row["uar_low"] < row["uar"] < row["uar_high"]
    for test, key in ((wilcoxon_actors, "wilcoxon"), (mcnemar_clips, "mcnemar")):
        p_values = [test(tables["strong"], tables[name]) for name in ("middle", "weak")]
        assert [row[f"{key}_p"] for row in rest] == p_values
        assert [row[f"{key}_holm"] for row in rest] == holm(p_values)
    expected = paired_difference(tables["strong"], tables["weak"])
    weak = rest[1]
    assert (weak["difference"], weak["difference_low"], weak["difference_high"]) == (
        expected.value,
        *expected.interval,
    )
    assert weak["difference"] > 0


def test_pairs_are_corrected_over_all_pairs(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (group,) = as_json(capsys, logs, "--pairs")["groups"]
    tables = {f"{name} version_0": read_result(logs / name / "version_0").table for name in EXAMPLES}
    assert [(pair["one"], pair["other"]) for pair in group["pairs"]] == list(combinations(tables, 2))
    p_values = [mcnemar_clips(tables[one], tables[other]) for one, other in combinations(tables, 2)]
    assert [pair["mcnemar_holm"] for pair in group["pairs"]] == holm(p_values)
    assert "every pair:" in shown(capsys, logs, "--pairs")
    assert as_json(capsys, logs)["groups"][0]["pairs"] == []


@pytest.mark.parametrize("sort", ["uar", "wa", "macro_f1", "name"])
def test_rows_are_sorted_and_ranks_stay_those_of_uar(
    logs: Path, sort: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # All wrong except one emotion: the lowest UAR, and with the clips of two emotions gone the highest accuracy.
    table = predictions(1.0)
    kept = table[(table["label"] == "calm") | (table.index < 6)].assign(prediction="calm")
    write_run(logs / "a_calm" / "version_0", kept)
    (group,) = as_json(capsys, logs, "--sort", sort)["groups"]
    values = [row[sort] for row in group["results"]]
    assert values == sorted(values, reverse=sort != "name")
    by_rank = sorted(group["results"], key=lambda row: int(row["rank"]))
    assert [row["uar"] for row in by_rank] == sorted((row["uar"] for row in by_rank), reverse=True)
    assert {row["leader"] for row in group["results"]} == {"strong version_0"}
    assert [row["name"].split()[0] for row in group["results"]].index("a_calm") == (
        0 if sort in ("wa", "name") else 3
    )


def test_seconds_sort_the_fastest_first_and_the_unknown_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, right, facts in (("slow", 0.9, {"seconds": 500}), ("fast", 0.5, {"seconds": 20}), ("none", 0.7, {})):
        write_crossval(tmp_path / name, right, facts)
    (group,) = as_json(capsys, tmp_path, "--sort", "seconds")["groups"]
    assert [(row["name"], row["seconds"]) for row in group["results"]] == [
        ("fast", 20),
        ("slow", 500),
        ("none", None),
    ]


def test_other_splits_stand_in_tables_of_their_own_with_the_reason_above(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(logs / "leaky" / "version_0", predictions(0.99), "random seed 0", "val", openings=0)
    groups = as_json(capsys, logs)["groups"]
    assert sorted(len(group["results"]) for group in groups) == [1, 3]
    text = shown(capsys, logs)
    assert text.startswith("2 tables, whose results must not be ranked together: other")
    assert "other split: emobox6 fold 1 / random seed 0" in text
    assert "other clips scored: test / val" in text
    assert "other selection: best epoch by validation UAR / last epoch, nothing selected" in text
    assert "random seed 0: 160 validation clips, actors: 8 speaker-dependent: actors and their twin takes" in text
    assert "emobox6 fold 1: 160 test clips, actors: 8 speaker-independent:" in text
    assert {group["speakers"].split(":")[0] for group in groups} == {"speaker-dependent", "speaker-independent"}


def test_one_table_needs_no_reason(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "must not be ranked" not in shown(capsys, logs)


def test_splits_of_one_name_are_told_apart_by_their_hash() -> None:
    one = {"task": "article", "protocol": "custom", "clips scored": "val", "split": "aaa", "selection": "last"}
    assert what_differs([one, {**one, "split": "bbb"}]) == "other split: custom (aaa) / custom (bbb)"
    assert what_differs([one, {**one, "task": "full", "split": "bbb"}]) == "other task: article / full"


def test_other_clips_are_ranked_but_not_tested(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(logs / "short" / "version_0", predictions(0.8, 5).iloc[3:])
    (group,) = as_json(capsys, logs, "--pairs")["groups"]
    rows = {row["name"].split()[0]: row for row in group["results"]}
    assert rows["short"]["wilcoxon_p"] is None
    assert not rows["short"]["same_clips_as_leader"]
    assert rows["short"]["uar_low"] is not None
    # Two comparisons were made, and Holm's factor is two.
    p_values = [rows[name]["mcnemar_p"] for name in ("middle", "weak")]
    assert [rows[name]["mcnemar_holm"] for name in ("middle", "weak")] == holm(p_values)
    assert {name for pair in group["pairs"] for name in (pair["one"], pair["other"])} == {
        f"{name} version_0" for name in EXAMPLES
    }
    text = shown(capsys, logs)
    assert "note: short version_0 is not tested against the clips of strong version_0: it lacks 3 of them" in text


def test_runs_of_a_cross_validation_are_not_listed_by_themselves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_crossval(tmp_path / "logs" / "cv", 0.8)
    found, skipped = find_results([tmp_path])
    assert ([result.name for result in found], skipped) == (["cv"], [])
    (row,) = as_json(capsys, folder)["groups"][0]["results"]
    assert (row["kind"], row["seeds"], row["openings"], row["clips"]) == ("crossval", 2, 2, 160)
    assert [result.folder for result in find_results([folder / "runs" / "seed0"])[0]] == [folder / "runs" / "seed0"]


def test_unreadable_is_skipped_in_a_scan_and_an_error_by_name(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished = write_run(logs / "weak" / "version_1", None)
    main([str(logs), "--json", "-"])
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        f"skipped {unfinished}: There is no predictions file {unfinished / 'predictions_val.csv'}."
    ]
    assert json.loads(out)["skipped"] == err.splitlines()
    with pytest.raises(EmolightError, match=r"^There is no predictions file"):
        main([str(logs), str(unfinished)])


def test_nothing_to_compare_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EmolightError, match="no folder 'lightning_logs'"):
        main([])
    (tmp_path / "lightning_logs").mkdir()
    with pytest.raises(EmolightError, match="There is no result in 'lightning_logs'"):
        main([])
    write_run(tmp_path / "lightning_logs" / "new" / "version_0", None)
    with pytest.raises(EmolightError, match=r"no result in .* 1 are not readable, one is skipped lightning_logs"):
        main([])
    write_run(tmp_path / "lightning_logs" / "done" / "version_0", predictions(0.8))
    assert "done version_0" in shown(capsys)


def test_a_folder_given_twice_counts_once_and_equal_names_become_folders(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_run(tmp_path / "elsewhere" / "strong" / "version_0", predictions(0.6, 9))
    found, _ = find_results([logs, logs / "strong", logs / "weak" / ".." / "weak" / "version_0", other])
    assert sorted(result.name for result in found) == sorted(
        ["middle version_0", "weak version_0", str(logs / "strong" / "version_0"), str(other)]
    )


def test_csv_holds_every_group_in_full_precision(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(logs / "leaky" / "version_0", predictions(0.99), "random seed 0", "val", openings=0)
    path, document = tmp_path / "new" / "all.csv", tmp_path / "all.json"
    assert "strong version_0" in shown(capsys, logs, "--csv", path, "--json", document)
    rows = list(csv.DictReader(path.open(newline="")))
    found = json.loads(document.read_text())["groups"]
    plain = [row for group in found for row in group["results"]]
    assert len(rows) == 4
    for row, expected in zip(rows, plain, strict=True):
        assert float(row["uar"]) == expected["uar"]
        assert row["seeds"] == "1"
        assert row["wilcoxon_holm"] == ("" if expected["wilcoxon_holm"] is None else str(expected["wilcoxon_holm"]))
        assert row["commit"] == "abc"
    assert {row["protocol"] for row in rows} == {"emobox6 fold 1", "random seed 0"}
    assert {"task", "clips scored", "split", "selection", "folder", "openings"} <= rows[0].keys()


def test_a_place_that_cannot_be_written_is_an_error(logs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmolightError, match="Cannot write"):
        main([str(logs), "--csv", str(tmp_path / "file" / "all.csv")])


def test_footnotes_stand_where_they_are_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    once = write_run(tmp_path / "once" / "version_0", predictions(0.8, 1))
    assert not {"openings:", "validation:", "lead:"} & set(shown(capsys, once).split())
    twice = write_run(tmp_path / "twice" / "version_0", predictions(0.7, 2), openings=2)
    text = shown(capsys, once, twice).split()
    assert {"openings:", "lead:"} <= set(text)
    assert "validation:" not in text
    seen = write_run(tmp_path / "seen" / "version_0", predictions(0.8, 3), subset="val", openings=0)
    assert "validation:" in shown(capsys, seen).split()


def test_one_actor_gives_no_interval_and_few_give_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [
        write_run(tmp_path / name / "version_0", predictions(right, 3, actors=1), "loso fold 1")
        for name, right in (("one", 0.9), ("two", 0.5))
    ]
    (group,) = as_json(capsys, *folders, "--pairs")["groups"]
    assert [row["uar_low"] for row in group["results"]] == [None, None]
    assert group["results"][1]["difference_high"] is None
    assert group["pairs"][0]["difference_low"] is None
    assert "Wilcoxon's p is never below 1:" in shown(capsys, *folders)


def test_tables_fit_100_columns_and_align_numbers(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = write_run(logs / ("a_name_that_" + "goes_on_" * 6) / "version_0", predictions(1.0, 4, actors=8))
    write_run(logs / "none" / "version_0", predictions(0.0, 4), openings=12)
    main([str(logs), "--pairs", "--sort", "seconds"])
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 100
    main([str(logs)])
    lines = capsys.readouterr().out.splitlines()
    starts = [line for line in lines if line[:3].strip().isdigit()]
    assert len(starts) == 5
    # In every row the UAR ends in the same column, whether it is 100.0, 75.0 or 0.0.
    places = {line.index("%") for line in lines if line.startswith("#")}
    ends = {line.find(".") for line in starts}
    assert len(places) == 1
    assert len(ends) == 1
    assert "100.0" in next(line for line in starts if line.startswith("1"))
    assert "…" not in "".join(lines)
    assert long.is_dir()


def test_groups_keep_markup_in_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "[red]x" / "version_0", predictions(0.8))
    assert "[red]x" in shown(capsys, run)
    assert make_groups(find_results([run])[0])[0].leader.name == "[red]x version_0"
