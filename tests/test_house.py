"""The house keeps its shape: floors, sizes, names."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

import emolight

PACKAGE = Path(emolight.__file__).parent
FLOORS = [
    {"errors", "files"},
    {"data", "evaluation"},
    {"models"},
    {"run"},
    {"experiments", "inference"},
    {"report"},
    {"sweep"},
    {"api", "__main__", "help_text"},
]
"""A room imports from its own and from lower floors; ``emolight`` itself, with the version, belongs to nobody."""
SIDEWAYS = {("experiments", "inference")}
"""Rooms of one floor of which the first may import the second."""
APART = {("models", "data")}
"""Rooms of different floors that must not know each other."""
MOST_LINES = 15_628
"""To be lowered with every change, to 10,000."""
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import of the package, also inside functions and type-checking blocks."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "emolight")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "emolight":
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def floor_of(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_nothing_is_imported_from_a_higher_floor(path: Path) -> None:
    place = path.relative_to(PACKAGE)
    if len(place.parts) == 1 and place.stem == "__init__":
        return  # the public names, imported when they are asked for
    room = place.parts[0] if len(place.parts) > 1 else place.stem
    for line, module in imports(path):
        other = room_of(module)
        if other in ("", "__version__") or other == room:
            continue
        highest = floor_of(room) == len(FLOORS) - 1
        allowed = floor_of(other) < floor_of(room) + highest or (room, other) in SIDEWAYS
        assert allowed, f"{place}, line {line}: {room} imports {module}"
        assert (room, other) not in APART, f"{place}, line {line}: {room} imports {module}"


def test_no_module_imports_itself_in_a_circle() -> None:
    """Within a room, too: a circle of modules is one module in disguise."""
    graph: dict[str, set[str]] = {}
    for path in FILES:
        parts = ("emolight", *path.relative_to(PACKAGE).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        graph[name] = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:  # what is imported at once
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "emolight":
                graph[name] |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    graph = {name: {other for other in found if other in graph and other != name} for name, found in graph.items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above[above.index(name) :], name))
        if name not in done:
            for other in graph[name] - {"emolight"}:
                visit(other, (*above, name))
            done.add(name)

    for name in graph:
        if name != "emolight":
            visit(name, ())


def test_files_are_small_and_the_package_too() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert [f"{path}: {count}" for path, count in lines.items() if count > 350] == []
    assert sum(lines.values()) < MOST_LINES
    assert statistics.median(count for count in lines.values() if count > 5) <= 180


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_only_its_own_file_names_a_corpus(path: Path) -> None:
    """Imports and names of RAVDESS stand in its own file, in the list of corpora, and in texts for people."""
    place = path.relative_to(PACKAGE).as_posix()
    own = ("data/corpora/", "__init__.py", "__main__.py")
    if place.startswith(own):
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.alias) and "RAVDESS" in str(vars(node))
    ]
    assert named == []


def test_no_front_end_is_asked_for_its_mode_outside_of_its_file() -> None:
    for path in FILES:
        if path.name == "features.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and isinstance(node.left, ast.Attribute):
                assert node.left.attr != "mode", f"{path}, line {node.lineno}"
