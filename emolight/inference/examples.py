"""``python -m emolight examples``: right and wrong predictions of a run side by side, to see and to hear."""

from __future__ import annotations

import argparse
import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import soundfile
import yaml
from matplotlib.figure import Figure
from numpy.typing import NDArray

from emolight.data.audio import Waveform, load_waveform
from emolight.data.ravdess import discover
from emolight.data.splits import describe_protocol
from emolight.data.synthetic import MARKER
from emolight.errors import EmolightError
from emolight.evaluation.plots import BLUE, DPI, GREY, VERMILLION, save_figure
from emolight.evaluation.predictions import PREFIX, class_names, read_predictions, scores
from emolight.files import write_text

SUBSETS = {"val": "validation", "test": "test"}
RATE = 16_000
N_FFT, HOP, TOP_DB = 512, 128, 80.0
MAX_BYTES = 5_000_000
MOST = 10


class Run(NamedTuple):
    """What the run folder tells: the predictions, and where the recordings are."""

    name: str
    table: pd.DataFrame
    protocol: str
    root: Path
    trim_db: float | None
    synthetic: bool


@dataclass(frozen=True)
class Example:
    """A prediction with its recording at 16 kHz: ``waveform`` [T]; ``of_label`` is the label's probability."""

    clip_id: str
    label: str
    prediction: str
    probability: float
    of_label: float
    about: str
    waveform: Waveform


@dataclass(frozen=True)
class Row:
    """An emotion: how many of its ``clips`` are ``right``, and examples of both kinds."""

    emotion: str
    clips: int
    right: int
    right_examples: list[Example]
    wrong_examples: list[Example]


def read_run(folder: Path, subset: str, root: Path | None = None) -> Run:
    """Read a run folder.

    Args:
        folder: with ``config.yaml``, ``split.csv`` and ``predictions_<subset>.csv``.
        subset: ``val`` or ``test``.
        root: where the recordings are now; None takes the run's ``data.root``.

    Raises:
        EmolightError: a file is missing or damaged.
    """
    if not (folder / "config.yaml").is_file():
        raise EmolightError(
            f"There is no config.yaml in '{folder}'.", "Give a run folder, lightning_logs/NAME/version_N."
        )
    predictions = folder / f"predictions_{subset}.csv"
    if not predictions.is_file():
        command = "test" if subset == "test" else "validate"
        raise EmolightError(
            f"There is no predictions file {predictions}.",
            f"Write it: python -m emolight {command} --ckpt_path {folder}/checkpoints/best.ckpt",
        )
    table = read_predictions(predictions)
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        data = config["data"]
        where, trim_db, synthetic = Path(data["root"]), data["trim_db"], bool(data["synthetic"])
        protocol = str(pd.read_csv(folder / "split.csv", nrows=1)["protocol"][0])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise EmolightError(
            f"config.yaml or split.csv of '{folder}' cannot be used ({type(error).__name__}).",
            "Take the files that the run wrote, or train again.",
        ) from None
    root = where if root is None else root
    if not root.is_dir():
        raise EmolightError(
            f"There is no folder with recordings at '{root}'.",
            "Start in the folder that the run was started in, or say where they are: --root DIR",
        )
    synthetic = synthetic or (root / MARKER).is_file()
    name = f"{config.get('name') or folder.resolve().parent.name}, {folder.resolve().name}"
    return Run(name, table, protocol, root, trim_db, synthetic)


def choose(table: pd.DataFrame, count: int, pick: str = "confident") -> pd.DataFrame:
    """Right and wrong predictions of every emotion.

    Args:
        table: predictions table.
        count: how many right and how many wrong ones of each emotion, at most.
        pick: ``confident``: those of the highest probability first; ``random``: always the same ones.

    Returns:
        The chosen rows, with the columns ``right`` (bool) and ``probability`` (of the prediction).
    """
    marked = table.assign(
        right=table["label"] == table["prediction"],
        probability=[row[PREFIX + row["prediction"]] for _, row in table.iterrows()],
    )
    if pick == "random":
        marked = marked.sample(frac=1, random_state=0)
    else:
        marked = marked.sort_values("probability", ascending=False, kind="stable")
    return marked.groupby(["label", "right"], sort=False).head(count)


