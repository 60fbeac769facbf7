"""The sweep's YAML: what it refuses and names, what the trials get, and that the shipped ones work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from emolight.errors import EmolightError
from emolight.experiments.crossval import full_config
from emolight.sweep.space import changes, check_sweep, fingerprint, options_of, plain, read_sweep, suggest

PROJECT = Path(__file__).resolve().parents[2]
SWEEPS = sorted((PROJECT / "sweeps").glob("*.yaml"))
MFCC = str(PROJECT / "configs" / "mfcc.yaml")
LEARNING_RATE = {"low": 3e-4, "high": 5e-3, "log": True}
MODE = {
    "choices": ["spectrogram", "mel", "mfcc"],
    "with": {"spectrogram": {"model.features.f_max": 2500, "data.emotions": ["calm", "sad"]}},
}
N_MELS = {"low": 40, "high": 128, "step": 8, "when": {"model.features.mode": ["mel", "mfcc"]}}
N_MFCC = {"low": 13, "high": 40, "when": {"model.features.mode": "mfcc"}}
SPACE = {
    "model.features.mode": {"choices": ["spectrogram", "mel", "mfcc"], "with": {"mel": {"data.batch_size": 16}}},
    "model.features.n_mels": N_MELS,
    "model.features.n_mfcc": N_MFCC,
    "model.learning_rate": LEARNING_RATE,
}


def written(folder: Path, **changed: Any) -> Path:
    """A sweep's YAML with some keys changed."""
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"config": MFCC, "space": SPACE, **changed}, sort_keys=False))
    return path


def of(option: str, **values: Any) -> dict[str, Any]:
    """A space of one parameter."""
    return {option: values}


def test_read_gives_what_stands_there_and_defaults(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path, trials=5, folds=[2, 3]))
    assert (sweep.name, sweep.trials, sweep.folds, sweep.seeds, sweep.epochs) == ("mine", 5, (2, 3), (0,), None)
    assert sweep.config == (Path(MFCC),)
    assert (sweep.objectives, sweep.pruner) == ({"val/uar": "maximize"}, {"name": "hyperband"})
    assert list(sweep.space) == list(SPACE)
    assert sweep.space["model.features.n_mfcc"].when == {"model.features.mode": ("mfcc",)}
    assert sweep.space["model.features.n_mels"].integer
    assert not sweep.space["model.learning_rate"].integer


