"""``python -m emolight recipes``: the recipes and sweeps that come along; with a folder, copies of them to edit."""

from pathlib import Path

from emolight.errors import CommandParser
from emolight.files import write_text
from emolight.run.words import shipped


def main(argv: list[str]) -> int:
    """Run the command."""
    about = "List the recipes and sweeps that `--config NAME` finds, or copy them to a folder, to edit them."
    parser = CommandParser("recipes", about)
    about = "copy them here; files that are there stay as they are"
    parser.add_argument("folder", nargs="?", metavar="DIR", help=about)
    folder = parser.parse_args(argv).folder
    for kind in ("configs", "sweeps"):
        for path in sorted(shipped(kind).rglob("*.yaml")):
            text = path.read_text(encoding="utf-8")
            name = f"{kind}/{path.relative_to(shipped(kind)).as_posix()}"
            if not folder:
                print(f"{name:<38}{text.partition(chr(10))[0].lstrip('# ')}")
                continue
            copy = Path(folder).expanduser() / name
            if not (kept := copy.exists()):
                write_text(copy, text)
            print(f"{copy} is there and stays as it is" if kept else copy)
    return 0
