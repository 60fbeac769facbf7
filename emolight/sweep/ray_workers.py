"""Workers on a running Ray cluster: what each takes, what the nodes must share, where they are placed."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emolight.errors import EmolightError

if TYPE_CHECKING:
    import optuna

    from emolight.sweep.trial import Plan
    from emolight.sweep.workers import Worker

ANSWER = 5.0
"""Seconds for the head of a cluster to accept a connection; Ray itself would try for a minute."""
CHECK = 120.0
"""Seconds for a node to look at what it shares."""


@dataclass(frozen=True)
class Share:
    """What a worker takes of a node.

    Args:
        cpus: that Ray counts; none where GPUs decide.
        gpus: that it sees.
        threads: of each device's process.
    """

    cpus: int
    gpus: int
    threads: int

    def room(self, resources: Mapping[str, float]) -> int:
        """How many workers a node has room for."""
        if self.gpus:
            return int(resources.get("GPU", 0) // self.gpus)
        return int(resources.get("CPU", 0) // self.cpus)

    def __str__(self) -> str:
        number, kind = (self.gpus, "GPU") if self.gpus else (self.cpus, "CPU")
        return f"{number} {kind}{'s' if number > 1 else ''}"


def share_of(nodes: Sequence[Mapping[str, float]], workers: int, devices: int) -> Share:
    """GPUs where the cluster has some, else the most CPUs with which all workers find room; one a device at least.

    Args:
        nodes: resources of each node, as Ray counts them.
        workers: how many.
        devices: of each worker.

    Raises:
        EmolightError: no node has so many devices.
    """
    kind = "GPU" if any(node.get("GPU", 0) >= 1 for node in nodes) else "CPU"
    most = int(max((node.get(kind, 0) for node in nodes), default=0))
    if most < devices:
        raise EmolightError(
            f"A worker needs {devices} {kind}s on one node, and no node of the Ray cluster has more than {most}.",
            "Lower devices_per_trial, or start Ray with larger nodes.",
        )
    if kind == "GPU":
        threads = [int(node.get("CPU", 0) // node["GPU"]) for node in nodes if node.get("GPU", 0) >= devices]
        return Share(0, devices, max(1, min(threads)))
    for cpus in range(most, devices, -1):
        share = Share(cpus, 0, max(1, cpus // devices))
        if sum(share.room(node) for node in nodes) >= workers:
            return share
    return Share(devices, 0, 1)


def connect(address: str, url: str) -> None:
    """Connect to a Ray cluster that runs, quietly.

    Args:
        address: ``HOST:PORT`` of its head, or ``auto`` on one of its machines.
        url: of the sweep's storage; SQLite serves one machine only.

    Raises:
        EmolightError: Ray is not installed, does not answer, or its machines could not share the storage.
    """
    try:
        import ray
    except ImportError:
        raise EmolightError("--ray needs Ray, which is not installed.", 'pip install "emolight[ray]"') from None

    unreachable = (
        "Start it with `ray start --head`, and give the address that it prints, or `auto` on its machines."
    )
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.rpartition("/")[2].strip("[]"), int(port)), timeout=ANSWER).close()
        except (OSError, OverflowError) as error:
            raise EmolightError(f"No Ray cluster answers at {address}: {error}.", unreachable) from None
    try:
        with _own_sigterm():
            # What Ray says of a lost node is printed in spite of `log_to_driver`; there is no public switch.
            ray._private.worker._worker_logs_enabled = False
            ray.init(address=address, logging_level="FATAL", log_to_driver=False, ignore_reinit_error=True)
    except Exception as error:  # of many kinds, by what is wrong
        told = " ".join(str(error).split())[:200]
        raise EmolightError(f"The Ray cluster '{address}' cannot be joined: {told}", unreachable) from None
    others = sorted({node["NodeManagerHostname"] for node in alive()} - {socket.gethostname()})
    if url.startswith("sqlite") and others:
        ray.shutdown()
        raise EmolightError(
            f"The Ray cluster has other machines ({', '.join(others[:3])}), and SQLite serves one machine only.",
            "Give a database that all of them reach: --storage postgresql://USER@HOST/DATABASE",
        )


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's handler: Ray's would exit with another code."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with suppress(ValueError):  # not the main thread, where Ray does not set one either
            signal.signal(signal.SIGTERM, before)


def alive() -> list[dict[str, Any]]:
    """The nodes of the cluster that live, as ``ray.nodes`` tells of them."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def run_on_ray(
    study: optuna.Study,
    plan: Plan,
    command: Sequence[str],
    url: str,
    address: str,
    workers: int,
    variables: Mapping[str, str],
    watch: Callable[[], None] = lambda: None,
) -> bool:
    """Let workers on a Ray cluster spend the study's budget.

    Args:
        study: whose slots they take.
        plan: of the sweep.
        command: of a worker, as :func:`~emolight.sweep.workers.worker_command` gives it.
        url: of the storage.
        address: of the cluster.
        workers: how many at most.
        variables: added to their environment.
        watch: called about once a second.

    Returns:
        Whether the budget is spent; not so after a timeout.

    Raises:
        EmolightError: the cluster or one of its nodes cannot serve, or trials failed one after another.
    """
    import ray

    connect(address, url)
    try:
        devices = plan.sweep.devices_per_trial
        share = share_of([node["Resources"] for node in alive()], workers, devices)
        data = plan.base["data"]
        shared = [Path.cwd(), Path(command[command.index("--config") + 1]), *plan.sweep.config]
        if not data["synthetic"]:
            shared.append(Path(data["root"]))
        check_nodes(share, [str(path.absolute()) for path in shared], url)
        return place_workers(study, command, workers, plan.folder, share, plan.sweep.timeout, variables, watch)
    finally:
        ray.shutdown()


