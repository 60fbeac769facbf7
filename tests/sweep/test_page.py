from __future__ import annotations

import csv
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from optuna.trial import TrialState, create_trial

from emolight.experiments.crossval import full_config
from emolight.pages import Picture
from emolight.sweep.found import importances, read_found, short
from emolight.sweep.page import dashboard_command, print_sweep, write_sweep
from emolight.sweep.space import Parameter, Sweep, suggest
from emolight.sweep.tables import group_sheet

from ..small import CONFIGS

MODE, MELS, COEFFICIENTS, RATE = (
    *("model.features.mode", "model.features.n_mels"),
    *("model.features.n_mfcc", "model.learning_rate"),
)
SPACE = {
    MODE: Parameter(
        ("spectrogram", "mel", "mfcc"),
        brings=(("spectrogram", {"model.features.f_max": 2500, "model.features.hop_length": 640}),),
    ),
    MELS: Parameter(low=40, high=128, step=8, when={MODE: ("mel", "mfcc")}),
    COEFFICIENTS: Parameter(low=13, high=40, when={MODE: ("mfcc",)}),
    RATE: Parameter(low=3e-4, high=5e-3, log=True),
}
TWO = {"val/uar": "maximize", "parameters": "minimize"}
HOSTILE = "<script>alert(1)</script>"
PICTURES = {
    name: Picture("data:image/svg+xml,", "", 600, 400)
    for name in ("history", "curves", "importances", "parallel", "slices", "pareto")
}


def sweep_of(space: dict[str, Parameter] = SPACE, **changed: Any) -> Sweep:
    settings: dict[str, Any] = {
        **{"name": "features", "config": (CONFIGS / "mfcc.yaml",), "space": space},
        **{"objectives": {"val/uar": "maximize"}, "trials": 16, "epochs": 12, "timeout": None, "sampler": "tpe"},
        **{
            "pruner": {"name": "hyperband"},
            "folds": (1,),
            "seeds": (0,),
            "sampler_seed": 0,
            "devices_per_trial": 1,
            "checkpoints": "best",
        },
    }
    return Sweep(**{**settings, **changed})


def study_of(sweep: Sweep, trials: int = 16, seed: int = 0, plain: bool = False) -> optuna.Study:
    """A study in which MFCC and a learning rate near 0.002 are good; the worse half is pruned.

    Args:
        sweep: its space and objectives.
        trials: how many.
        seed: of everything.
        plain: only complete trials.
    """
    ways, chance = list(sweep.objectives.values()), np.random.default_rng(seed)
    study = optuna.create_study(directions=ways, sampler=optuna.samplers.RandomSampler(seed=seed))
    for number in range(trials):
        trial = study.ask()
        found = suggest(sweep, trial)
        top = {"spectrogram": 0.44, "mel": 0.55, "mfcc": 0.62}.get(found.get(MODE, "mel"), 0.5)
        top -= 0.08 * abs(np.log10(found.get(RATE, 2e-3) / 2e-3)) + 0.02 * chance.random()
        steps = [float(top - 0.35 * np.exp(-0.3 * epoch) + 0.015 * chance.normal()) for epoch in range(12)]
        trial.set_user_attr("seconds", 61.5)
        trial.set_user_attr("epochs", 12)
        trial.set_user_attr("folders", [f"lightning_logs/features/trial_{number:04d}/version_0"])
        if len(ways) > 1:
            study.tell(trial, [max(steps), 11_170_000 + 9_000 * found.get(MELS, 0) * chance.random()])
        elif not plain and number == 5:
            trial.set_user_attr("error", f"The loss is not finite {HOSTILE}.\nLower the learning rate.")
            study.tell(trial, state=TrialState.FAIL)
        elif not plain and number > 4 and number % 2 and top < 0.61:
            for step, value in enumerate(steps[: 2 + number % 5]):
                trial.report(value, step + 1)
            trial.set_user_attr("epochs", 2 + number % 5)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            for step, value in enumerate(steps):
                trial.report(value, step + 1)
            study.tell(trial, max(steps))
    return study


def add_retry(study: optuna.Study, number: int) -> None:
    """A trial that was lost, and its retry, as Optuna's heartbeat leaves them."""
    old = study.trials[number]
    same = {"params": old.params, "distributions": old.distributions}
    study.add_trial(create_trial(state=TrialState.FAIL, **same))
    lost = study.trials[-1].number
    retry = {"failed_trial": lost, "retry_history": [lost]}
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.5, system_attrs=retry, **same))


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    return full_config(["--config", str(CONFIGS / "mfcc.yaml"), "--trainer.max_epochs=12"])


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is drawn, where a test is about tables and words."""
    monkeypatch.setattr("emolight.sweep.page._plots", lambda *_: PICTURES)


class Read(HTMLParser):
    """Text, rows of tables, targets of links, and addresses that would leave the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.text = " ".join(re.sub(r"<(script|style)>.*?</\1>|<[^>]*>", " ", text, flags=re.S).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.ids.add(found.get("id") or "")
        self.sources += [found["src"] or ""] if "src" in found else []
        self.links |= {found["href"] or ""} if "href" in found else set()
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data: str) -> None:
        if self.rows and data.strip() and self.tags[-1] in ("td", "span", "small", "th"):
            self.rows[-1].append(data.strip())


