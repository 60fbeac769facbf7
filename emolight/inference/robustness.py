"""``python -m emolight robustness``: how well a run's held-out clips are heard when they are disturbed.

Every recording is decoded and brought to the model's rate once. Each disturbance of it then goes the way of
:mod:`emolight.inference.predict`: silence cut, length, front-end, network. Signal-to-noise ratios are thus those of
the band that the model hears. Noise fills the silence at both ends, so that under it less or nothing is cut, as it
would be with such a recording.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import yaml
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from emolight.data.audio import AudioError, load_waveform
from emolight.data.ravdess import discover
from emolight.data.splits import describe_protocol
from emolight.data.synthetic import MARKER
from emolight.errors import EmolightError
from emolight.evaluation.plots import BLUE, GREY, INK, VERMILLION, _clean, _figure, save_figure
from emolight.evaluation.predictions import predictions_table, scores
from emolight.evaluation.statistics import paired_difference
from emolight.files import write_text
from emolight.inference.disturb import DISTURBANCES, random_of
from emolight.inference.recognizer import Recognizer, load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUBSETS = {"val": "validation", "test": "test"}
CLEAN = DISTURBANCES[0].name


class Held(NamedTuple):
    """The held-out clips of a run: its ``name``, the clip table, the ``protocol`` and where the recordings are."""

    name: str
    clips: pd.DataFrame
    protocol: str
    root: Path
    synthetic: bool


def read_held(folder: Path, subset: str, root: Path | None = None) -> Held:
    """Read which clips a run holds out.

    Args:
        folder: run folder, with ``config.yaml`` and ``split.csv``.
        subset: ``val`` or ``test``.
        root: where the recordings are now; None takes the run's ``data.root``.

    Raises:
        EmolightError: a file is missing or damaged, the split has no such clips, or recordings are missing.
    """
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        where, synthetic = Path(config["data"]["root"]), bool(config["data"]["synthetic"])
        split = pd.read_csv(folder / "split.csv")
        protocol, held = str(split["protocol"][0]), split.loc[split["subset"] == subset, ["clip_id", "emotion"]]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise EmolightError(
            f"config.yaml or split.csv of '{folder}' cannot be used ({type(error).__name__}).",
            "Take the files that the run wrote, or train again.",
        ) from None
    if held.empty:
        other = "--subset val" if subset == "test" else "--subset test"
        raise EmolightError(f"Split '{protocol}' has no {subset} clips.", f"Take {other}.")
    root = where if root is None else root
    if not root.is_dir():
        raise EmolightError(
            f"There is no folder with recordings at '{root}'.",
            "Start in the folder that the run was started in, or say where they are: --root DIR",
        )
    found = discover(root).table
    if absent := sorted(set(held["clip_id"]) - set(found["clip_id"])):
        raise EmolightError(
            f"{len(absent)} of {len(held)} recordings are not under '{root}', such as {absent[0]}.",
            "Say where the recordings are that the run was trained with: --root DIR",
        )
    clips = held.merge(found.drop(columns="emotion"), on="clip_id").sort_values("clip_id", ignore_index=True)
    name = f"{config.get('name') or folder.resolve().parent.name}, {folder.resolve().name}"
    return Held(name, clips, protocol, root, synthetic or (root / MARKER).is_file())


def spread(clips: pd.DataFrame, limit: int) -> pd.DataFrame:
    """``limit`` clips, evenly spread over the emotions and always the same; all of them when there are not more."""
    # Every n-th clip by name could all be of one actor.
    mixed = clips.sample(frac=1, random_state=0).sort_values("emotion", kind="stable")
    places = (np.arange(limit) + 0.5) * len(clips) / limit
    return (
        clips if limit >= len(clips) else mixed.iloc[places.astype(int)].sort_values("clip_id", ignore_index=True)
    )


def hear_disturbed(recognizer: Recognizer, held: Held) -> dict[str, pd.DataFrame]:
    """Predictions of every clip under every disturbance; the disturbances of a clip are one pass of the network.

    Returns:
        Disturbance to predictions table, in the order of :data:`~emolight.inference.disturb.DISTURBANCES`.

    Raises:
        EmolightError: the model does not know an emotion of the clips.
        AudioError: a recording cannot be used.
    """
    if unknown := sorted(set(held.clips["emotion"]) - set(recognizer.classes)):
        raise EmolightError(
            f"The model does not know {', '.join(unknown)}, which clips of split.csv are.",
            "Give a checkpoint of the run whose folder it lies in.",
        )
    rate = recognizer.contract.sample_rate
    found = np.empty((len(DISTURBANCES), len(held.clips), len(recognizer.classes)))
    clips = zip(held.clips["clip_id"], held.clips["path"], strict=True)
    for place, (clip_id, path) in enumerate(tqdm(clips, total=len(held.clips), unit="clip", disable=None)):
        wave = load_waveform(held.root / path, rate, None)
        # Each begins with the clip's own random numbers: the noise of all ratios is one noise.
        waves = [one.apply(wave, rate, random_of(clip_id)) for one in DISTURBANCES]
        try:
            predictions = recognizer.predict_batch(waves, rate)
        except AudioError as error:
            raise AudioError(held.root / path, f"when disturbed, {error.reason}") from None
        found[:, place] = [list(one.probabilities.values()) for one in predictions]
    tables = (predictions_table(held.clips, recognizer.classes, rows) for rows in found)
    return {one.name: table for one, table in zip(DISTURBANCES, tables, strict=True)}


def card(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The robustness card.

    Args:
        tables: from :func:`hear_disturbed`.

    Returns:
        A row a disturbance, as fractions: ``disturbance, group, uar, wa, uar_change, uar_change_low,
        uar_change_high`` and ``clips``. The change is against clean, with its 95 % interval by actor, which is
        missing when all clips are of one actor.
    """
    clean, rows = tables[CLEAN], []
    several = clean["actor"].nunique() > 1
    for one in DISTURBANCES:
        values = scores(tables[one.name])
        change = paired_difference(tables[one.name], clean)
        low, high = change.interval if several else (np.nan, np.nan)
        rows.append((one.name, one.group, values["uar"], values["wa"], change.value, low, high, values["n"]))
    columns = ["disturbance", "group", "uar", "wa", "uar_change", "uar_change_low", "uar_change_high", "clips"]
    return pd.DataFrame(rows, columns=columns)


