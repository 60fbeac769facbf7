"""The YAML of a sweep: what it may say, what a trial gets from it, and what is checked before the first trial."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest

from emolight.errors import EmolightError
from emolight.sweep.space import read_sweep, words_of
from tests.small import CONFIGS

ROOT = Path(__file__).resolve().parents[2]
YAML = f"""
config: {ROOT / "configs" / "mfcc.yaml"}
space:
  model.features.n_fft: {{choices: [512, 1024]}}
  model.features.mode:
    choices: [mel, mfcc]
    with:
      mel: {{data.batch_size: 16, model.augment: null}}
  model.features.n_mfcc: {{low: 13, high: 40, when: {{model.features.mode: mfcc}}}}
  model.learning_rate: {{low: 3e-4, high: 5.0e-3, log: true}}
pruner: {{name: halving, min_resource: 1}}
"""


def write(here: Path, text: str) -> Path:
    path = here / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_trials_options(here: Path) -> None:
    sweep = read_sweep(write(here, YAML), trials=3)
    assert (sweep.name, sweep.trials, sweep.folds, sweep.objectives) == ("x", 3, [1], {"val/uar": "maximize"})
    study, drawn = optuna.create_study(sampler=sweep.make_sampler(0)), []
    for _ in range(20):
        drawn.append(sweep.suggest(study.ask()))
    assert all(("model.features.n_mfcc" in one) == (one["model.features.mode"] == "mfcc") for one in drawn)
    assert all(isinstance(one.get("model.features.n_mfcc", 13), int) for one in drawn)
    rates = [one["model.learning_rate"] for one in drawn]
    assert 3e-4 <= min(rates) < 1e-3 < max(rates) <= 5e-3
    chosen = {"model.features.n_fft": 512, "model.features.mode": "mel", "model.learning_rate": 0.001}
    assert words_of(sweep.settings(chosen)) == [
        "--model.features.mode=mel",  # which chooses the class, before the class' own options
        "--model.features.n_fft=512",
        "--model.learning_rate=0.001",
        "--data.batch_size=16",
        "--model.augment=null",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("low: 13", "lo: 13", "Unknown key in space.model.features.n_mfcc: 'lo'.\nDid you mean 'low'?"),
        ("low: 13", "low: x", "space.model.features.n_mfcc: low cannot be 'x'.\nIt takes int | float | None"),
        ("low: 13", "low: 64", "low=64, high=40"),
        ("low: 13, ", "", "needs choices, or low and high"),
        ("low: 13", "low: 13, step: 10", "not divisible by `step`"),
        ("3e-4", "0", "`low > 0` must hold"),
        ("choices: [mel, mfcc]", "choices: mel", "choices cannot be 'mel'"),
        ("mode: mfcc", "mode: mfc", "Did you mean 'mfcc'?"),
        ("when: {model.features.mode", "when: {model.features.mod", "Did you mean 'model.features.mode'?"),
        ("mel: {", "mell: {", "Unknown choice in space.model.features.mode.with: 'mell'"),
        ("data.batch_size", "model.learning_rate", "which is a parameter itself"),
        ("data.batch_size", "data.root", "data.root is the same in all trials"),
        ("data.batch_size", "data.label", "data.label is the same in all trials"),
        ("model.learning_rate", "trainer.limit_val_batches", "trainer.limit_val_batches is the same in all trials"),
        ("model.learning_rate", "seed_everything", "seed_everything is the same in all trials"),
        ("config", "trails: 3\nconfig", "Unknown key in the sweep: 'trails'.\nDid you mean 'trials'?"),
        ("config", "trials: 0\nconfig", "trials cannot be 0.\nIt takes PositiveInt"),
        ("config", "objectives: {val/uar: max}\nconfig", "objectives cannot be {'val/uar': 'max'}"),
        ("config", "objectives: {}\nconfig", "objectives is empty"),
        ("config", "seeds: []\nconfig", "Write different numbers"),
        ("config", "folds: [1, 1]\nconfig", "Write different numbers"),
        ("name: halving", "name: halvin", "Did you mean 'halving'?"),
        ("min_resource: 1", "min_resource: 0", "pruner: min_resource is 0.\nWrite 1 or more."),
        ("name: halving, min_resource: 1", "name: hyperband, reduction_factor: 1", "Write 2 or more."),
        (
            f"config: {CONFIGS / 'mfcc.yaml'}",
            "config: mfc",
            "There is no configuration file mfc.\nDid you mean 'mfcc'?",
        ),
        ("min_resource", "min_resurce", "unexpected keyword argument 'min_resurce'"),
        (YAML, (ROOT / "configs" / "mfcc.yaml").read_text(), "is a recipe of `fit`, and not a sweep"),
        (YAML, "config: a.yaml\nspace: {}", "space is empty"),
        (YAML, "[x", "expected ',' or ']'"),
        (YAML, "", "the sweep is None.\nExpected keys"),
        (YAML, "path,emotion,speaker", "the sweep is 'path,emotion,speaker'.\nExpected keys"),
        ("choices: [512, 1024]", "choices: []", "needs choices, or low and high"),
    ],
)
def test_mistakes(old: str, new: str, message: str, here: Path) -> None:
    with pytest.raises(EmolightError) as caught:
        read_sweep(write(here, YAML.replace(old, new, 1)))
    assert message in str(caught.value)
    assert "x.yaml" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_a_recipe_by_its_name_or_by_a_file_of_the_sweeps_folder(here: Path) -> None:
    space = "\nspace: {model.mixup: {choices: [0, 0.2]}}"
    (here / "sweeps").mkdir()
    for name in ("own.yaml", "mel.yaml"):  # a name is of the sweep's folder first
        (here / "sweeps" / name).touch()
    read = read_sweep(write(here / "sweeps", "config: [mfcc, robust, own.yaml, mel]" + space))
    assert read.config == [
        str(CONFIGS / "mfcc.yaml"),
        str(CONFIGS / "overlays" / "robust.yaml"),
        str(here.resolve() / "sweeps" / "own.yaml"),
        str(here.resolve() / "sweeps" / "mel.yaml"),
    ]


def test_a_number_for_an_option_is_left_to_fit(here: Path) -> None:
    sweep = read_sweep(write(here, YAML.replace("model.learning_rate:", "3:")))
    assert words_of({3: 1})[0] == "--3=1"
    assert 3 in sweep.space


def test_a_sweep_that_is_not_there(here: Path) -> None:
    write(here, YAML)
    with pytest.raises(EmolightError, match=r"There is no sweep .*y\.yaml"):
        read_sweep(here / "y.yaml")


def test_whole_numbers_stay_whole_whatever_was_parsed_before(here: Path) -> None:
    text = """
