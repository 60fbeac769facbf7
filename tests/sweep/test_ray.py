"""Workers on a Ray cluster of two nodes: both work, a lost one's trial is run again, mistakes are told."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

pytest.importorskip("ray", reason='Ray is not here: pip install "emolight[cluster]"')

import ray
from ray.cluster_utils import Cluster

from emolight.__main__ import run
from emolight.errors import EmolightError
from emolight.sweep.storage import open_storage, sqlite_url
from emolight.sweep.study import SlotStudy, fill, slots
from emolight.sweep.workers import run_on_ray
from tests.sweep import trivial


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head with one CPU, and a second node with one CPU."""
    soon = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3, "health_check_timeout_ms": 5000}
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": {"worker_niceness": 0, **soon}}
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of nodes that a script starts in the background
    made = Cluster(initialize_head=True, head_node_args=head)
    made.add_node(num_cpus=1)
    signal.signal(signal.SIGINT, before)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(autouse=True)
def _trivial(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "words" not in request.fixturenames:
        monkeypatch.setattr("emolight.sweep.workers.run_worker", trivial.run_worker)


def processes(folder: Path) -> list[int]:
    told = "".join(log.read_text() for log in folder.glob("worker_*.log"))
    return [int(pid) for pid in re.findall(r"worker (\d+) on", told)]


def test_a_lost_nodes_trial_is_run_again_and_the_budget_stays_exact(cluster: Cluster, tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "study.db")
    study = trivial.make(url, 8)
    second = cluster.add_node(num_cpus=1)  # the third, with room for the third worker
    lost: list[Any] = []

    def watch() -> None:
        running = trivial.begun(study)
        if len(running) == 3 and len(processes(tmp_path)) == 3 and not lost:
            lost.extend(running)
            os.kill(processes(tmp_path)[-1], signal.SIGKILL)
            cluster.remove_node(second, allow_graceful=False)

    assert run_on_ray(trivial.plan(tmp_path, 3), url, cluster.address, 3, watch)
    found = trivial.states(study)
    assert found["COMPLETE"] + found.get("PRUNED", 0) == 8
    assert 1 <= found["FAIL"] <= 2
    assert "RUNNING" not in found
    for failed in study.get_trials(states=(TrialState.FAIL,)):
        assert [one.params for one in study.trials].count(failed.params) == 2


def test_a_timeout_gives_the_slots_back(cluster: Cluster, tmp_path: Path, clock: list[float]) -> None:
    url = sqlite_url(tmp_path / "study.db")
    study = trivial.make(url, 4)

    seen: list[int] = []

    def watch() -> None:
        seen.append(len(trivial.begun(study)))
        if seen[-1] >= 2 or len(seen) == 180:
            clock.append(601.0)

    # Three workers where two have room: the third waits, and must not keep the end waiting.
    assert not run_on_ray(trivial.plan(tmp_path, 600, timeout=600), url, cluster.address, 3, watch)
    assert seen[-1] >= 2
    assert "RUNNING" not in trivial.states(study)
    fill(study)  # as the next command does
    assert [trial.state for trial in slots(study).values()] == [TrialState.WAITING] * 4


def test_the_command(cluster: Cluster, words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["sweep", *words, "--ray", cluster.address, "--workers", "2"]) == 0
    told = capfd.readouterr()
    assert "on Ray: 2 workers" in told.out
    assert "raylet" not in told.out + told.err
    study = SlotStudy("small", open_storage("sqlite:///lightning_logs/small/study.db"))
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert len(set(processes(Path("lightning_logs/small")))) == 2
    assert Path("lightning_logs/small/best.yaml").is_file()


def test_mistakes(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(url: str, address: str) -> None:
        run_on_ray(trivial.plan(tmp_path), url, address, 1, lambda: None)

    with pytest.raises(EmolightError, match=r"A worker on .* ended: The study's database does not open: no such table"):
        start(sqlite_url(tmp_path / "none.db"), cluster.address)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(EmolightError, match=r"cannot be joined: .*refused"):
            start("", f"127.0.0.1:{taken.getsockname()[1]}")
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    with pytest.raises(EmolightError, match="SQLite serves one machine only"):
        start("sqlite:///x.db", cluster.address)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EmolightError, match=r'pip install "emolight\[cluster\]"'):
        start("", "auto")
