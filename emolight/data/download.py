"""``python -m emolight download``: the two audio archives of Zenodo record 1188976, checked and unpacked.

An archive that already lies in the folder is used when its checksum is right. One that this command fetched
is deleted once it is unpacked, unless ``--keep-archives``; one that was there before stays.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import stat
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urljoin

import pooch
from tqdm import tqdm

from emolight.data.ravdess import CHANNELS, discover, parse_name
from emolight.errors import EmolightError
from emolight.files import atomic_write


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
            path.unlink()


def extract(path: Path, folder: Path) -> int:
    """Unpack a zip file below ``folder``, each file under its final name only when it is whole.

    A leading folder of the same name as ``folder`` is dropped; a file that is there with the right size is kept.

    Returns:
        Number of files written.

    Raises:
        EmolightError: no zip file, or a member that would land outside ``folder``; nothing is written then.
    """
    try:
        bundle = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise EmolightError(f"{path} is no zip archive: {error}.", "Delete it and run again.") from None
    written = 0
    with bundle:
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
    pooch.get_logger().setLevel("ERROR")
    fetcher = pooch.create(
        path=root,
        base_url="",
        registry={archive.name: f"md5:{archive.md5}"},
        urls={archive.name: url},
        retry_if_failed=retries,
    )
    # requests offers every answer to the hook before it follows a redirect.
    downloader = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(),
        chunk_size=1 << 16,
        timeout=timeout,
        hooks={"response": _watch(by_hand)},
    )
    try:
        fetcher.fetch(archive.name, downloader=downloader)
    except ValueError:
        raise EmolightError(
            f"{url} gave other bytes than the published archive (MD5 {archive.md5}) {retries + 1} times.", by_hand
        ) from None
    except OSError as error:  # those of requests too
        reason = error.strerror or type(error).__name__
        raise EmolightError(
            f"Cannot fetch {archive.name}: {reason}.", f"Check connection and disk and run again. {by_hand}"
        ) from None


def _watch(by_hand: str) -> Callable[..., None]:
    def check(response: Any, **_: object) -> None:
        target = urljoin(response.url, response.headers.get("location", ""))
        if response.is_redirect and not target.startswith("https://"):
            raise EmolightError(f"{response.url} sends on to '{target}', which is not https.", by_hand)
        if 400 <= response.status_code < 500 and response.status_code not in (408, 429):
            raise EmolightError(f"{response.url} answers {response.status_code} {response.reason}.", by_hand)

    return check


def _intact(path: Path, archive: Archive) -> bool:
    size = path.stat().st_size
    if size == archive.size and pooch.file_hash(str(path), alg="md5") == archive.md5:
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
