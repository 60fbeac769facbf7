"""Workers on a Ray cluster of two nodes: both work, a lost one's trial is retried, mistakes are told."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

pytest.importorskip("ray", reason='Ray is not here: pip install "emolight[ray]"')

import ray
from ray.cluster_utils import Cluster

from emolight.__main__ import run
from emolight.errors import EmolightError
from emolight.sweep import ray_workers
from emolight.sweep.ray_workers import Share, check_nodes, connect, place_workers, share_of
from emolight.sweep.storage import open_storage
from emolight.sweep.study import SlotStudy, counting, create_study
from tests.small import CONFIGS, options
from tests.sweep.trivial import GRACE, NAME

ONE = Share(1, 0, 1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head with one CPU, and a second node with one CPU."""
    soon: dict[str, Any] = {
        "worker_niceness": 0,
        "health_check_period_ms": 1000,
        "health_check_failure_threshold": 3,
        "health_check_timeout_ms": 5000,
    }
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": soon}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.add_node(num_cpus=1)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def connected(cluster: Cluster) -> Iterator[Cluster]:
    connect(cluster.address, "sqlite:///here.db")
    yield cluster
    ray.shutdown()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db"


@pytest.fixture
def make(url: str) -> Callable[[int], SlotStudy]:
    return lambda trials: create_study(open_storage(url, 1, GRACE), NAME, ["maximize"], {"epochs": 2}, trials)


def command(url: str, seconds: float) -> list[str]:
    return [sys.executable, "-m", "tests.sweep.trivial", url, str(seconds)]


def nodes_of(folder: Path) -> dict[str, str]:
    """Worker's name to its node's id, as the logs tell."""
    told = "".join(log.read_text() for log in folder.glob("worker_*.log"))
    return {f"{host}:{pid}": node for pid, host, node in re.findall(r"worker (\d+) on (\S+), Ray node (\w+)", told)}


def finished_on(study: SlotStudy, folder: Path) -> list[str]:
    nodes = nodes_of(folder)
    return [nodes[trial.user_attrs["worker"]] for trial in study.trials if trial.state in DONE]


DONE = (TrialState.COMPLETE, TrialState.PRUNED)


def running(study: SlotStudy) -> list[FrozenTrial]:
    return [trial for trial in study.trials if trial.state is TrialState.RUNNING and trial.params]


@pytest.mark.usefixtures("connected")
def test_both_nodes_work(make: Callable[[int], SlotStudy], url: str, tmp_path: Path) -> None:
    study = make(8)
    assert place_workers(study, command(url, 1), 2, tmp_path, ONE, poll=0.2)
    assert len(study.trials) == 8
    assert len(set(finished_on(study, tmp_path))) == 2