def load_rows(run: Run, chosen: pd.DataFrame) -> list[Row]:
    """Read the recordings of the chosen predictions.

    Raises:
        EmolightError: a recording is missing or cannot be used.
    """
    clips = discover(run.root).table
    paths = dict(zip(clips["clip_id"], clips["path"], strict=True))
    if absent := sorted(set(chosen["clip_id"]) - paths.keys()):
        raise EmolightError(
            f"{len(absent)} of {len(chosen)} recordings are not under '{run.root}', such as {absent[0]}.",
            "Say where the recordings are that the run was trained with: --root DIR",
        )

    def example(row: Any) -> Example:
        about = f"actor {row['actor']} ({row['sex']}), {row['intensity']} {row['channel']}"
        waveform = load_waveform(run.root / paths[row["clip_id"]], RATE, run.trim_db)
        words = (row["clip_id"], row["label"], row["prediction"])
        return Example(*words, row["probability"], row[PREFIX + row["label"]], about, waveform)

    rows = []
    for emotion in class_names(run.table):
        of_emotion = run.table[run.table["label"] == emotion]
        kinds = [chosen[(chosen["label"] == emotion) & (chosen["right"] == kind)] for kind in (True, False)]
        right, wrong = ([example(row) for _, row in kind.iterrows()] for kind in kinds)
        if len(of_emotion):
            correct = int((of_emotion["prediction"] == emotion).sum())
            rows.append(Row(emotion, len(of_emotion), correct, right, wrong))
    return rows


def spectrogram(wave: Waveform) -> NDArray[np.floating]:
    """Power spectra in dB, ``[257, N]``: 32 ms Hann windows every 8 ms, 80 dB deep."""
    padded = np.pad(wave, N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP] * np.hanning(N_FFT)
    level = 20 * np.log10(np.maximum(np.abs(np.fft.rfft(frames)), 1e-5)).T
    image: NDArray[np.floating] = np.maximum(level, level.max() - TOP_DB)
    return image


def draw(rows: Sequence[Row], count: int, title: str) -> Figure:
    """The grid of examples: an emotion a row, right predictions on the left, wrong ones on the right."""
    size = (max(7.0, 5.0 * count + 0.8), 1.75 * len(rows) + 1.3)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=12, parse_math=False)
    left, right = figure.subfigures(1, 2, squeeze=False)[0]
    longest = max(len(one.waveform) for row in rows for one in (*row.right_examples, *row.wrong_examples)) / RATE
    for side, heading, colour in ((left, "right", BLUE), (right, "wrong", VERMILLION)):
        side.suptitle(heading, fontsize=12, color=colour)
        axes = side.subplots(len(rows), count, sharex=True, sharey=True, squeeze=False)
        for row, line in zip(rows, axes, strict=True):
            examples = row.right_examples if side is left else row.wrong_examples
            for axis, one in zip(line, examples, strict=False):
                extent = (0, len(one.waveform) / RATE, 0, RATE / 2000)
                axis.imshow(spectrogram(one.waveform), origin="lower", aspect="auto", extent=extent, cmap="magma")
                axis.set_title(f"{one.label} → {one.prediction} {one.probability:.0%}", fontsize=10, color=colour)
            for axis in line[len(examples) :]:
                axis.set_title(" ", fontsize=10)  # keeps the rows of both sides level
                axis.text(0.5, 0.5, "none", ha="center", color=GREY, transform=axis.transAxes)
            line[0].set_ylabel(f"{row.emotion if side is left else ''}\nkHz", fontsize=10)
        axes[0, 0].set(xlim=(0, longest), ylim=(0, RATE / 2000))
        for axis in axes.flat:
            axis.spines[["top", "right"]].set_visible(False)
        for axis in axes[-1]:
            axis.set_xlabel("time (s)")
    return figure


