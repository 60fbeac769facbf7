"""``python -m emolight download``: the two audio archives of Zenodo record 1188976, checked and unpacked.

An archive that already lies in the folder is used when its checksum is right. One that this command fetched
is deleted once it is unpacked, unless ``--keep-archives``; one that was there before stays.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import shutil
import stat
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urljoin

import requests
import urllib3
from tqdm import tqdm

from emolight.data.ravdess import CHANNELS, discover, parse_name
from emolight.errors import EmolightError
from emolight.files import atomic_write, remove_left_overs


class Archive(NamedTuple):
    """A published archive; it is unpacked into a folder of its own name without ``.zip``."""

    channel: str
    name: str
    md5: str
    size: int
    """Bytes."""
    clips: int


ARCHIVES = (
    Archive("speech", "Audio_Speech_Actors_01-24.zip", "bc696df654c87fed845eb13823edef8a", 208468073, 1440),
    Archive("song", "Audio_Song_Actors_01-24.zip", "5411230427d67a21e18aa4d466e6d1b9", 225505317, 1012),
)
BASE_URL = "https://zenodo.org/records/1188976/files/"
TIMEOUT = (15.0, 60.0)
"""Seconds to connect, and seconds without a byte, until a server counts as dead."""
SLOWEST = 1000
"""Bytes a second; a server that is slower over the time above counts as dead too."""
PAUSE = 1.0
"""Seconds before the second attempt; each further one waits as much longer."""
CHUNK = 1 << 16


def download(
    root: str | Path,
    archives: Sequence[Archive] = ARCHIVES,
    base_url: str = BASE_URL,
    allow_http: bool = False,
    keep_archives: bool = False,
    retries: int = 2,
    timeout: tuple[float, float] = TIMEOUT,
) -> None:
    """Fetch and unpack ``archives`` below ``root`` in the published layout; what is complete is left alone.

    An archive counts as complete without being fetched again when all its clips are unpacked. Where the archive
    itself is at hand, clips of the wrong size are unpacked anew.

    Args:
        root: folder for the recordings; made when missing.
        archives: what to fetch.
        base_url: address of the files, with the closing slash.
        allow_http: let ``base_url`` be plain http, for a server on this machine. A redirect to http never passes.
        keep_archives: leave fetched archives in ``root``.
        retries: further attempts after a broken connection or a wrong checksum.
        timeout: seconds to connect and seconds between bytes.

    Raises:
        EmolightError: no connection, not found, wrong checksum, a redirect to http, an archive with a member
            that would land outside its folder, or no room on the disk.
    """
    root = Path(root)
    if not base_url.startswith("https://") and not allow_http:
        raise EmolightError(f"'{base_url}' is not an https address.", "Recordings are fetched by https only.")
    if root.exists() and not root.is_dir():
        raise EmolightError(f"'{root}' is a file.", "Give the folder that the recordings shall go to.")
    for archive in archives:
        folder, path = root / Path(archive.name).stem, root / archive.name
        before = path.exists()
        remove_left_overs(root, f".{archive.name}.*.part")
        remove_left_overs(folder)
        if not before and _clips(folder) >= archive.clips:
            _say(f"{folder}: all {archive.clips} clips are there already")
            continue
        if before and _intact(path, archive):
            _say(f"{path}: archive found, checksum right")
        else:
            _fetch(root, archive, f"{base_url}{archive.name}?download=1", retries, timeout)
        try:
            count = extract(path, folder)
        except OSError as error:
            raise EmolightError(
                f"Cannot unpack {path}: {error.strerror or error}.",
                "Mend that (room, permissions) and run the same command again: it goes on from there.",
            ) from None
        _say(f"{folder}: {count} files unpacked, {_clips(folder)} clips are there")
        if not before and not keep_archives:
            path.unlink(missing_ok=True)


def extract(path: Path, folder: Path) -> int:
    """Unpack a zip file below ``folder``, each file under its final name only when it is whole.

    A leading folder of the same name as ``folder`` is dropped; a file that is there with the right size is kept.

    Returns:
        Number of files written.

    Raises:
        EmolightError: no zip file, or a member that would land outside ``folder``; nothing is written then.
    """
    try:
        return _extract(path, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise EmolightError(f"{path} is no whole zip archive: {error}.", "Delete it and run again.") from None


def _extract(path: Path, folder: Path) -> int:
    written = 0
    with zipfile.ZipFile(path) as bundle:
        members = [(info, _inside(path, info)) for info in bundle.infolist()]
        files = [(info, inside) for info, inside in members if not info.is_dir()]
        for info, inside in tqdm(files, desc=f"Unpacking {path.name}", unit="file", ncols=79, disable=None):
            parts = inside.parts[1:] if inside.parts[0] == folder.name else inside.parts
            target = folder.joinpath(*parts)
            if target.is_file() and target.stat().st_size == info.file_size:
                continue
            with atomic_write(target) as part, bundle.open(info) as source, part.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            written += 1
    return written


def _inside(path: Path, info: zipfile.ZipInfo) -> PurePosixPath:
    name = PurePosixPath(info.filename.replace("\\", "/"))
    link = stat.S_ISLNK(info.external_attr >> 16)
    if link or name.is_absolute() or not name.parts or ".." in name.parts or ":" in name.parts[0]:
        raise EmolightError(
            f"{path} holds '{info.filename}', which is a link or leads out of its folder; nothing was unpacked.",
            "This is not the published archive: delete it and run again.",
        )
    return name


def _fetch(root: Path, archive: Archive, url: str, retries: int, timeout: tuple[float, float]) -> None:
    """Download to a temporary file beside the target, check it, rename it; nothing partial stays behind."""
    path = root / archive.name
    by_hand = f"Or get it from {url}, place it at {path} and run the same command again."
    _say(f"Fetching {url} ({archive.size / 1e6:.0f} MB)")
    for left in range(retries, -1, -1):
        try:
            with atomic_write(path) as part:
                _receive(url, part, archive, timeout, by_hand)
            return
        except OSError as error:  # those of requests too
            if not left or not isinstance(error, (requests.RequestException, _OtherBytesError)):
                raise EmolightError(
                    f"Cannot fetch {archive.name}: {_reason(error, timeout[1])}.",
                    f"Check connection and disk and run again. {by_hand}",
                ) from None
        time.sleep(PAUSE * (retries - left + 1))


def _md5() -> hashlib._Hash:
    """The checksum that Zenodo publishes; also where the system forbids MD5 for secrets."""
    return hashlib.md5(usedforsecurity=False)


class _OtherBytesError(OSError):
    """The server gave something else than the published archive."""


def _receive(url: str, part: Path, archive: Archive, timeout: tuple[float, float], by_hand: str) -> None:
    """Write what the server sends, at most as long as the archive, and hold it to the published checksum."""
    # requests offers every answer to the hook before it follows a redirect.
    with requests.get(url, stream=True, timeout=timeout, hooks={"response": _watch(by_hand)}) as response:
        response.raise_for_status()
        bar = tqdm(total=archive.size, unit="B", unit_scale=True, ncols=79, leave=False, disable=None)
        with part.open("wb") as sink, bar:
            digest, received = _md5(), 0
            for chunk in _chunks(response, timeout[1]):
                received += len(chunk)
                if received > archive.size:  # some never end
                    break
                digest.update(chunk)
                sink.write(chunk)
                bar.update(len(chunk))
    if received > archive.size:
        raise _OtherBytesError(f"the server gave more than the {archive.size} bytes of the published archive")
    if received < archive.size:
        raise _OtherBytesError(f"the server gave {received} bytes instead of {archive.size}")
    if digest.hexdigest() != archive.md5:
        raise _OtherBytesError(f"the server gave other bytes than the published archive (MD5 {archive.md5})")


def _chunks(response: requests.Response, patience: float) -> Iterator[bytes]:
    """The body as it comes; a server that drips is as dead as one that is silent."""
    read = getattr(response.raw, "read1", response.raw.read)  # the former from urllib3 2.1 on
    since, received = time.monotonic(), 0
    while True:
        try:
            chunk = read(CHUNK, decode_content=True)
        except urllib3.exceptions.TimeoutError:
            raise requests.ReadTimeout from None
        except urllib3.exceptions.HTTPError as error:
            raise requests.ConnectionError(error) from None
        if not chunk:
            return
        yield chunk
        received += len(chunk)
        if time.monotonic() - since > patience:
            if received < SLOWEST * patience:
                raise requests.ReadTimeout
            since, received = time.monotonic(), 0


def _watch(by_hand: str) -> Callable[..., None]:
    def check(response: Any, **_: object) -> None:
        target = urljoin(response.url, response.headers.get("location", ""))
        if response.is_redirect and not target.startswith("https://"):
            raise EmolightError(f"{response.url} sends on to '{target}', which is not https.", by_hand)
        if 400 <= response.status_code < 500 and response.status_code not in (408, 429):
            raise EmolightError(f"{response.url} answers {response.status_code} {response.reason}.", by_hand)

    return check


def _reason(error: OSError, patience: float) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.ConnectTimeout):
        return "the server cannot be reached in time"
    if isinstance(error, requests.Timeout):
        return f"nothing, or next to nothing, came for {patience:g} s"
    if isinstance(error, requests.RequestException):
        return "the connection was refused or broke"
    return error.strerror or str(error)


def _intact(path: Path, archive: Archive) -> bool:
    size = path.stat().st_size
    if size == archive.size:
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, _md5).hexdigest() == archive.md5:
                return True
    wrong = "its checksum is wrong" if size == archive.size else f"{size} bytes instead of {archive.size}"
    _say(f"{path}: {wrong}; it will be replaced")
    return False


def _clips(folder: Path) -> int:
    return sum(parse_name(path.stem) is not None for path in folder.glob("Actor_*/*.wav"))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> int:
    """Run ``python -m emolight download``.

    Returns:
        0; mistakes raise :class:`EmolightError`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m emolight download",
        description="Fetch the RAVDESS recordings (434 MB, 1.2 GB unpacked; CC BY-NC-SA 4.0) from Zenodo.",
    )
    parser.add_argument("root", type=Path, help="folder for the recordings; archives found there are used")
    parser.add_argument("--channels", nargs="+", choices=CHANNELS, default=CHANNELS, help="default: both")
    parser.add_argument("--keep-archives", action="store_true", help="keep fetched archives after unpacking")
    options = parser.parse_args(argv)
    wanted = [archive for archive in ARCHIVES if archive.channel in options.channels]
    download(options.root, wanted, keep_archives=options.keep_archives)
    counts = discover(options.root, strict=False).table["channel"].value_counts()
    print(f"{options.root}: " + ", ".join(f"{counts.get(name, 0)} {name} clips" for name in CHANNELS))
    part = f" --channels {' '.join(options.channels)}" if set(options.channels) < set(CHANNELS) else ""
    print(f"Next: python -m emolight audit {shlex.quote(str(options.root))}{part}")
    return 0
