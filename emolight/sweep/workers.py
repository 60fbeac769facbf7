"""Workers, which take a study's slots: processes of this machine, or tasks of a Ray cluster, or started by hand."""

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna

from emolight.errors import EmolightError, end_once
from emolight.experiments.processes import MISTAKE, Task, run_processes
from emolight.sweep.storage import open_storage
from emolight.sweep.study import BUDGET, SlotStudy, check_definition, finished, work
from emolight.sweep.trial import Plan, drop_checkpoints, run_trial

RESTARTS = 3  # so many workers in a row may be lost without a finished trial between them
PATIENCE = 60.0  # seconds for workers on Ray to give their slots back


def run_worker(plan: Plan, url: str) -> None:
    """Join a study that exists, and run trials until its budget is spent: one worker, whoever starts it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end_once)
        if multiprocessing.parent_process():  # Ctrl-C reaches both; this one is ended by its parent, once
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    name, storage = plan.sweep.name, open_storage(url)
    try:
        study = SlotStudy(name, storage, pruner=plan.sweep.make_pruner(plan.steps))
        check_definition(study, plan.definition)
    except KeyError:
        fix = "Begin it with: python -m emolight sweep --config ..."
        raise EmolightError(f"The storage has no study '{name}', or not yet.", fix) from None
    if not plan.folder.is_dir():
        raise EmolightError(f"The sweep's folder {plan.folder} is not here.", "Start the worker where the sweep began.")
    sweep = replace(plan.sweep, trials=study.user_attrs[BUDGET])  # by it the sampler counts its first trials
    study.make_sampler, study.seed = sweep.make_sampler, sweep.sampler_seed
    work(study, lambda trial: run_trial(plan, trial), lambda: drop_checkpoints(plan, study))


def run_workers(study: optuna.Study, plan: Plan, url: str, workers: int, watch: Callable[[], object]) -> bool:
    """Run workers until the study's budget is spent, calling ``watch`` once a second; those that are lost are replaced.

    Returns whether the budget is spent; not so after the sweep's timeout. EmolightError when a worker ended by an
    error, or too many were lost.
    """
    tasks = [Task(f"worker {n}", plan.folder / f"worker_{n}.log", run_worker, (plan, url)) for n in range(workers)]
    deadline = time.monotonic() + (plan.sweep.timeout or float("inf"))
    lost = done = 0

    def ended(task: Task) -> bool:
        nonlocal lost, done
        if task.code == 0:
            return False
        now = finished(study)
        lost, done = (1 if now > done else lost + 1), now
        if task.code == MISTAKE or lost > RESTARTS:
            fix = f"See {task.log}; the same command goes on."
            raise EmolightError(f"{task.label} ended with {task.code}: {task.reason}", fix)
        return True

    def look() -> None:
        watch()
        if time.monotonic() > deadline:
            raise TimeoutError

    try:
        run_processes(tasks, workers, plan.sweep.devices_per_trial, ended, look)
    except TimeoutError:
        return False
    return True


def run_on_ray(plan: Plan, url: str, address: str, workers: int, watch: Callable[[], object]) -> bool:
    """Let workers on a Ray cluster spend the study's budget; those that find no room wait for it.

    All machines need the storage, this folder and the recordings at the same place. ``watch`` is called about once a
    second. Returns whether the budget is spent; not so after the sweep's timeout. EmolightError when the cluster cannot
    serve, or a worker ended by an error.
    """
    try:
        import ray
    except ImportError:
        raise EmolightError("--ray needs Ray, which is not installed.", 'pip install "emolight[cluster]"') from None
    try:
        host, _, port = address.rpartition(":")
        if host and port.isdigit():  # Ray itself would try for a minute
            socket.create_connection((host, int(port)), timeout=5).close()
        ray.init(address=address, logging_level="FATAL", log_to_driver=False)
    except Exception as error:  # of many kinds, by what is wrong
        fix = "Start it with `ray start --head`, and give the address that it prints, or `auto` on its machines."
        raise EmolightError(f"The Ray cluster '{address}' cannot be joined: {str(error)[:200]}", fix) from None
    refs: list[Any] = []
    deadline = time.monotonic() + (plan.sweep.timeout or float("inf"))
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        if url.startswith("sqlite") and {node["NodeManagerHostname"] for node in nodes} != {socket.gethostname()}:
            fix = "Give a database that all of them reach: --storage postgresql://USER@HOST/DATABASE"
            raise EmolightError("The Ray cluster has other machines, and SQLite serves one machine only.", fix)
        devices, cpus = plan.sweep.devices_per_trial, [int(node["Resources"].get("CPU", 0)) for node in nodes]
        room = {"num_cpus": max(devices, min(max(cpus), sum(cpus) // workers))}
        room = {"num_cpus": 1, "num_gpus": devices} if ray.cluster_resources().get("GPU") else room
        print(f"on Ray: {workers} workers, each with {room}", flush=True)
        task = ray.remote(_work).options(max_retries=20, scheduling_strategy="SPREAD", **room)
        # The URL as an argument, not in `runtime_env`: that one is shown on Ray's dashboard.
        refs = [task.remote(run_worker, plan, url, str(Path.cwd()), f"worker_{n}.log") for n in range(workers)]
        while refs and time.monotonic() < deadline:
            ended, refs = ray.wait(refs, timeout=1)
            for problem in filter(None, ray.get(ended)):
                raise EmolightError(problem, f"See the logs in {plan.folder}; the same command goes on.")
            watch()
        return not refs
    except ray.exceptions.RayError as error:
        raise EmolightError(f"A worker on Ray ended: {str(error)[-300:]}", "The same command goes on.") from None
    finally:
        for ref in refs:
            ray.cancel(ref)
        if refs:
            ray.wait(refs, num_returns=len(refs), timeout=PATIENCE)
        ray.shutdown()


def _work(work: Callable[[Plan, str], None], plan: Plan, url: str, folder: str, log: str) -> str:
    """A worker on a node of the cluster; returns the user's mistake, or nothing."""
    # By it Ray cancels; a worker ignores it whose node was started in the background, as in a script of SLURM.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    plan.folder.mkdir(parents=True, exist_ok=True)
    with (
        (plan.folder / log).open("a", encoding="utf-8", buffering=1) as out,
        redirect_stdout(out),
        redirect_stderr(out),
    ):
        print(f"worker {os.getpid()} on {socket.gethostname()}")
        try:
            work(plan, url)
        except EmolightError as error:
            return f"A worker on {socket.gethostname()} ended: {error}"
    return ""
