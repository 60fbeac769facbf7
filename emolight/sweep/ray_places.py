"""The actor of a worker on a Ray cluster.

It imports nothing heavy: with PyTorch it would start slowly and hold its memory beside the worker's.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from emolight.sweep.processes import end_with_parent


class Place:
    """A share of a node, and the worker's process there; a Ray actor.

    The worker is a process of its own, as on one machine: signals reach it, and its memory goes with it.
    """

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, words: list[str], folder: str, log: str, variables: Mapping[str, str]) -> tuple[str, int, str]:
        """Start the worker; returns the host, the process's number, and the node's id."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        with Path(log).open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, *words],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **variables},
                preexec_fn=end_with_parent,
            )
            where = f"worker {self.process.pid} on {socket.gethostname()}, Ray node {node}"
            stream.write(f"{where}, GPUs {os.environ.get('CUDA_VISIBLE_DEVICES') or 'none'}\n".encode())
        return socket.gethostname(), self.process.pid, node

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return None if self.process is None else self.process.poll()

    def stop(self, patience: float) -> int | None:
        """End the worker, who gives its slot back; returns the exit code."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.poll()