def test_a_number_without_a_point_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"config: {MFCC}\nspace:\n  model.learning_rate: {{low: 3e-4, high: 5E-3, log: true}}\n")
    parameter = read_sweep(path).space["model.learning_rate"]
    assert (parameter.low, parameter.high) == (3e-4, 5e-3)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"trails": 3}, "Did you mean 'trials'"),
    ({"space": of("model.learning_rate", loww=1, high=2)}, "Did you mean 'low'"),
    ({"space": of("model.learning_rate", low=1, hihg=2)}, "Did you mean 'high'"),
    ({"space": of("model.learning_rate", low=1e-3, high=2e-3, logg=True)}, "Did you mean 'log'"),
    ({"space": of("model.features.n_mels", low=8, high=16, setp=8)}, "Did you mean 'step'"),
    ({"space": of("model.features.mode", choises=["mel"])}, "Did you mean 'choices'"),
    ({"space": of("model.features.mode", choices=["mel"], wiht={})}, "Did you mean 'with'"),
    ({"space": {**SPACE, "data.trim_db": {"low": 20, "high": 40, "whn": {}}}}, "Did you mean 'when'"),
    ({"space": {**SPACE, "data.trim_db": {"low": 20, "high": 40, "when": {"model.features.mod": "mel"}}}}, "mode'"),
    (
        {"space": {**SPACE, "data.trim_db": {"low": 20, "high": 40, "when": {"model.features.mode": "mell"}}}},
        "'mel'",
    ),
    ({"space": of("model.features.mode", choices=["mfcc", "mel"], **{"with": {"mfc": {}}})}, "Did you mean 'mfcc'"),
    ({"space": {"model.features.n_mfcc": N_MFCC, "model.features.mode": {"choices": ["mfcc"]}}}, "Move it above"),
    (
        {
            "space": {
                "model.learning_rate": LEARNING_RATE,
                "data.trim_db": {"low": 1, "high": 2, "when": {"model.learning_rate": 1}},
            }
        },
        "a range",
    ),
    ({"space": {"model": {"learning_rate": LEARNING_RATE}}}, "model.learning_rate"),
    ({"space": of("model.learning_rate", low=5e-3, high=3e-4)}, "above high"),
    ({"space": of("model.learning_rate", low=0.0, high=3e-4, log=True)}, "starts above 0"),
    ({"space": of("model.features.n_mels", low=8, high=16, step=2, log=True)}, "log and step"),
    ({"space": of("model.features.n_mels", low=8, high=17, step=4)}, "The last that they meet is 16"),
    ({"space": of("model.features.n_mels", low=8, high=16, step=0.5)}, "low: 8.0"),
    ({"space": of("model.features.n_mels", low="x", high=16)}, "must be a number"),
    ({"space": of("model.features.n_mels", low=True, high=16)}, "must be a number"),
    ({"space": of("model.features.n_mels", low=16)}, "no `high`"),
    ({"space": of("model.features.mode", choices=[])}, "at least one"),
    ({"space": of("model.features.mode", choices=["mel", "mel"])}, "equal"),
    ({"space": of("model.features.mode", choices=["mel"], low=1)}, "choices and low"),
    ({"space": of("data.channels", choices=[["speech"]])}, "cannot be compared"),
    ({"space": of("trainer.devices", choices=[[0], [1]])}, "a list"),
    ({"space": of("data.fold", choices=[1, 2])}, "folds: [1, 2]"),
    ({"space": of("seed_everything", low=0, high=9)}, "seeds: [0, 1]"),
    ({"space": of("trainer.max_epochs", low=3, high=9)}, "epochs: N"),
    ({"space": of("data.protocol", choices=["luna5"])}, "cannot be compared"),
    ({"space": {"model.features.mode": MODE}}, "cannot set data.emotions"),
    ({"space": {**SPACE, "data.batch_size": {"choices": [16]}}}, "parameter itself"),
    ({"objectives": {"val/uar": "maximise"}}, "Did you mean 'maximize'"),
    ({"sampler": "tep"}, "Did you mean 'tpe'"),
    ({"pruner": "hyperbnad"}, "Did you mean 'hyperband'"),
    ({"pruner": {"name": "median", "n_warmup_step": 1}}, "Did you mean 'n_warmup_steps'"),
    ({"pruner": {"name": "hyperband", "reduction_factor": 1}}, "at least 2"),
    ({"pruner": {"name": "none", "min_resource": 1}}, "Unknown key 'min_resource'"),
    ({"trials": 0}, "at least 1"),
    ({"epochs": 2.5}, "whole number"),
    ({"timeout": 0}, "above 0"),
    ({"seeds": []}, "seeds is"),
    ({"folds": [1, 1]}, "folds is"),
    ({"name": "../x"}, "name of a folder"),
    ({"config": "mfccc.yaml"}, "no configuration file"),
    ({"space": {}}, "`space` is missing"),
]


@pytest.mark.parametrize(("changed", "part"), WRONG, ids=[part for _, part in WRONG])
def test_read_refuses(tmp_path: Path, changed: dict[str, Any], part: str) -> None:
    with pytest.raises(EmolightError) as error:
        read_sweep(written(tmp_path, **changed))
    assert part in str(error.value)
    assert "mine.yaml" in str(error.value)
    assert len(str(error.value).splitlines()) <= 3


def test_a_key_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("config: x\nspace:\n  a.b: {low: 1, high: 2}\n  a.b: {low: 1, high: 3}\n")
    with pytest.raises(EmolightError, match=r"'a\.b' stands there twice"):
        read_sweep(path)


