"""Workers as tasks of a Ray cluster, which finds them room and runs those again whose node is lost."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from emolight.errors import EmolightError
from emolight.sweep.trial import Plan
from emolight.sweep.workers import run_worker

RETRIES = 20
"""How often Ray starts a worker again whose node or process is lost."""
PATIENCE = 60.0
"""Seconds for workers to give their slots back."""


def run_on_ray(plan: Plan, url: str, address: str, workers: int, watch: Callable[[], object]) -> bool:
    """Let workers on a Ray cluster spend the study's budget; those that find no room wait for it.

    All machines need the storage, this folder and the recordings at the same place. ``watch`` is called about once a
    second. Returns whether the budget is spent; not so after the sweep's timeout.

    Raises:
        EmolightError: the cluster cannot serve, or a worker ended by an error.
    """
    try:
        import ray
    except ImportError:
        raise EmolightError("--ray needs Ray, which is not installed.", 'pip install "emolight[cluster]"') from None
    _connect(ray, address)
    refs: list[Any] = []
    deadline = time.monotonic() + (plan.sweep.timeout or float("inf"))
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        if url.startswith("sqlite") and {node["NodeManagerHostname"] for node in nodes} != {socket.gethostname()}:
            raise EmolightError(
                "The Ray cluster has other machines, and SQLite serves one machine only.",
                "Give a database that all of them reach: --storage postgresql://USER@HOST/DATABASE",
            )
        devices, cpus = plan.sweep.devices_per_trial, [int(node["Resources"].get("CPU", 0)) for node in nodes]
        room = {"num_cpus": max(devices, min(max(cpus), sum(cpus) // workers))}
        room = {"num_cpus": 1, "num_gpus": devices} if ray.cluster_resources().get("GPU") else room
        print(f"on Ray: {workers} workers, each with {room}", flush=True)
        task = ray.remote(_work).options(max_retries=RETRIES, scheduling_strategy="SPREAD", **room)
        # The URL as an argument, not in `runtime_env`: that one is shown on Ray's dashboard.
        refs = [task.remote(run_worker, plan, url, str(Path.cwd()), f"worker_{n}.log") for n in range(workers)]
        while refs and time.monotonic() < deadline:
            ended, refs = ray.wait(refs, timeout=1)
            for problem in filter(None, ray.get(ended)):
                raise EmolightError(problem, f"See the logs in {plan.folder}; the same command goes on.")
            watch()
        return not refs
    except ray.exceptions.RayError as error:
        told = " ".join(str(error).split())[-300:]
        raise EmolightError(f"A worker on Ray ended: {told}", "The same command goes on.") from None
    finally:
        for ref in refs:
            ray.cancel(ref)
        if refs:
            ray.wait(refs, num_returns=len(refs), timeout=PATIENCE)
        ray.shutdown()


def _work(work: Callable[[Plan, str], None], plan: Plan, url: str, folder: str, log: str) -> str:
    """A worker on a node of the cluster; returns the user's mistake, or nothing."""
    os.chdir(folder)
    plan.folder.mkdir(parents=True, exist_ok=True)
    with (
        (plan.folder / log).open("a", encoding="utf-8", buffering=1) as stream,
        redirect_stdout(stream),
        redirect_stderr(stream),
    ):
        print(f"worker {os.getpid()} on {socket.gethostname()}")
        try:
            work(plan, url)
        except EmolightError as error:
            return f"A worker on {socket.gethostname()} ended: {error}"
    return ""


def _connect(ray: Any, address: str) -> None:
    try:
        host, _, port = address.rpartition(":")
        if host and port.isdigit():  # Ray itself would try for a minute
            socket.create_connection((host, int(port)), timeout=5).close()
        ray.init(address=address, logging_level="FATAL", log_to_driver=False)
    except Exception as error:  # of many kinds, by what is wrong
        fix = "Start it with `ray start --head`, and give the address that it prints, or `auto` on its machines."
        told = " ".join(str(error).split())[:200]
        raise EmolightError(f"The Ray cluster '{address}' cannot be joined: {told}", fix) from None