def thumbnail(wave: Waveform) -> bytes:
    """A spectrogram as PNG of 96 rows and at most 200 columns, in 32 colours."""
    from matplotlib import colormaps
    from PIL import Image

    image = spectrogram(wave)[::-1]
    level = np.round((image - image.max() + TOP_DB) / TOP_DB * 31).clip(0, 31)
    small = Image.fromarray(level.astype(np.float32)).resize((min(200, image.shape[1]), 96), Image.Resampling.BOX)
    indexed = Image.fromarray(np.round(np.asarray(small)).astype(np.uint8))
    colours = colormaps["magma"](np.linspace(0, 1, 32), bytes=True)[:, :3]
    indexed.putpalette(colours.ravel().tolist())
    stream = io.BytesIO()
    indexed.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def page(run: Run, rows: Sequence[Row], subset: str, how: str) -> str:
    """The gallery as one HTML page that needs nothing else.

    Raises:
        EmolightError: it would be larger than 5 MB.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    def uri(kind: str, content: bytes) -> str:
        return f"data:{kind};base64,{base64.b64encode(content).decode()}"

    def card(one: Example) -> dict[str, Any]:
        stream = io.BytesIO()
        # FLAC halves the page; every browser since 2017 plays it.
        soundfile.write(stream, one.waveform.clip(-1, 1), RATE, format="FLAC", subtype="PCM_16")
        media = {"image": uri("image/png", thumbnail(one.waveform)), "sound": uri("audio/flac", stream.getvalue())}
        return {**vars(one), **media, "seconds": len(one.waveform) / RATE}

    kinds = ("right_examples", "wrong_examples")
    shown = [vars(row) | {kind: [card(one) for one in getattr(row, kind)] for kind in kinds} for row in rows]
    trimmed = "" if run.trim_db is None else ", with the silence at both ends cut"
    loader = PackageLoader("emolight.inference", "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    text = environment.get_template("examples.html.j2").render(
        title=f"{run.name}: right and wrong",
        subset=SUBSETS[subset],
        clips=len(run.table),
        right=int((run.table["label"] == run.table["prediction"]).sum()),
        uar=scores(run.table)["uar"],
        protocol=run.protocol,
        meaning=describe_protocol(run.protocol),
        how=how,
        top_khz=RATE // 2000,
        rows=shown,
        synthetic=run.synthetic,
        changes=f"Changed: mono at 16 kHz{trimmed}.",
    )
    if (size := len(text.encode())) > MAX_BYTES:
        problem = f"The page would be {size / 1e6:.1f} MB; it may be {MAX_BYTES / 1e6:.0f} MB."
        raise EmolightError(problem, "Lower --per-emotion.")
    return text


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m emolight examples",
        description="Draw right and wrong predictions of a run, and write a page to hear them.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder: lightning_logs/NAME/version_N")
    parser.add_argument("--subset", choices=SUBSETS, default="val", help="default: %(default)s")
    parser.add_argument(
        "--per-emotion", type=int, default=2, metavar="N", help="right and wrong ones of each; default: %(default)s"
    )
    parser.add_argument(
        "--pick", choices=("confident", "random"), default="confident", help="which ones; default: %(default)s"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: RUN/plots")
    parser.add_argument("--root", type=Path, metavar="DIR", help="the recordings; default: the run's data.root")
    options = parser.parse_args(argv)
    count, subset = options.per_emotion, options.subset
    if not 1 <= count <= MOST:
        raise EmolightError(f"--per-emotion is {count}; it must be from 1 to {MOST}.", "2 is usual.")
    run = read_run(options.run, subset, options.root)
    rows = load_rows(run, choose(run.table, count, options.pick))
    ways = {"confident": "The most confident predictions of each kind.", "random": "Predictions drawn at random."}
    voices = "synthetic voices, " if run.synthetic else ""
    title = f"{run.name}: {SUBSETS[subset]} clips, {voices}{run.protocol}\n{ways[options.pick]}"
    text = page(run, rows, subset, ways[options.pick])
    folder = options.output or options.run / "plots"
    figure, html = folder / f"examples_{subset}.png", folder / f"examples_{subset}.html"
    try:
        save_figure(draw(rows, count, title), figure)
        write_text(html, text)
    except OSError as error:
        raise EmolightError(
            f"Cannot write to '{folder}': {error.strerror}.", "Give another place by --output DIR."
        ) from None
    print(f"{figure}\n{html}")
    return 0