def test_a_mistyped_file_names_the_nearest(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(EmolightError, match=r"Did you mean 'mine\.yaml'"):
        read_sweep(tmp_path / "mien.yaml")


UNFIT: list[tuple[dict[str, Any], list[str], str]] = [
    ({"space": of("model.features.n_melz", low=8, high=16)}, [], "Did you mean 'model.features.n_mels'"),
    ({"space": of("model.features.mode", choices=["mel", "mfc"])}, [], "Did you mean 'mfcc'"),
    ({"space": of("model.features.n_mels", low=40, high=60.5)}, [], "model.features.n_mels is '60.5'"),
    ({"space": of("model.features", choices=["mel"])}, [], "a group of options"),
    (
        {"space": of("model.features.mode", choices=["mel"], **{"with": {"mel": {"data.batch": 1}}})},
        [],
        "batch_size",
    ),
    ({"space": of("model.learning_rate", low=0.0, high=1e-3)}, [], "model.learning_rate is 0"),
    ({"space": of("data.batch_size", low=0, high=8)}, [], "data.batch_size is 0"),
    ({"space": of("model.features.n_mels", low=24, high=64)}, [], "n_mfcc is 40; it must be from 1 to n_mels = 24"),
    (
        {
            "space": {
                "model.features.n_mels": {"low": 32, "high": 64},
                "model.features.n_mfcc": {"low": 13, "high": 40},
            }
        },
        [],
        "At: model.features.n_mels 32, model.features.n_mfcc 40",
    ),
    (
        {
            "space": {
                "model.features.f_min": {"low": 0.0, "high": 2600.0},
                "model.features.f_max": {"choices": [None, 2500]},
            }
        },
        [],
        "f_min is 2600",
    ),
    (
        {
            "space": {
                "model.features.n_fft": {"choices": [1024, 256]},
                "model.features.n_mels": {"low": 40, "high": 128},
            }
        },
        [],
        "mel bins are empty",
    ),
    ({}, ["--model.learning_rate=1"], "the space of the sweep 'mine' sets it"),
    ({}, ["--data.batch_size", "8"], "the space of the sweep 'mine' sets it"),
    ({}, ["--data.fold", "2"], "cannot be given to a sweep"),
    ({}, ["--data.rot", "x"], "Did you mean 'data.root'"),
    ({"folds": [7]}, [], "has no fold 7"),
    ({"folds": []}, [], "folds is empty"),
    ({}, ["--data.protocol=random"], "Set `folds: []`"),
    ({"objectives": {"val/uarr": "maximize"}}, [], "Did you mean 'val/uar'"),
    ({"objectives": {"val/recall_clam": "maximize"}}, [], "Did you mean 'val/recall_calm'"),
    ({"objectives": {"test/uar": "maximize"}}, [], "validation clips only: val/uar"),
    ({"objectives": {"parameters": "minimize"}}, [], "No objective is a validation metric"),
]


@pytest.mark.parametrize(("changed", "given", "part"), UNFIT, ids=[part for _, _, part in UNFIT])
def test_check_refuses_before_any_trial(
    tmp_path: Path, changed: dict[str, Any], given: list[str], part: str
) -> None:
    sweep = read_sweep(written(tmp_path, **changed))
    with pytest.raises(EmolightError) as error:
        check_sweep(sweep, given)
    assert part in str(error.value)
    assert len(str(error.value).splitlines()) <= 3


def test_every_end_is_checked_where_it_exists(tmp_path: Path) -> None:
    # 13 to 200 coefficients of 40 mel bins only fail under mfcc, the last of the choices.
    space = {**SPACE, "model.features.n_mfcc": {**N_MFCC, "high": 200}}
    with pytest.raises(EmolightError, match="n_mfcc is 200"):
        check_sweep(read_sweep(written(tmp_path, space=space)), [])
    space["model.features.n_mfcc"]["when"] = {"model.features.mode": "mel"}
    check_sweep(read_sweep(written(tmp_path, space=space)), [])


def test_check_gives_the_configuration_of_a_trial(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path, epochs=3, folds=[], objectives={"val/recall_sad": "maximize"}))
    base = check_sweep(sweep, ["--data.protocol=random", "--data.root=elsewhere", "--trainer.precision=bf16-mixed"])
    assert base["trainer"]["max_epochs"] == 3
    assert base["trainer"]["precision"] == "bf16-mixed"
    assert base["data"]["root"] == "elsewhere"


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_shipped_sweeps(path: Path, here: Path) -> None:
    sweep = read_sweep(path)
    check_sweep(sweep, [])
    assert sweep.epochs
    assert not list(here.iterdir()), "a check writes nothing"


def test_features_is_the_three_shipped_recipes() -> None:
    sweep = read_sweep(PROJECT / "sweeps" / "features.yaml")
    assert list(sweep.space) == [
        "model.features.mode",
        "model.features.n_mels",
        "model.features.n_mfcc",
        "model.learning_rate",
    ]
    for mode in ("spectrogram", "mel", "mfcc"):
        words = [f"--config={file}" for file in sweep.config] + options_of(sweep, {"model.features.mode": mode})
        found = full_config([word for one in words for word in one.split("=", 1)])
        alone = full_config(["--config", str(PROJECT / "configs" / f"{mode}.yaml")])
        assert found["data"] == alone["data"]
        assert found["model"] == alone["model"]


