"""What the process that runs a sweep sees of a worker on a Ray cluster."""

from __future__ import annotations

import signal
import subprocess
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from emolight.errors import EmolightError
from emolight.sweep.workers import PATIENCE, Worker

LOST = -signal.SIGKILL
"""Exit code of a process that is gone with its actor."""


class Remote:
    """A worker's process on the cluster, with what ``run_workers`` asks of a ``Popen``.

    Args:
        actor: a :class:`~emolight.sweep.ray_places.Place`, which may still wait for room.
        begun: reference to what its ``start`` returns.
    """

    def __init__(self, actor: Any, begun: Any) -> None:
        self.returncode: int | None = None
        self.host, self.pid, self.node = "", 0, ""
        self._actor, self._reply, self._stopping = actor, begun, False

    def poll(self) -> int | None:
        """The exit code, or None while it runs or waits for room; asks anew at every call.

        Raises:
            EmolightError: it cannot be started on the node that it was given.
        """
        if self.returncode is None and ray.wait([self._reply], timeout=0)[0]:
            try:
                answer = ray.get(self._reply)
            except RayTaskError as error:
                self._end(LOST)
                told = str(error).strip().splitlines()[-1]
                raise EmolightError(f"A worker does not start on its Ray node: {told[:200]}") from None
            except ActorUnavailableError:  # Ray has not decided yet whether it is lost
                if self.node:
                    self._reply = self._actor.poll.remote()
                else:
                    self._end(LOST)
            except RayError:
                self._end(LOST)
            else:
                if isinstance(answer, int):
                    self._end(answer)
                else:
                    if answer is not None:
                        self.host, self.pid, self.node = answer
                    self._reply = self._actor.poll.remote()
        return self.returncode

    def send_signal(self, _: int) -> None:
        """Let the worker end as by SIGTERM, whatever the signal; one that still waits for room never starts."""
        if self.poll() is None and not self._stopping:
            if self.node:
                self._reply, self._stopping = self._actor.stop.remote(PATIENCE / 2), True
            else:
                self._end(LOST)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of a worker that is to stop.

        Raises:
            subprocess.TimeoutExpired: it has not ended.
        """
        if self.returncode is None:
            ray.wait([self._reply], timeout=timeout)
            if self.poll() is None:
                raise subprocess.TimeoutExpired("worker", timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        """Take its place away."""
        self._end(LOST)

    def _end(self, code: int) -> None:
        """Give the actor's GPUs or CPUs back; a process that is still there ends with its parent."""
        self.returncode = code
        with suppress(RayActorError):
            ray.kill(self._actor)


class RemoteWorker(Worker):
    """A worker on a Ray cluster."""

    process: Remote

    @property
    def name(self) -> str:
        """By which its trials are marked."""
        return f"{self.process.host}:{self.process.pid}"

    @property
    def failed(self) -> bool:
        """Whether its end speaks against the sweep; that of its node does not."""
        gone = self.process.returncode == LOST and self.process.node
        return not gone or any(node["NodeID"] == self.process.node for node in ray.nodes() if node["Alive"])