def draw(found: pd.DataFrame, classes: int, title: str) -> Figure:
    """The card as a picture: a dot a disturbance, with the interval of its change laid around it.

    Args:
        found: from :func:`card`.
        classes: emotions of the task, of which chance is one part.
        title: above the figure.
    """
    groups = found["group"].ne(found["group"].shift()).cumsum() - 1
    places = np.arange(len(found)) + 0.6 * groups.to_numpy()  # a gap between groups
    uar, clean, chance = 100 * found["uar"], 100 * float(found["uar"].iloc[0]), 100 / classes
    figure = _figure(9.6, 1.9 + 0.27 * (places[-1] + 1), title)
    figure.set_layout_engine("constrained", w_pad=0.12)
    axis = figure.subplots()
    lines = [
        axis.axvline(clean, color=VERMILLION, linewidth=1.8, linestyle="--", label=f"clean, UAR {clean:.1f} %"),
        axis.axvline(chance, color=GREY, linewidth=1.8, linestyle=":", label=f"chance {chance:.1f} %"),
    ]
    low, high = (clean + 100 * found[f"uar_change_{end}"] for end in ("low", "high"))
    bars = axis.hlines(places, low, high, color=INK, linewidth=1.6, label="95 % interval of the change, by actor")
    axis.plot(uar, places, "o", color=BLUE, markersize=7, zorder=3)
    _clean(axis, "x")
    axis.set_xlim(0, 100.4)
    axis.set_ylim(places[-1] + 0.7, -0.7)
    axis.set_yticks(places, found["disturbance"])
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel("UAR (%)")
    axis.text(1.08, 1.01, "UAR", ha="right", va="bottom", color=GREY, transform=axis.transAxes)
    axis.text(1.18, 1.01, "change", ha="right", va="bottom", color=GREY, transform=axis.transAxes)
    for place, value, change in zip(places, uar, 100 * found["uar_change"], strict=True):
        texts = ((1.08, f"{value:.1f}"), (1.18, "" if place == 0 else f"{change:+.1f}"))
        for x, text in texts:
            axis.text(x, place, text, ha="right", va="center", color=INK, transform=axis.get_yaxis_transform())
    figure.legend(handles=[*lines, bars], loc="outside lower center", ncols=3, frameon=False)
    return figure