def test_suggest_gives_conditional_parameters_only_where_they_exist(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    modes = set()
    for _ in range(30):
        trial = study.ask()
        found = suggest(sweep, trial)
        mode = found["model.features.mode"]
        modes.add(mode)
        assert found == trial.params
        assert ("model.features.n_mels" in found) == (mode in ("mel", "mfcc"))
        assert ("model.features.n_mfcc" in found) == (mode == "mfcc")
        assert 3e-4 <= found["model.learning_rate"] <= 5e-3
        if mode != "spectrogram":
            assert type(found["model.features.n_mels"]) is int
            assert found["model.features.n_mels"] % 8 == 0
        study.tell(trial, 0.0)
    assert modes == {"spectrogram", "mel", "mfcc"}


def test_a_child_of_a_parameter_that_is_absent_is_absent(tmp_path: Path) -> None:
    space = {
        "model.features.mode": {"choices": ["mel", "mfcc"]},
        "model.features.n_fft": {"choices": [512, 1024], "when": {"model.features.mode": "mfcc"}},
        "model.features.hop_length": {"low": 256, "high": 512, "when": {"model.features.n_fft": 1024}},
    }
    sweep = read_sweep(written(tmp_path, space=space))
    fixed = {"model.features.mode": "mel", "model.features.n_fft": 1024, "model.features.hop_length": 300}
    assert suggest(sweep, optuna.trial.FixedTrial(fixed)) == {"model.features.mode": "mel"}
    assert suggest(sweep, optuna.trial.FixedTrial({**fixed, "model.features.mode": "mfcc"})) == {
        **fixed,
        "model.features.mode": "mfcc",
    }


def test_options_reach_fit_as_they_are(tmp_path: Path) -> None:
    space = {
        "model.class_weights": {
            "choices": [True, False],
            "with": {True: {"model.augment.noise_db": None, "trainer.limit_train_batches": 3}},
        },
        "model.learning_rate": {"low": 1e-6, "high": 1e-2, "log": True},
        "trainer.precision": {"choices": ["32-true", "bf16-mixed"]},
    }
    sweep = read_sweep(written(tmp_path, space=space))
    options = options_of(
        sweep, {"model.class_weights": True, "model.learning_rate": 1.5e-6, "trainer.precision": "bf16-mixed"}
    )
    assert options[:2] == ["--model.class_weights=true", "--model.learning_rate=1.5e-06"]
    config = full_config(["--config", MFCC, *options])
    model = config["model"]
    assert (model["class_weights"], model["learning_rate"]) == (True, 1.5e-6)
    assert model["augment"]["noise_db"] is None
    assert config["trainer"]["limit_train_batches"] == 3
    assert config["trainer"]["precision"] == "bf16-mixed"
    assert "noise_db" not in str(options_of(sweep, {"model.class_weights": False}))


def test_changes_name_what_is_different(tmp_path: Path) -> None:
    before = plain(read_sweep(written(tmp_path)))
    assert json.loads(json.dumps(before)) == before
    other = {**SPACE, "model.learning_rate": {**LEARNING_RATE, "high": 1e-2}}
    after = plain(read_sweep(written(tmp_path, space=other, trials=99, pruner="none")))
    assert changes(before, after) == ["space.model.learning_rate.high: 0.005 -> 0.01"]
    assert fingerprint(before) != fingerprint(after)
    del other["model.features.n_mfcc"]
    gone = changes(before, plain(read_sweep(written(tmp_path, space=other, seeds=[0, 1]))))
    assert "space.model.features.n_mfcc.low: 13 -> not there" in gone
    assert "seeds: [0] -> [0, 1]" in gone


def test_the_budget_does_not_change_the_search(tmp_path: Path) -> None:
    before = plain(read_sweep(written(tmp_path)))
    after = plain(read_sweep(written(tmp_path, trials=99, pruner="none", sampler="random", name="other")))
    assert changes(before, after) == []
    assert fingerprint(before) == fingerprint(after)


def test_a_changed_configuration_is_another_search(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("model: {features: {n_fft: 512}}\n")
    sweep = read_sweep(written(tmp_path, config=[MFCC, "own.yaml"]))
    before = plain(sweep)
    own.write_text("model: {features: {n_fft: 2048}}\n")
    assert changes(before, plain(sweep)) == ["config.model.features.n_fft: 512 -> 2048"]