def test_everything_is_written_and_best_yaml_is_the_best_trial(tmp_path: Path, base: dict[str, Any]) -> None:
    sweep = sweep_of()
    study = study_of(sweep)
    add_retry(study, 2)
    write_sweep(study, sweep, tmp_path, base, "sqlite:///study.db")
    best = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert full_config(["--config", str(tmp_path / "best.yaml")]) == best
    features = best["model"]["features"]
    assert {MODE: features["mode"], MELS: features["n_mels"], COEFFICIENTS: features["n_mfcc"]} == {
        name: value for name, value in study.best_params.items() if name != RATE
    }
    assert best["model"]["learning_rate"] == study.best_params[RATE]
    assert (best["data"]["fold"], best["trainer"]["max_epochs"], best["name"]) == (1, 12, "features/best")
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    assert plots == {f"{name}.png" for name in ("history", "curves", "importances", "parallel", "slices")}
    page = Read((tmp_path / "sweep.html").read_text())
    assert len(page.sources) == 5
    assert all(source.startswith("data:") for source in page.sources)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert f"{100 * study.best_value:.1f}" in page.text
    assert "--protocol emobox6" in page.text
    assert "flattered" in page.text


def test_options_that_a_choice_brings_along_are_in_best_yaml(
    tmp_path: Path, base: dict[str, Any], no_figures: None
) -> None:
    sweep = sweep_of(folds=(2, 3), seeds=(7, 8))
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    trial.suggest_categorical(MODE, ["spectrogram", "mel", "mfcc"])
    study.tell(trial, state=TrialState.FAIL)
    kinds = trial.study.trials[0].distributions
    study.add_trial(create_trial(value=0.4, params={MODE: "spectrogram"}, distributions=kinds))
    write_sweep(study, sweep, tmp_path, base, "sqlite:///study.db")
    best = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert (best["model"]["features"]["f_max"], best["model"]["features"]["hop_length"]) == (2500, 640)
    assert (best["data"]["fold"], best["seed_everything"]) == (2, 7)
    assert "comes with the choice" in (tmp_path / "sweep.html").read_text()


