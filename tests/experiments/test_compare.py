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
from emolight.evaluation.predictions import predictions_table, read_predictions, scores
from emolight.evaluation.statistics import bootstrap, holm, paired_difference, sign_flip, speaker_shares
from emolight.experiments.compare import find_results, main, make_groups
from emolight.files import write_table

EMOTIONS = ("calm", "happy", "sad")
EXAMPLES = {"strong": 0.9, "middle": 0.75, "weak": 0.4}
"""Runs and the share of clips that they have right."""


def predictions(right: float, seed: int = 0, speakers: int = 8) -> pd.DataFrame:
    """20 clips of each speaker; a random share of them is right."""
    random = np.random.default_rng(seed)
    number = 20 * speakers
    clips = pd.DataFrame(
        {
            "clip_id": [f"clip-{place:03d}" for place in range(number)],
            "emotion": [EMOTIONS[place % 3] for place in range(number)],
            "speaker": [f"{1 + place // 20:02d}" for place in range(number)],
        }
    )
    guess = np.where(random.random(number) < right, 0, random.integers(1, 3, number))
    return predictions_table(clips, EMOTIONS, np.eye(3)[(np.arange(number) + guess) % 3] * 0.7 + 0.1)


def write_run(
    folder: Path,
    table: pd.DataFrame | None,
    protocol: str = "emobox6 fold 1",
    subset: str = "test",
    scored: int = 1,
    finished: bool = True,
) -> Path:
    """A run folder as ``fit`` and ``test`` leave it; without predictions when ``table`` is None."""
    folder.mkdir(parents=True)
    features, network = {"class_path": "MFCC"}, {"class_path": "ResNet18"}
    config = {
        "name": folder.parent.name,
        "data": {"corpus": "RAVDESS", "root": "data/ravdess"},
        "model": {"features": features, "network": network},
        "trainer": {},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    others = "clip-000,calm,01" if protocol.startswith("random") else "other,calm,24"
    rows = [f"{others},train", "clip-001,calm,01,val" if subset == "val" else "clip-001,calm,01,test"]
    rows = [f"{row},{protocol}" for row in rows]
    (folder / "split.csv").write_text("\n".join(["clip_id,emotion,speaker,subset,protocol", *rows]) + "\n")
    about = {"corpus": "RAVDESS", "task": "article", "commit": "abc", "precision": "32-true", "finished": finished}
    (folder / "environment.json").write_text(json.dumps(about))
    (folder / "test_scorings.csv").write_text("time,checkpoint,clips\n" + "today,best.ckpt,160\n" * scored)
    if table is not None:
        write_table(folder / f"predictions_{subset}.csv", table)
    return folder


def write_crossval(folder: Path, right: float) -> Path:
    """Two seeds of one fold of a cross-validation, each with its run inside, tested once."""
    tables = [predictions(right, seed).assign(fold=1, seed=seed) for seed in (0, 1)]
    runs = [write_run(folder / "runs" / f"seed{seed}", table) for seed, table in enumerate(tables)]
    about = {
        **{"name": folder.name, "kind": "crossval", "subset": "test", "protocol": "emobox6", "task": "article"},
        **{"selection": "best epoch by validation UAR", "split": "f" * 64, "facts": {}},
        **{"corpus": "RAVDESS", "speaker_independent": True},
        "runs": [{"folder": run.relative_to(folder).as_posix(), "openings": 1} for run in runs],
    }
    (folder / "crossval.json").write_text(json.dumps(about))
    write_table(folder / "predictions.csv", pd.concat(tables))
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


def test_every_pair_is_tested_and_corrected_for_all_pairs(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (group,) = as_json(capsys, logs)["groups"]
    files = {f"{name} version_0": logs / name / "version_0" / "predictions_test.csv" for name in EXAMPLES}
    tables = {name: read_predictions(path) for name, path in files.items()}
    assert [row["name"] for row in group["results"]] == list(tables)
    assert [row["rank"] for row in group["results"]] == [1, 2, 3]
    for row in group["results"]:
        table = tables[row["name"]]
        for name, interval in bootstrap(table).items():
            if not name.startswith("recall"):
                assert row[name] == pytest.approx(scores(table)[name])
                assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(tuple(interval))
    pairs = list(combinations(tables, 2))
    p_values = [sign_flip(speaker_shares(tables[one]) - speaker_shares(tables[other])) for one, other in pairs]
    assert [(pair["one"], pair["other"]) for pair in group["pairs"]] == pairs
    assert [pair["p"] for pair in group["pairs"]] == p_values
    assert [pair["p_holm"] for pair in group["pairs"]] == holm(p_values)
    # The leader's comparisons are among them, and no other correction is shown.
    first, *rest = group["results"]
    assert {first[name] for name in ("p", "p_holm", "lead_difference", "differs")} == {None}
    assert [row["p_holm"] for row in rest] == holm(p_values)[:2]
    expected = paired_difference(tables["strong version_0"], tables["weak version_0"])
    lead = [rest[1][f"lead_{name}"] for name in ("difference", "low", "high")]
    assert lead == pytest.approx([expected.value, *expected.interval])
    assert rest[1]["differs"] is (rest[1]["p_holm"] <= 0.05)
    text = shown(capsys, logs, "--pairs")
    assert "every pair:" in text
    assert "every pair:" not in shown(capsys, logs)
    assert f"{100 * expected.value:+.1f}" in text


def test_several_seeds_are_ranked_and_tested_by_their_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lead, its interval and its p are of one quantity: the mean over the seeds, never their ensemble."""
    for name, right in (("one", 0.9), ("two", 0.6)):
        write_crossval(tmp_path / name, right)
    (group,) = as_json(capsys, tmp_path)["groups"]
    uar = {right: np.mean([scores(predictions(right, seed))["uar"] for seed in (0, 1)]) for right in (0.9, 0.6)}
    shares = [np.mean([speaker_shares(predictions(right, seed)) for seed in (0, 1)], axis=0) for right in (0.9, 0.6)]
    assert [row["uar"] for row in group["results"]] == pytest.approx(list(uar.values()))
    assert [row["seeds"] for row in group["results"]] == [2, 2]
    assert group["results"][1]["lead_difference"] == pytest.approx(uar[0.9] - uar[0.6])
    assert group["results"][1]["p"] == pytest.approx(sign_flip(shares[0] - shares[1]))
    assert "seeds: of one seed" not in shown(capsys, tmp_path)


def test_rows_are_ranked_by_uar_not_by_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Most clips are calm: who always says calm has the highest accuracy and the lowest UAR.
    kept = predictions(0.8)[lambda table: (table["label"] == "calm") | (table.index < 12)]
    write_run(tmp_path / "a_calm" / "version_0", kept.assign(prediction="calm"))
    write_run(tmp_path / "fair" / "version_0", kept)
    (group,) = as_json(capsys, tmp_path)["groups"]
    assert [(row["name"], row["rank"]) for row in group["results"]] == [("fair version_0", 1), ("a_calm version_0", 2)]
    assert group["results"][0]["accuracy"] < group["results"][1]["accuracy"]


def test_other_splits_stand_in_tables_of_their_own_with_the_reason_above(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(logs / "leaky" / "version_0", predictions(0.99), "random seed 0", "val", scored=0)
    groups = as_json(capsys, logs)["groups"]
    assert sorted(len(group["results"]) for group in groups) == [1, 3]
    assert {group["speaker_independent"] for group in groups} == {True, False}
    text = shown(capsys, logs)
    assert text.startswith("2 tables, whose results must not be ranked together: other")
    assert "other protocol, clips scored, split." in text
    assert "random seed 0: 160 validation clips, speakers: 8 speaker-dependent:" in text
    assert "emobox6 fold 1: 160 test clips, speakers: 8 speaker-independent:" in text


def test_results_of_other_clips_stand_in_other_tables(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same split, but one run scored fewer clips: limit_val_batches, or recordings that were skipped."""
    write_run(logs / "short" / "version_0", predictions(0.99, 5).iloc[3:])
    groups = as_json(capsys, logs)["groups"]
    assert sorted([row["name"].split()[0] for row in group["results"]] for group in groups) == [
        ["short"],
        ["strong", "middle", "weak"],
    ]
    text = shown(capsys, logs)
    assert "together: other clips." in text
    assert "157 test clips" in text


def test_killed_and_pruned_runs_are_skipped_with_the_reason(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed = write_run(logs / "best" / "version_0", predictions(1.0), finished=False)
    empty = write_run(logs / "weak" / "version_1", None, subset="val")
    main([str(logs), "--json", "-"])
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        f"skipped {killed}: its training did not come to the end: it was killed, or still runs.",
        f"skipped {empty}: There is no predictions file {empty / 'predictions_val.csv'}.",
    ]
    assert json.loads(out)["skipped"] == err.splitlines()
    assert json.loads(out)["groups"][0]["results"][0]["name"] == "strong version_0"
    with pytest.raises(EmolightError, match=r"^There is no predictions file"):
        main([str(logs), str(empty)])


def test_runs_of_a_cross_validation_are_not_listed_by_themselves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_crossval(tmp_path / "logs" / "cv", 0.8)
    found, skipped = find_results([tmp_path])
    assert ([result.name for result in found], skipped) == (["cv"], [])
    (row,) = as_json(capsys, folder)["groups"][0]["results"]
    assert (row["kind"], row["seeds"], row["test_scored"], row["clips"]) == ("crossval", 2, 2, 160)
    assert [result.folder for result in find_results([folder / "runs" / "seed0"])[0]] == [folder / "runs" / "seed0"]


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
    with pytest.raises(EmolightError, match=r"no result in .* 1 cannot be ranked, one is skipped lightning_logs"):
        main([])
    write_run(tmp_path / "lightning_logs" / "done" / "version_0", predictions(0.8))
    assert "done version_0" in shown(capsys)


def test_a_folder_given_twice_counts_once_and_equal_names_become_folders(logs: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "elsewhere" / "strong" / "version_0", predictions(0.6, 9))
    found, _ = find_results([logs, logs / "strong", logs / "weak" / ".." / "weak" / "version_0", other])
    assert sorted(result.name for result in found) == sorted(
        ["middle version_0", "weak version_0", str(logs / "strong" / "version_0"), str(other)]
    )


def test_csv_holds_every_group_in_full_precision(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(logs / "leaky" / "version_0", predictions(0.99), "random seed 0", "val", scored=0)
    path, document = tmp_path / "new" / "all.csv", tmp_path / "all.json"
    assert "strong" in shown(capsys, logs, "--csv", path, "--json", document)
    rows = list(csv.DictReader(path.open(newline="")))
    found = json.loads(document.read_text())["groups"]
    plain = [row for group in found for row in group["results"]]
    assert len(rows) == 4
    for row, expected in zip(rows, plain, strict=True):
        assert float(row["uar"]) == expected["uar"]
        assert row["seeds"] == "1"
        assert row["p_holm"] == ("" if expected["p_holm"] is None else str(expected["p_holm"]))
        assert row["commit"] == "abc"
    assert {row["protocol"] for row in rows} == {"emobox6 fold 1", "random seed 0"}
    assert {"corpus", "task", "clips scored", "split", "selection", "folder", "test_scored"} <= rows[0].keys()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):  # which the command line tells in two lines
        main([str(logs), "--csv", str(tmp_path / "file" / "all.csv")])


def test_footnotes_stand_where_they_are_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    once = write_run(tmp_path / "once" / "version_0", predictions(0.8, 1))
    assert not {"validation:", "lead:", "note:"} & set(shown(capsys, once).split())
    twice = write_run(tmp_path / "twice" / "version_0", predictions(0.7, 2), scored=2)
    text = shown(capsys, once, twice)
    assert "test scored: how often" in text
    assert "lead: UAR of number 1" in text
    assert "seeds: of one seed" in text
    assert "validation:" not in text
    seen = write_run(tmp_path / "seen" / "version_0", predictions(0.8, 3), subset="val", scored=0)
    assert "validation:" in shown(capsys, seen).split()


def test_one_speaker_gives_no_interval_and_few_give_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for count in (1, 4):
        folders = [
            write_run(tmp_path / f"{name}{count}" / "version_0", predictions(right, 3, speakers=count), "loso fold 1")
            for name, right in (("one", 0.9), ("two", 0.3))
        ]
        (group,) = as_json(capsys, *folders)["groups"]
        assert (group["results"][0]["uar_low"] is None) == (count == 1)
        assert (group["pairs"][0]["high"] is None) == (count == 1)
        assert not group["pairs"][0]["differs"]
        text = shown(capsys, *folders)
        assert ("intervals by speaker say nothing" if count == 1 else "the intervals by speaker are too narrow") in text
        assert f"p is never below {2 / 2**count:.3g}" in text


def test_tables_fit_100_columns_align_numbers_and_keep_markup_in_names(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(logs / ("a_name_that_" + "goes_on_" * 6) / "version_0", predictions(1.0, 4))
    write_run(logs / "[red]x" / "version_0", predictions(0.0, 4), scored=12)
    main([str(logs), "--pairs"])
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 100
    main([str(logs)])
    lines = capsys.readouterr().out.splitlines()
    starts = [line for line in lines if line[:3].strip().isdigit()]
    assert len(starts) == 5
    # In every row the UAR ends in the same column, whether it is 100.0, 75.0 or 0.0.
    assert len({line.find(".") for line in starts}) == 1
    assert "100.0" in next(line for line in starts if line.startswith("1"))
    assert "[red]x" in "".join(lines)
    assert "…" not in "".join(lines)
    assert len(make_groups(find_results([logs])[0])[0]["pairs"]) == 10


def test_a_table_is_speaker_independent_where_every_result_is(logs: Path) -> None:
    one, *others = find_results([logs])[0]
    other = one._replace(speaker_independent=False)
    for results, independent in (([one, *others], True), ([other, *others], False), ([*others, other], False)):
        assert [group["speaker_independent"] for group in make_groups(results)] == [independent]