def print_card(found: pd.DataFrame, title: str) -> None:
    """Print the card as a table."""
    grid = Table(title=title, title_justify="left")
    grid.add_column("disturbance")
    for name in ("UAR", "WA", "change", "95 % by actor"):
        grid.add_column(name, justify="right")
    ends = found["group"].ne(found["group"].shift(-1))
    for (_, row), last in zip(found.iterrows(), ends, strict=True):
        change, low, high = (100 * row[f"uar_change{end}"] for end in ("", "_low", "_high"))
        interval = f"{low:+.1f} to {high:+.1f}" if np.isfinite(low) else "one actor"
        words = ("", "") if row["disturbance"] == CLEAN else (f"{change:+.1f}", interval)
        grid.add_row(row["disturbance"], f"{row['uar']:.1%}", f"{row['wa']:.1%}", *words, end_section=bool(last))
    console = Console(highlight=False, soft_wrap=True)
    console.print(grid)
    console.print("WA is accuracy; the change is in points of UAR against clean.")


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m emolight robustness",
        description="Score a checkpoint on its run's held-out clips, clean and disturbed.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="a checkpoint in its run folder")
    parser.add_argument(
        "--subset",
        choices=SUBSETS,
        default="val",
        help="default: %(default)s; test counts as an opening of the test set",
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="the recordings; default: the run's data.root")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: RUN/robustness")
    parser.add_argument("--limit", type=int, metavar="N", help="only N of the clips, for a quick look")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps; default: %(default)s")
    options = parser.parse_args(argv)
    checkpoint, subset = options.checkpoint, options.subset
    if options.limit is not None and options.limit < 1:
        raise EmolightError(f"--limit is {options.limit}; it must be at least 1.", "Leave it out for all clips.")
    if checkpoint.suffix == ".onnx":
        raise EmolightError(
            f"'{checkpoint}' is an exported model, which does not tell its held-out clips.",
            "Give the checkpoint that it was exported from: RUN/checkpoints/best.ckpt",
        )
    from emolight.runs import record_opening, run_folder_of

    recognizer = load(checkpoint, options.device)
    run = run_folder_of(checkpoint)
    if run is None:
        raise EmolightError(
            f"No config.yaml in the folders above {checkpoint}.",
            "Give a checkpoint in its run folder: its split.csv tells the held-out clips.",
        )
    held = read_held(run, subset, options.root)
    total = len(held.clips)
    if options.limit is not None:
        held = held._replace(clips=spread(held.clips, options.limit))
    if subset == "test":
        record_opening(run, checkpoint.name, len(held.clips))
    found = card(hear_disturbed(recognizer, held))
    count = f"{len(held.clips)} of {total}" if len(held.clips) < total else str(total)
    title = f"{held.name}, {checkpoint.name}: {count} {SUBSETS[subset]} clips, disturbed"
    note = f"{held.protocol}, {describe_protocol(held.protocol)}"
    note = f"synthetic voices, {note}" if held.synthetic else note
    folder = options.output or run / "robustness"
    table, picture = folder / f"robustness_{subset}.csv", folder / f"robustness_{subset}.png"
    try:
        write_text(table, found.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
        save_figure(draw(found, len(recognizer.classes), f"{title}\n{note}"), picture)
    except OSError as error:
        raise EmolightError(
            f"Cannot write to '{folder}': {error.strerror}.", "Give another place by --output DIR."
        ) from None
    print_card(found, title)
    print(f"split: {note}\n{table}\n{picture}")
    return 0
