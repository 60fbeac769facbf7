"""Without a clone: the wheel in a fresh environment, from an empty folder, with the recipes that come along."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.accelerator=cpu"]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel, and beside it the packages of this environment."""
    place = tmp_path_factory.mktemp("wheel")
    source, home = place / "source", place / "environment"
    for name in ("emolight", "configs", "sweeps"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.csv"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    built = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(place), str(source)]
    subprocess.run([*pip, *built], check=True, capture_output=True)
    venv.create(home, with_pip=False, symlinks=True)
    packages = next(home.glob("lib/python*/site-packages"))
    (packages / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    taken = ["--python", str(home / "bin" / "python"), "install", "--no-deps", "--no-index", "--force-reinstall"]
    subprocess.run([*pip, *taken, str(next(place.glob("*.whl")))], check=True, capture_output=True)
    return home / "bin"


def test_the_demo_runs_from_an_empty_folder(scripts: Path, corpus: Path, here: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["XDG_CACHE_HOME"] = str(here / "cache")

    def said(*words: str) -> str:
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    emolight, python = str(scripts / "emolight"), str(scripts / "python")
    place = "import emolight; from emolight.run.words import shipped; print(emolight.__file__, shipped('configs'))"
    assert said(python, "-c", place).count(str(scripts.parent)) == 2
    shutil.copytree(corpus, here / "data" / "synthetic")  # else the demo makes one of twice the size
    told = said(emolight, "fit", "--config", "demo", "--config", "early_stopping", *SMALL)
    assert told.rstrip().endswith("python -m emolight fit --config mfcc --data.corpus mine.csv")
    assert {path.name for path in here.iterdir()} == {"lightning_logs", "data", "cache"}
    assert list((here / "lightning_logs" / "splits").glob("*.csv"))
    sweep = "from emolight.sweep.space import read_sweep; from emolight.run.words import shipped; "
    sweep += "print(read_sweep(shipped('sweeps') / 'demo.yaml').config)"
    assert "demo.yaml" in said(python, "-c", sweep)
    said(emolight, "recipes", ".")
    copies = {path.relative_to(here).as_posix() for path in here.glob("*/**/*.yaml") if "lightning" not in str(path)}
    assert copies == {
        path.relative_to(ROOT).as_posix() for kind in ("configs", "sweeps") for path in (ROOT / kind).rglob("*.yaml")
    }
