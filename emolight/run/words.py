"""The words of a command line: parsed, replaced, taken out, and what people mean by a mistyped one."""

import difflib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from emolight.errors import EmolightError, nearest

CONFIG_OPTIONS = ("--config", "-c")
PACKAGE = Path(__file__).resolve().parents[1]
MEANT = {
    **dict.fromkeys(("epochs", "max_epochs", "n_epochs", "num_epochs"), "trainer.max_epochs"),
    **dict.fromkeys(("lr", "learning_rate", "model.lr"), "model.learning_rate"),
    **dict.fromkeys(("gpus", "devices", "trainer.gpus"), "trainer.devices"),
    **dict.fromkeys(("bs", "batch_size", "data.bs"), "data.batch_size"),
    **dict.fromkeys(("data_dir", "root", "data.data_dir", "data.path"), "data.root"),
    **dict.fromkeys(("dataset", "corpus", "data.synthetic", "data.dataset"), "data.corpus"),
    **{"workers": "data.num_workers", "device": "trainer.accelerator", "accelerator": "trainer.accelerator"},
    **{"fold": "data.fold", "protocol": "data.protocol", "task": "data.task", "data.channels": "data.filter"},
    **{"seed": "seed_everything", "precision": "trainer.precision", "logger": "trainer.logger"},
    **dict.fromkeys(("pretrained", "model.pretrained"), "model.network.pretrained"),
    **{"network": "model.network", "features": "model.features", "checkpoint": "ckpt_path", "ckpt": "ckpt_path"},
}
"""What people type for an option of ``fit``."""


def word_of(name: str, value: Any) -> str:
    """``--NAME=VALUE`` as ``fit`` reads it: a text or path as it is, plain values as JSON; EmolightError for others."""

    def plain(one: Any) -> Any:
        if isinstance(one, Path) or hasattr(one, "item"):  # a number of NumPy
            return str(one) if isinstance(one, Path) else one.item()
        fix = "Name a class, as {'class_path': 'EarlyStopping', 'init_args': {'monitor': 'val/uar'}}; see docs/api.md."
        raise EmolightError(f"{name} has an object, {one!r:.80}; options are plain values, as in YAML.", fix)

    return f"--{name}={value if isinstance(value, str | Path) else json.dumps(value, default=plain)}"


def meant(option: str, valid: Iterable[str]) -> str:
    """The option that was probably meant, or an empty text; both without dashes."""
    names = list(valid)
    if (near := f"{option}s") in names or (near := MEANT.get(option, "")).removesuffix(".pretrained") in names:
        return near
    group, dot, end = option.rpartition(".")
    last = {name.rpartition(".")[2]: name for name in names if name.startswith(group + dot)}
    if close := difflib.get_close_matches(end, last, n=1, cutoff=0.75):
        return last[close[0]]
    return next(iter(difflib.get_close_matches(option, names, n=1, cutoff=0.8)), "")


def replaced(argv: Sequence[str], names: Sequence[str], change: Callable[[str, str], list[str]]) -> list[str]:
    """``argv`` with every ``NAME VALUE`` and ``NAME=VALUE`` as the words that ``change(name, value)`` gives."""
    done, words = [], iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name not in names or not (equals or (value := next(words, ""))):
            done.append(word)  # where the value is missing, the parser says so
        else:
            done += change(name, value)
    return done


def take(argv: Sequence[str], *names: str) -> tuple[list[str], list[str]]:
    """``argv`` without some options, and their values."""
    values: list[str] = []

    def note(_: str, value: str) -> list[str]:
        values.append(value)
        return []

    return replaced(argv, names, note), values


def shipped(kind: str) -> Path:
    """The folder ``configs`` or ``sweeps`` that comes along: in the package, or beside it in a clone."""
    inside = PACKAGE / kind
    return inside if inside.is_dir() else PACKAGE.parent / kind


def places(kind: str) -> list[Path]:
    """Where ``--config NAME`` is looked for: this folder, its ``configs/`` (or ``sweeps/``), what comes along."""
    return [Path(), *(base / inner for base in (Path(kind), shipped(kind)) for inner in ("", "overlays"))]


def names(kind: str) -> list[str]:
    """The recipes or sweeps that ``--config NAME`` finds, those of this folder aside."""
    return sorted({path.stem for place in places(kind)[1:] for path in place.glob("*.yaml")})


def with_recipes(argv: Sequence[str], sweep: bool = False) -> list[str]:
    """``argv`` with ``--config mfcc`` as the path of ``mfcc.yaml``; the first of ``sweep`` and ``--nested`` are sweeps.

    EmolightError for a name that nothing has; a missing path is left to the parser.
    """
    kinds = ["sweeps"] if sweep else []

    def path_of(option: str, value: str) -> list[str]:
        kind = "sweeps" if option == "--nested" else kinds.pop() if kinds else "configs"
        if value.startswith("{") or Path(value).is_file():
            return [option, value]
        file = value if Path(value).suffix in (".yaml", ".yml") else f"{value}.yaml"
        for place in (*places(kind), shipped(kind).parent):
            if (place / file).is_file():
                return [option, str(place / file)]
        if file == value or Path(value).name != value:
            return [option, value]
        what, other = ("sweep", "fit") if kind == "sweeps" else ("configuration file", "sweep")
        there = f"{nearest(value, names(kind))}There are: {', '.join(names(kind))}."
        if option != "--nested" and value in names("configs" if other == "fit" else "sweeps"):
            there = f"Type: python -m emolight {other} --config {value}"
        raise EmolightError(f"There is no {what} {value}.", there)

    return replaced(argv, (*CONFIG_OPTIONS, "--nested"), path_of)


def with_own_classes(argv: Sequence[str]) -> list[str]:
    """``argv`` with ``null`` before a class of one's own: else it would be given the arguments of the class before."""

    def alone(option: str, value: str) -> list[str]:
        foreign = "." in value and not value.startswith(("emolight.", "{"))
        return [option, "null", option, value] if foreign else [option, value]

    return replaced(argv, ("--model.features", "--model.network"), alone)