from jsonargparse import ArgumentParser
class Other:
    def __init__(self, x: float | int | None = None, y: list[str | float | int | bool | None] | None = None): ...
parser = ArgumentParser()
parser.add_class_arguments(Other)
parser.parse_args(["--x=2", "--y=[2]"])
from pathlib import Path
from emolight.sweep.space import read_sweep
space = read_sweep(Path("x.yaml")).space
print(repr(space["model.features.n_mels"].low), space["model.features.n_fft"].choices, space["a"].low)
"""
    space = "model.features.n_mels: {low: 40, high: 80, step: 8}"
    space += ", model.features.n_fft: {choices: [512, 1024]}, a: {low: 3e-4, high: 1}"
    write(here, f"config: mfcc.yaml\nspace: {{{space}}}\n")
    done = subprocess.run([sys.executable, "-c", text], cwd=here, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "40 [512, 1024] 0.0003"


@pytest.mark.parametrize("key", ["model.network", "model.features", "trainer.callbacks"])
def test_a_class_that_a_file_names_is_not_trusted(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EmolightError, match=rf"{key} names code outside of emolight: 'evil.Net'"):
        words_of({"model.learning_rate": 0.1, key: "evil.Net"})
    monkeypatch.setenv("EMOLIGHT_IMPORTS", "evil")
    assert words_of({key: "evil.Net"}) == [f"--{key}=evil.Net"]


@pytest.mark.parametrize("path", sorted(ROOT.glob("sweeps/*.yaml")), ids=lambda path: path.stem)
def test_shipped_sweeps_reach_only_what_fit_takes(path: Path) -> None:
    from emolight.run.cli import full_config
    from emolight.sweep.trial import ends, make_plan

    sweep = read_sweep(path)
    plan, tried = make_plan(sweep, []), list(ends(sweep))
    assert len(tried) < 10
    for settings in tried:
        full_config([*plan.words, *words_of(settings)])
    for name, parameter in sweep.space.items():
        assert {str(one.get(name)) for one in tried} >= {str(end) for end in parameter.ends}


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--data.rot", "x"], "data.rot"),
        (["--triels", "x"], "triels"),
        (["--model.learning_rate", "0.1"], "--model.learning_rate cannot be given"),
        (["--model.mixup=0.1"], "--model.mixup cannot be given"),
        (["--seed_everything", "1"], "`seeds`"),
        (["--data.fold=2"], "`folds`"),
        (["--data.protocol", "random"], "folds is [1]; those of 'random seed 0' are []"),
        (["--data.corpus=RAVDESS", "--data.root=nowhere"], "nowhere"),
        (["--data.batch_size=0"], "batch_size"),
    ],
)
def test_mistakes_before_the_first_trial(extra: Sequence[str], message: str, words: list[str]) -> None:
    from emolight.sweep.sweep import main

    with pytest.raises(EmolightError) as caught:
        main([*words, *extra])
    assert message in str(caught.value)
    assert not Path("lightning_logs/small").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objectives: {test/uar: maximize}", "test clips choose nothing"),
        ("objectives: {val/recall_angy: maximize}", "Did you mean 'val/recall_angry'?"),
        ("objectives: {parameters: minimize}", "'parameters'"),
        ("folds: [1, 9]", "folds is [1, 9]"),
        ("epochs: null\nconfig: [mfcc, endless.yaml]", "trainer.max_epochs is null"),
    ],
)
def test_objectives_and_folds(text: str, message: str, words: list[str]) -> None:
    from emolight.sweep.sweep import main

    path = Path("small.yaml")
    path.write_text(f"{path.read_text()}\n{text}\n")
    Path("endless.yaml").write_text("trainer: {max_epochs: null, max_steps: 2}")
    with pytest.raises(EmolightError) as caught:
        main(words)
    assert message in str(caught.value)
