"""A sweep on a real PostgreSQL server: the exact budget, lost workers, passwords, mistakes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from emolight import __main__ as command
from emolight.sweep import sweep
from emolight.sweep.storage import open_storage
from emolight.sweep.study import create_study, work
from tests.faults.sweep_workers import cold_start
from tests.small import options
from tests.sweep.postgresql import LEAKS, Server, programs, server
from tests.sweep.test_study import states, wait_for
from tests.sweep.test_sweep import YAML
from tests.sweep.trivial import NAME

pytest.importorskip("psycopg")

NOBODY = "postgresql://me:geheim@127.0.0.1"


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    if programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with server() as one:
        yield one


@pytest.fixture
def url(running: Server) -> str:
    return running.new_database()


@pytest.fixture
def words(corpus: Path, here: Path) -> list[str]:
    (here / "small.yaml").write_text(YAML)
    given = [word for word in options(corpus) if not word.startswith("--trainer.max_epochs")]
    return ["--config", "small.yaml", *given]


def test_four_workers_spend_the_budget_exactly(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cold_start(url, tmp_path), capsys.readouterr().out


def test_parameters_of_a_killed_worker_are_tried_again_within_twice_the_grace_period(url: str) -> None:
    grace = 8
    study = create_study(open_storage(url, 1, grace), NAME, ["maximize"], {"epochs": 2}, 2)
    victim = subprocess.Popen([sys.executable, "-m", "tests.sweep.trivial", url, "600"])
    wait_for(lambda: any("x" in trial.params for trial in study.trials))
    victim.kill()
    victim.wait()
    killed = time.monotonic()
    lost = next(trial for trial in study.trials if trial.state is TrialState.RUNNING)
    again: list[float] = []

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        if x == lost.params["x"]:
            again.append(time.monotonic() - killed)
        return x

    work(study, objective, poll=0.5)
    assert len(again) == 1
    assert again[0] <= 2 * grace
    assert states(study) == {"COMPLETE": 2, "FAIL": 1}


def command_lines() -> dict[int, str]:
    """Of all processes, as ``ps`` shows them."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found[int(path.parent.name)] = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return found


def leaks_in(text: str) -> list[str]:
    return [leak for leak in LEAKS if leak in text]


def test_sweep_end_to_end_shows_the_password_nowhere(url: str, words: list[str]) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-m", "emolight", "sweep", *words, "--storage", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    workers: dict[int, str] = {}
    while parent.poll() is None:
        lines = {number: line for number, line in command_lines().items() if number != parent.pid}
        workers |= {number: line for number, line in lines.items() if "sweep worker --config small.yaml" in line}
        time.sleep(0.2)
    assert parent.stdout is not None
    told = parent.stdout.read()
    assert parent.returncode == 0, told
    assert workers
    assert not leaks_in(" ".join(workers.values()))
    assert not leaks_in(told)
    folder = Path("lightning_logs/small")
    assert {"best.yaml", "trials.csv", "sweep.html", "worker_0.log", "trial_0001"} <= {
        path.name for path in folder.iterdir()
    }
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in written if leaks_in(path.read_bytes().decode(errors="replace"))]
    study = optuna.load_study(study_name="small", storage=open_storage(url))
    assert states(study) == {"COMPLETE": 2}


def test_what_ctrl_c_prints_shows_no_password(
    url: str, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "_run", stopped)
    with pytest.raises(KeyboardInterrupt):
        sweep.main([*words, "--storage", url])
    told = capsys.readouterr().out
    assert "Go on with" in told
    assert not leaks_in(told)


def test_several_may_open_a_new_database_at_once(url: str) -> None:
    with ThreadPoolExecutor(6) as threads:
        assert len(list(threads.map(open_storage, [url] * 6))) == 6


def refused(words: list[str], storage: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says to a storage that it does not take."""
    with pytest.raises(SystemExit) as caught:
        command.main(["sweep", "worker", *words, "--storage", storage])
    assert caught.value.code == 2
    out, told = capsys.readouterr()
    assert told.startswith("emolight: ")
    assert told.count("\n") <= 3
    assert "Traceback" not in told
    assert not leaks_in(out + told)
    assert "geheim" not in out + told
    return told


def test_mistakes_that_the_server_finds(
    running: Server, url: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused(words, url.replace("emolight:", "emolight:geheim"), capsys)
    assert 'password authentication failed for user "emolight"' in told
    # By two addresses, of which libpq tells at length.
    told = refused(words, running.url("nowhere").replace("127.0.0.1", "localhost"), capsys)
    assert 'database "nowhere" does not exist' in told
    with running.connect() as connection:
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'geheim'")
    told = refused(words, f"postgresql://guest:geheim@127.0.0.1:{running.port}/{url.rpartition('/')[2]}", capsys)
    assert "permission denied for schema public" in told
    assert "has no study 'small'" in refused(words, url, capsys)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (f"{NOBODY}:1/sweep", "Connection refused"),
        (f"{NOBODY}:1/sweep?passfile=geheim", "Connection refused"),
        (f"{NOBODY}:54x/sweep", "--storage 'postgresql…' is not the URL of a database"),
        ("postgresql:/me:geheim@127.0.0.1/sweep", "--storage 'postgresql…' is not the URL"),
        ("host=127.0.0.1 password=geheim", "--storage 'host…' is not the URL"),
        ("postgresql://me:a@geheim@127.0.0.1/sweep", "%40 for an @"),
        ("postgressql://me:geheim@127.0.0.1/sweep", "No driver for --storage postgressql"),
        ("postgresql+odd://me:geheim@127.0.0.1/sweep", "without a driver"),
        (f"{NOBODY}:1/sweep?odd=geheim", 'invalid connection option "odd"'),
    ],
)
def test_mistyped_storage(wrong: str, message: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(words, wrong, capsys)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_missing_driver(
    scheme: str, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    told = refused(words, f"{scheme}://me:geheim@127.0.0.1/sweep", capsys)
    assert 'pip install "emolight[postgresql]"' in told