def check_nodes(share: Share, paths: Sequence[str], url: str) -> None:
    """Let every node with room for a worker look whether it reaches files and storage.

    Raises:
        EmolightError: tells of every node that does not.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(_missing)
    replies = {}
    for node in alive():
        if share.room(node["Resources"]):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
            replies[node["NodeManagerHostname"], node["NodeID"]] = look.options(**options).remote(list(paths), url)
    problems = {}
    for (host, _), reply in replies.items():
        try:
            if problem := ray.get(reply, timeout=CHECK):
                problems[host] = problem
        except ray.exceptions.RayError as error:
            last = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
            problems[host] = f"emolight does not run there: {last.strip()[:200]}"
    if problems:
        raise EmolightError(
            "; ".join(f"node {host}: {problem}" for host, problem in problems.items()),
            "All nodes need this folder, the recordings and the storage at the same place, and the same packages.",
        )


def _missing(paths: Sequence[str], url: str) -> str:
    """What this node does not reach, or nothing."""
    from emolight.sweep.storage import open_storage

    for path in paths:
        if not Path(path).exists():
            return f"there is no {path}"
    try:
        open_storage(url)
    except EmolightError as error:
        return str(error).splitlines()[0]
    return ""


def place_workers(
    study: optuna.Study,
    command: Sequence[str],
    workers: int,
    folder: Path,
    share: Share,
    timeout: float | None = None,
    variables: Mapping[str, str] | None = None,
    watch: Callable[[], None] = lambda: None,
    poll: float = 1.0,
) -> bool:
    """:func:`~emolight.sweep.workers.run_workers` on the cluster that this process is connected to.

    A worker that finds no room waits for it, also for that of a node that joins later.
    """
    import ray

    from emolight.sweep.ray_places import Place
    from emolight.sweep.ray_processes import Remote, RemoteWorker
    from emolight.sweep.workers import run_workers

    room = sum(share.room(node["Resources"]) for node in alive())
    waiting = f", with room for {room} of them; the others wait" if room < workers else ""
    print(f"on Ray: {workers} workers of {share} each{waiting}", flush=True)
    kind = ray.remote(Place).options(
        num_cpus=share.cpus, num_gpus=share.gpus, scheduling_strategy="SPREAD", max_restarts=0
    )
    # As an argument, not in `runtime_env`: that one is shown on Ray's dashboard, and the storage has a password.
    own = {**(variables or {}), "OMP_NUM_THREADS": str(share.threads)}

    def start(place: int) -> Worker:
        log = (folder / f"worker_{place}.log").resolve()
        log.touch()
        actor = kind.remote()
        begun = actor.start.remote(list(command[1:]), str(Path.cwd()), str(log), own)
        return RemoteWorker(place, Remote(actor, begun), log)

    return run_workers(study, command, workers, folder, timeout=timeout, watch=watch, poll=poll, start=start)