def test_trials_csv_has_every_trial_its_error_and_its_retry(
    tmp_path: Path, base: dict[str, Any], no_figures: None
) -> None:
    sweep = sweep_of()
    study = study_of(sweep)
    add_retry(study, 2)
    study.enqueue_trial({})  # a slot that was never taken is no trial
    write_sweep(study, sweep, tmp_path, base, "sqlite:///study.db")
    with (tmp_path / "trials.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    head = ["number", "state", "val/uar", MODE, MELS, COEFFICIENTS, RATE, "epochs", "seconds", "run", "error"]
    assert list(rows[0]) == head
    assert [int(row["number"]) for row in rows] == list(range(18))
    for row, trial in zip(rows, study.trials, strict=False):
        assert row["state"] == trial.state.name
        assert row["val/uar"] == ("" if trial.value is None else str(trial.value))
        assert {name: row[name] for name in SPACE} == {name: str(trial.params.get(name, "")) for name in SPACE}
    assert rows[5]["error"] == f"The loss is not finite {HOSTILE}. Lower the learning rate."
    assert "trial 17 has its parameters" in rows[16]["error"]
    assert rows[0]["run"] == "lightning_logs/features/trial_0000/version_0"
    pruned = next(row for row in rows if row["state"] == "PRUNED")
    assert int(pruned["epochs"]) == len(study.trials[int(pruned["number"])].intermediate_values)
    text = (tmp_path / "sweep.html").read_text()
    assert HOSTILE not in text
    assert "alert(1)" in Read(text).text


def test_best_configuration_per_mode_is_the_best_complete_one() -> None:
    sweep = sweep_of()
    study = study_of(sweep, 40)
    sheet = group_sheet(read_found(study, sweep))
    assert sheet is not None
    best = {
        mode: max(
            one.value for one in study.trials if one.params.get(MODE) == mode and one.state.name == "COMPLETE"
        )
        for mode in ("spectrogram", "mel", "mfcc")
    }
    assert {row[0].text: row[1].key for row in sheet.rows} == best
    assert [row[1].key for row in sheet.rows] == sorted(best.values(), reverse=True)


def test_two_objectives_give_a_front_whose_best_uar_is_best_yaml(tmp_path: Path, base: dict[str, Any]) -> None:
    sweep = sweep_of(objectives=TWO)
    study = study_of(sweep)
    stale = tmp_path / "pareto" / "trial_9999.yaml"
    stale.parent.mkdir()
    stale.write_text("")
    write_sweep(study, sweep, tmp_path, base, "sqlite:///study.db")
    front = {trial.number for trial in study.best_trials}
    assert len(front) > 1
    assert {path.name for path in stale.parent.iterdir()} == {f"trial_{number:04d}.yaml" for number in front}
    best = max(study.trials, key=lambda trial: trial.values[0])
    told = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert told["model"]["learning_rate"] == best.params[RATE]
    assert (tmp_path / "plots" / "pareto.png").is_file()
    page = Read((tmp_path / "sweep.html").read_text())
    assert {"pareto", "history", "slices"} <= page.ids
    assert "curves" not in page.ids  # Optuna takes no reports where there are several objectives


@pytest.mark.parametrize(("space", "trials"), [(SPACE, 1), ({RATE: SPACE[RATE]}, 4)])
def test_one_trial_or_one_parameter_is_enough(
    tmp_path: Path, base: dict[str, Any], space: dict[str, Parameter], trials: int
) -> None:
    sweep = sweep_of(space)
    write_sweep(study_of(sweep, trials, plain=True), sweep, tmp_path, base, "sqlite:///study.db")
    page = Read((tmp_path / "sweep.html").read_text())
    assert "There are no importances" in page.text
    assert ("groups" in page.ids) == (len(space) > 1)
    assert not (tmp_path / "plots" / "importances.png").exists()
    assert (tmp_path / "plots" / "slices.png").is_file()


def test_without_a_complete_trial_the_page_says_so(
    tmp_path: Path, base: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = sweep_of()
    study = study_of(sweep, 0)
    trial = study.ask()
    suggest(sweep, trial)
    trial.set_user_attr("error", "No recordings.")
    study.tell(trial, state=TrialState.FAIL)
    (tmp_path / "best.yaml").write_text("of an earlier study")
    write_sweep(study, sweep, tmp_path, base, "sqlite:///study.db")
    page = Read((tmp_path / "sweep.html").read_text())
    assert "No trial is complete" in page.text
    assert "No recordings." in page.text
    assert not (tmp_path / "best.yaml").exists()
    print_sweep(study, sweep, tmp_path, "sqlite:///study.db")
    assert "No trial is complete" in capsys.readouterr().out
    write_sweep(study_of(sweep, 0), sweep, tmp_path, base, "sqlite:///study.db")
    assert "No trial was begun" in (tmp_path / "sweep.html").read_text()


def test_printed_are_best_importances_page_and_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = sweep_of()
    study = study_of(sweep, 30)
    print_sweep(study, sweep, tmp_path, "postgresql+psycopg://me:geheim@host:5432/emo?sslpassword=geheim")
    out = capsys.readouterr().out
    assert "geheim" not in out
    assert "optuna-dashboard postgresql+psycopg://me@host:5432/emo\n" in out
    assert f"{100 * study.best_value:.1f}\u00a0%" in out
    assert f"{MODE}  mfcc" in out
    assert "PED-ANOVA" in out
    assert str(tmp_path / "sweep.html") in out
    assert f"python -m emolight sweep retrain --config {tmp_path} --protocol emobox6" in out


def test_passwords_are_not_on_the_page(tmp_path: Path, base: dict[str, Any], no_figures: None) -> None:
    sweep = sweep_of()
    write_sweep(study_of(sweep, 3), sweep, tmp_path, base, "postgresql://me:geheim@host/emo")
    assert "geheim" not in "".join(path.read_text() for path in tmp_path.iterdir())
    assert dashboard_command("sqlite:///a b.db") == "optuna-dashboard 'sqlite:///a b.db'"


def test_importances_find_what_matters() -> None:
    nothing = "model.label_smoothing"
    sweep = sweep_of({MODE: SPACE[MODE], RATE: SPACE[RATE], nothing: Parameter(low=0.0, high=0.2)})
    found = importances(read_found(study_of(sweep, 60, plain=True), sweep))
    assert sum(found.shares.values()) == pytest.approx(1)
    assert list(found.shares)[-1] == nothing
    assert "the best 6 of the 60 complete trials" in found.note
    assert "conditional" not in found.note


def test_importances_say_what_is_conditional() -> None:
    sweep = sweep_of()
    found = importances(read_found(study_of(sweep), sweep))
    assert set(found.shares) == set(SPACE)
    assert "pruned trials do not count" in found.note
    assert "n_mels and n_mfcc are conditional" in found.note
    assert "rough" in found.note


def test_short_names_tell_parameters_apart() -> None:
    names = ["model.learning_rate", "model.features.n_mels", "data.a.size", "data.b.size"]
    assert [short(name, names) for name in names] == ["learning_rate", "n_mels", "a.size", "b.size"]
