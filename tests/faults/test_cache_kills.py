"""The script of killed cache builders, for a few kills."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_processes_that_are_killed_leave_a_right_cache(tmp_path: Path) -> None:
    script = Path(__file__).with_name("cache_kills.py")
    words = [sys.executable, str(script), "--kills", "5", "--clips", "40"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'kills': 5" in done.stdout
    assert not list(tmp_path.iterdir())
