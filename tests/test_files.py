"""Files are written whole or not at all, and what is no file is never replaced by one."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from emolight.files import atomic_write, write_text


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "out.csv"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        write_text(pipe, "a,b\n")
        if not stat.S_ISFIFO(pipe.lstat().st_mode):  # else the reader would wait for ever
            os.truncate(pipe, 0)
            pytest.fail("the pipe was replaced by a file")
        assert read.result() == "a,b\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_devices_stay_devices() -> None:
    for device in ("/dev/null", "/dev/stdout"):
        with atomic_write(device) as part:  # to replace it, root would only need a name
            assert part == Path(device)


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("own")
    (tmp_path / "link").symlink_to(tmp_path / "own")
    write_text(tmp_path / "link", "new")  # else a stranger's run folder could name any file
    assert (tmp_path / "own").read_text() == "own"
    assert (tmp_path / "link").read_text() == "new"