def test_a_lost_node_and_one_that_joins(
    connected: Cluster,
    make: Callable[[int], SlotStudy],
    url: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    study = make(8)
    second = next(iter(connected.worker_nodes))
    lost: list[FrozenTrial] = []

    def watch() -> None:
        nodes = nodes_of(tmp_path)
        there = [trial for trial in running(study) if nodes.get(trial.user_attrs["worker"]) == second.node_id]
        if there and not lost:
            lost.extend(there)
            # As a machine without power: nobody there can give anything back.
            os.kill(int(there[0].user_attrs["worker"].rpartition(":")[2]), signal.SIGKILL)
            connected.remove_node(second, allow_graceful=False)
            connected.add_node(num_cpus=1)

    assert place_workers(study, command(url, 3), 2, tmp_path, ONE, watch=watch, poll=0.2)
    states = [trial.state for trial in study.trials]
    assert sum(state in DONE for state in states) == 8
    assert states.count(TrialState.FAIL) == 1
    assert TrialState.RUNNING not in states
    again = [trial.state for trial in study.trials if trial.params == lost[0].params]
    assert again[0] is TrialState.FAIL
    assert again[1] in DONE
    assert second.node_id not in finished_on(study, tmp_path)
    assert len(set(finished_on(study, tmp_path))) == 2, "the new node has worked"
    told = capfd.readouterr()
    assert "aylet" not in told.out + told.err


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize("way", ["timeout", "ctrl-c"])
def test_an_end_gives_the_slots_back(way: str, make: Callable[[int], SlotStudy], url: str, tmp_path: Path) -> None:
    study = make(4)

    def watch() -> None:
        if way == "ctrl-c" and len(running(study)) == 2:
            raise KeyboardInterrupt

    # Three workers where two have room: the third waits, and must not keep the end waiting.
    place = dict[str, Any](watch=watch, timeout=8 if way == "timeout" else None, poll=0.2)
    if way == "timeout":
        assert not place_workers(study, command(url, 600), 3, tmp_path, ONE, **place)
    else:
        with pytest.raises(KeyboardInterrupt):
            place_workers(study, command(url, 600), 3, tmp_path, ONE, **place)
    states = [trial.state for trial in study.trials]
    assert TrialState.RUNNING not in states
    # Worker and parent may both have put a slot back: only one of the two counts.
    assert [trial.state for trial in counting(study).values()] == [TrialState.WAITING] * 4
    for name in nodes_of(tmp_path):
        with pytest.raises(ProcessLookupError):
            os.kill(int(name.rpartition(":")[2]), 0)


def test_workers_that_end_at_once_stop_the_sweep(
    connected: Cluster, make: Callable[[int], SlotStudy], tmp_path: Path
) -> None:
    words = [sys.executable, "-c", "print('so it goes'); raise SystemExit(1)"]
    with pytest.raises(EmolightError, match=r"4 workers in a row ended .* 1: so it goes"):
        place_workers(make(2), words, 1, tmp_path, ONE, poll=0.1)


def test_gpus_are_shared_out(cluster: Cluster, make: Callable[[int], SlotStudy], url: str, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=0, num_gpus=4)
    try:
        connect(cluster.address, url)
        share = share_of([one["Resources"] for one in ray_workers.alive()], 2, 2)
        assert share == Share(0, 2, 1)
        study = make(4)
        assert place_workers(study, command(url, 1), 2, tmp_path, share, poll=0.2)
        seen = {re.search(r"GPUs (\S+)", log.read_text())[1] for log in tmp_path.glob("worker_*.log")}  # type: ignore[index]
        assert seen == {"0,1", "2,3"}
    finally:
        ray.shutdown()
        cluster.remove_node(node)


def test_the_command(cluster: Cluster, corpus: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("small.yaml").write_text(
        f"config: {CONFIGS / 'mfcc.yaml'}\ntrials: 2\nepochs: 1\npruner: none\n"
        "space: {model.learning_rate: {low: 3.0e-4, high: 5.0e-3, log: true}}\n"
    )
    given = [word for word in options(corpus) if not word.startswith("--trainer.max_epochs")]
    assert run(["sweep", "--config", "small.yaml", *given, "--ray", cluster.address, "--workers", "2"]) == 0
    told = capfd.readouterr()
    assert "on Ray: 2 workers of 1 CPU each" in told.out
    assert "raylet" not in told.out + told.err
    study = SlotStudy("small", open_storage("sqlite:///lightning_logs/small/study.db"))
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert len(nodes_of(Path("lightning_logs/small"))) == 2
    assert Path("lightning_logs/small/best.yaml").is_file()


@pytest.mark.usefixtures("connected")
def test_nodes_that_do_not_share(make: Callable[[int], SlotStudy], tmp_path: Path, url: str) -> None:
    make(1)
    check_nodes(ONE, [str(tmp_path)], url)
    missing = f"{tmp_path}/recordings"
    with pytest.raises(EmolightError, match=rf"node {socket.gethostname()}: there is no {missing}"):
        check_nodes(ONE, [missing], url)


def test_sqlite_is_for_one_machine(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    far = {"NodeManagerHostname": "far", "Alive": True, "NodeID": "1", "Resources": {"CPU": 8.0}}
    monkeypatch.setattr(ray_workers, "alive", lambda: [far])
    with pytest.raises(EmolightError, match=r"other machines \(far\).*SQLite") as caught:
        connect(cluster.address, "sqlite:///study.db")
    assert "--storage postgresql://" in str(caught.value)
    connect(cluster.address, "postgresql://me:geheim@host/db")
    ray.shutdown()


def test_a_cluster_that_is_not_there(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(EmolightError, match=f"No Ray cluster answers at {address}") as caught:
            connect(address, "sqlite:///x.db")
    assert len(str(caught.value).splitlines()) == 2
    with pytest.raises(EmolightError, match="cannot be joined"):
        connect("nonsense", "sqlite:///x.db")
    assert capfd.readouterr().err == ""


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EmolightError, match=r'pip install "emolight\[ray\]"'):
        connect("auto", "sqlite:///x.db")


@pytest.mark.parametrize(
    ("nodes", "workers", "devices", "share"),
    [
        ([{"CPU": 8.0}, {"CPU": 8.0}], 2, 1, Share(8, 0, 8)),
        ([{"CPU": 8.0}, {"CPU": 8.0}], 3, 1, Share(4, 0, 4)),
        ([{"CPU": 8.0}, {"CPU": 2.0}], 2, 1, Share(4, 0, 4)),
        ([{"CPU": 2.0}], 9, 1, ONE),
        ([{"CPU": 8.0}], 2, 2, Share(4, 0, 2)),
        ([{"CPU": 16.0}, {"CPU": 16.0, "GPU": 4.0}], 4, 1, Share(0, 1, 4)),
        ([{"CPU": 16.0, "GPU": 4.0}, {"GPU": 1.0}], 2, 2, Share(0, 2, 4)),
    ],
)
def test_the_share_of_a_worker(nodes: list[dict[str, float]], workers: int, devices: int, share: Share) -> None:
    assert share_of(nodes, workers, devices) == share


def test_no_node_has_so_many_devices() -> None:
    with pytest.raises(
        EmolightError, match="needs 4 GPUs on one node, and no node of the Ray cluster has more than 2"
    ):
        share_of([{"CPU": 64.0, "GPU": 2.0}, {"GPU": 2.0}], 1, 4)
