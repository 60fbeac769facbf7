"""``python -m emolight download``: the archives of a corpus, checked and unpacked.

An archive that already lies in the folder is used when its checksum is right. One that this command fetched is
deleted once it is unpacked; one that was there before stays.
"""

import shlex
import shutil
import stat
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urljoin

from emolight.data.corpora import CORPORA, corpus_of, module_of
from emolight.data.corpus import Archive, Corpus, walk
from emolight.errors import CommandParser, EmolightError, trust
from emolight.files import atomic_write, remove_left_overs

TIMEOUT = (15.0, 60.0)  # seconds to connect, and seconds without a byte, until a server counts as dead
WORK = ".download"  # folder, below the root, of a download on its way; what a killed one left there goes with the next


def download(
    root: str | Path,
    corpus: Corpus,
    only: str = "",
    allow_http: bool = False,
    retries: int = 2,
    timeout: tuple[float, float] = TIMEOUT,
) -> None:
    """Fetch and unpack the archives of ``corpus`` below ``root``; what is complete is left alone.

    An archive counts as complete without being fetched again when all its clips are unpacked. Where the archive itself
    is at hand, clips of the wrong size are unpacked anew. ``only``: those whose name contains it. ``allow_http``: for a
    server on this machine; a redirect to http never passes. ``retries``: after a broken connection or wrong checksum.
    """
    import requests
    from pooch.hashes import hash_matches

    root = Path(root).expanduser()
    if not corpus.archives:
        fix = f"Get them from the publisher ({corpus.citation or 'see there'}) and unpack them below {root}"
        raise EmolightError(f"The recordings of {corpus.name} cannot be fetched by this command.", fix)
    archives = [archive for archive in corpus.archives if only.lower() in archive.name.lower()]
    if not archives:
        names = ", ".join(archive.name for archive in corpus.archives)
        raise EmolightError(f"No archive of {corpus.name} is called '{only}'.", f"There are {names}.")
    if root.exists() and not root.is_dir():
        raise EmolightError(f"'{root}' is a file.", "Give the folder that the recordings shall go to.")
    for archive in archives:
        if not archive.url.startswith("https://") and not allow_http:
            raise EmolightError(f"'{archive.url}' is not https.", "Recordings are fetched by https only.")
        folder, path = root / archive.folder, root / archive.name
        before = path.exists()
        try:
            remove_left_overs(folder)
            if not before and _clips(folder, corpus) >= archive.clips:
                print(f"{folder}: all {archive.clips} clips are there already", file=sys.stderr)
                continue
            if not before or not hash_matches(str(path), archive.checksum):
                _fetch(path, archive, retries, timeout)
            written = extract(path, folder)
        except (OSError, ValueError) as error:  # the former of requests, too; the latter is pooch's wrong checksum
            reason = f"the server gave other bytes than the published archive ({archive.checksum})"
            if isinstance(error, requests.Timeout):
                reason = f"nothing came for {timeout[1]:g} s"
            elif isinstance(error, OSError):
                reason = error.strerror or "the connection was refused or broke"
            raise EmolightError(
                f"Cannot fetch or unpack {archive.name}: {reason}.",
                "Check connection and disk and run again, which goes on from there. "
                f"Or get it from {archive.url}, place it at {path} and run again.",
            ) from None
        print(f"{folder}: {written} files unpacked, {_clips(folder, corpus)} clips are there", file=sys.stderr)
        if not before:
            path.unlink(missing_ok=True)


def extract(path: Path, folder: Path) -> int:
    """Unpack a zip file below ``folder``, each file under its final name only when it is whole; returns their number.

    A leading folder of the same name as ``folder`` is dropped; a file that is there with the right size is kept.
    Nothing is written when a member would land outside.
    """
    written = 0
    try:
        with zipfile.ZipFile(path) as bundle:
            for info, inside in [(info, _inside(path, info)) for info in bundle.infolist()]:
                target = folder.joinpath(*inside.parts[inside.parts[0] == folder.name :])
                if info.is_dir() or (target.is_file() and target.stat().st_size == info.file_size):
                    continue
                with atomic_write(target) as part, bundle.open(info) as source, part.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
                written += 1
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise EmolightError(f"{path} is no whole zip archive: {error}.", "Delete it and run again.") from None
    return written


def _inside(path: Path, info: zipfile.ZipInfo) -> PurePosixPath:
    name = PurePosixPath(info.filename.replace("\\", "/"))
    link = stat.S_ISLNK(info.external_attr >> 16)
    if link or name.is_absolute() or not name.parts or ".." in name.parts or ":" in name.parts[0]:
        problem = f"{path} holds '{info.filename}', which is a link or leads out of its folder; nothing was unpacked."
        raise EmolightError(problem, "This is not the published archive: delete it and run again.")
    return name


def _fetch(path: Path, archive: Archive, retries: int, timeout: tuple[float, float]) -> None:
    """Download into a folder beside the target, check the file, move it; nothing partial stays behind."""
    import pooch

    def check(response: Any, **_: object) -> None:
        """Of every answer, before requests follows a redirect."""
        target = urljoin(response.url, response.headers.get("location", ""))
        wrong = f"answers {response.status_code} {response.reason}" if response.status_code >= 400 else ""
        if response.is_redirect and not target.startswith("https://"):
            wrong = f"sends on to '{target}', which is not https"
        if wrong:
            fix = f"Run again later. Or get it from {archive.url}, place it at {path} and run again."
            raise EmolightError(f"{response.url} {wrong}.", fix)

    work = path.parent / WORK
    print(f"Fetching {archive.url} ({archive.size / 1e6:.0f} MB)", file=sys.stderr)
    pooch.get_logger().setLevel("WARNING")
    try:
        shutil.rmtree(work, ignore_errors=True)
        how = {"chunk_size": 1 << 16, "timeout": timeout, "hooks": {"response": check}}
        fetch = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), **how)
        one = {"registry": {archive.name: archive.checksum}, "urls": {archive.name: archive.url}}
        shelf = pooch.create(work, base_url="", retry_if_failed=retries, **one)
        Path(shelf.fetch(archive.name, downloader=fetch)).replace(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _clips(folder: Path, corpus: Corpus) -> int:
    return sum(corpus.parse_path(path) is not None for path in walk(folder, Counter()))


def main(argv: Sequence[str]) -> int:
    """Run ``python -m emolight download``; returns 0, and mistakes raise :class:`EmolightError`."""
    about = "Fetch the recordings of a corpus from its publisher (RAVDESS: 434 MB, 1.2 GB unpacked)."
    parser = CommandParser("download", about)
    parser.add_argument("root", type=Path, help="folder for the recordings; archives found there are used")
    parser.add_argument("--corpus", default="RAVDESS", help=f"default: RAVDESS; of {', '.join(CORPORA)}")
    parser.add_argument("--only", default="", metavar="WORD", help="archives with this in their name, such as speech")
    options = parser.parse_args(argv)
    trust([module_of(options.corpus)])
    corpus, root = corpus_of(options.corpus), options.root.expanduser()
    download(root, corpus, options.only)
    print(f"{root}: {len(corpus.find(root, strict=False).table)} clips; licence: {corpus.licence}")
    print(f"Next: python -m emolight audit {shlex.quote(str(root))} --corpus {options.corpus}")
    return 0
