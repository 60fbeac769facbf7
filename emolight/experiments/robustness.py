"""``python -m emolight robustness``: how well a run's held-out clips are recognised when they are disturbed.

Every recording is decoded and brought to the model's rate once. Each disturbance of it then goes the way of
:mod:`emolight.inference.recognizer`. Noise fills the silence at both ends, so that under it less or nothing is cut, as
it would be with such a recording.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

from emolight.data.audio import AudioError, load_waveform
from emolight.data.splits import SCORED
from emolight.errors import CommandParser, EmolightError, counted
from emolight.evaluation import style
from emolight.evaluation.predictions import predictions_table, scores
from emolight.evaluation.statistics import few_speakers, paired_difference
from emolight.experiments.disturb import DISTURBANCES
from emolight.files import write_table
from emolight.inference.recognizer import Recognizer, load
from emolight.run.folder import Run

CLEAN = DISTURBANCES[0].name


def spread(clips: pd.DataFrame, limit: int) -> pd.DataFrame:
    """``limit`` clips, evenly spread over the emotions and always the same; all of them when there are not more."""
    # Every n-th clip by name could all be of one speaker.
    mixed = clips.sample(frac=1, random_state=0).sort_values("emotion", kind="stable")
    places = (np.arange(limit) + 0.5) * len(clips) / limit
    return clips if limit >= len(clips) else mixed.iloc[places.astype(int)].sort_values("clip_id", ignore_index=True)


def score_disturbed(recognizer: Recognizer, clips: pd.DataFrame, groups: Sequence[str] = ()) -> dict[str, pd.DataFrame]:
    """A predictions table, with the columns ``groups`` of ``clips``, by every disturbance."""
    if unknown := sorted(set(clips["emotion"]) - set(recognizer.classes)):
        problem = f"The model does not know {', '.join(unknown)}, which clips of split.csv are."
        raise EmolightError(problem, "Give a checkpoint of the run whose folder it lies in.")
    rate = recognizer.contract.sample_rate
    found = np.empty((len(DISTURBANCES), len(clips), len(recognizer.classes)))
    rows = track(clips.to_dict("records"), "clips", transient=True, disable=not Console().is_terminal)
    for place, clip in enumerate(rows):
        part = {name: clip[name] for name in ("start", "end") if pd.notna(clip.get(name))}
        wave = load_waveform(clip["file"], rate, None, **part)
        # Each begins with the clip's own random numbers: the noise of all ratios is one noise.
        waves = [one.apply(wave, rate, clip["clip_id"]) for one in DISTURBANCES]
        try:
            predictions = recognizer.predict_batch(waves, rate, whole=True)
        except AudioError as error:
            raise AudioError(clip["file"], f"when disturbed, {error.reason}") from None
        found[:, place] = [list(one.probabilities.values()) for one in predictions]
    tables = (predictions_table(clips, recognizer.classes, of_one, groups) for of_one in found)
    return {one.name: table for one, table in zip(DISTURBANCES, tables, strict=True)}


def card(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The robustness card: a row a disturbance, as fractions; the change is against clean, its interval by speaker."""
    clean, rows = tables[CLEAN], []
    several = clean["speaker"].nunique() > 1
    for one in DISTURBANCES:
        values = scores(tables[one.name])
        change = paired_difference(tables[one.name], clean)
        low, high = change.interval if several else (np.nan, np.nan)
        rows.append((one.name, one.group, values["uar"], values["accuracy"], change.value, low, high, values["n"]))
    ends = ["uar_change", "uar_change_low", "uar_change_high"]
    return pd.DataFrame(rows, columns=["disturbance", "group", "uar", "accuracy", *ends, "clips"])


def card_figure(rows: pd.DataFrame, classes: int, title: str) -> Figure:
    """The card as a picture: a dot a disturbance, with the interval of its change laid around it."""
    groups = rows["group"].ne(rows["group"].shift()).cumsum() - 1
    places = np.arange(len(rows)) + 0.6 * groups.to_numpy()  # a gap between groups
    uar, clean, chance = 100 * rows["uar"], 100 * float(rows["uar"].iloc[0]), 100 / classes
    figure = style.new_figure(style.WIDTH, 1.9 + 0.27 * (places[-1] + 1), title)
    axis = figure.subplots()
    lines = [
        axis.axvline(clean, color=style.VERMILLION, linewidth=1.8, linestyle="--", label=f"clean, UAR {clean:.1f} %"),
        axis.axvline(chance, color=style.GREY, linewidth=1.8, linestyle=":", label=f"chance {chance:.1f} %"),
    ]
    low, high = (clean + 100 * rows[f"uar_change_{end}"] for end in ("low", "high"))
    interval = "95 % interval of the change, by speaker"
    bars = axis.hlines(places, low, high, color=style.INK, linewidth=1.6, label=interval)
    axis.plot(uar, places, "o", color=style.BLUE, markersize=7, zorder=3)
    style.clean_axis(axis, "x")
    axis.set(xlim=(0, 100.4), ylim=(places[-1] + 0.7, -0.7), xlabel="UAR (%); left, its change in points")
    changes = ["", *(f"  {change:+.1f}" for change in 100 * rows["uar_change"].iloc[1:])]
    axis.set_yticks(places, rows["disturbance"] + changes)
    axis.tick_params(axis="y", length=0)
    style.legend_below(figure, [*lines, bars], 2)
    return figure


def print_card(rows: pd.DataFrame, title: str) -> None:
    """Print the card, in percent and points."""
    names = {"uar": "UAR %", "accuracy": "accuracy %", "uar_change": "change", "uar_change_low": "from"}
    shown = 100 * rows.set_index("disturbance")[[*names, "uar_change_high"]]
    table = shown.rename(columns={**names, "uar_change_high": "to"}).rename_axis(None)
    print(f"{title}\n{table.to_string(float_format='{:.1f}'.format, na_rep='')}")
    print("The change is in points of UAR against clean, with its 95 % interval by speaker.")


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = CommandParser("robustness", "Score a model on its run's held-out clips, clean and disturbed.")
    add, scoring = parser.add_argument, "default: %(default)s; test counts as a scoring of the test set"
    add("run", type=Path, metavar="RUN", help="a run folder (its best checkpoint), or a checkpoint")
    add("--subset", choices=tuple(SCORED), default="val", help=scoring)
    where = "the recordings, of several corpora one folder each; default: the run's data.root"
    add("--root", "--data.root", dest="root", nargs="+", metavar="DIR", help=where)
    add("--output", type=Path, metavar="DIR", help="default: RUN/robustness")
    add("--limit", type=int, metavar="N", help="only N of the clips, for a quick look")
    add("--device", default="cpu", help="cpu, cuda, mps; default: %(default)s")
    options = parser.parse_args(argv)
    if options.limit is not None and options.limit < 1:
        raise EmolightError(f"--limit is {options.limit}; it must be at least 1.", "Leave it out for all clips.")
    path, subset = options.run.expanduser(), options.subset
    run = Run.open(path)
    if subset == "test" or options.output is None:
        run.check_writable()
    checkpoint = path if path.is_file() else run.best
    if not run.split.clips(subset):
        other = "val" if subset == "test" else "test"
        raise EmolightError(f"Split '{run.split.label}' has no {subset} clips.", f"Take --subset {other}.")
    recognizer = load(checkpoint, options.device)
    data = run.data(root=options.root)
    data.setup()
    held = data.clips.iloc[data.subset(subset)].reset_index(drop=True)
    clips = held if options.limit is None else spread(held, options.limit)
    tables = score_disturbed(recognizer, clips, data.groups)
    times = run.count_test(checkpoint, len(clips)) if subset == "test" else 0
    rows = card(tables)
    count = f"{len(clips)} of {len(held)}" if len(clips) < len(held) else str(len(held))
    title = f"{run.name}, {checkpoint.name}: {count} {SCORED[subset]} clips of {data.corpus_name}, disturbed"
    note = f"{run.split.label} ({run.split.meaning})"
    folder = (options.output or run.folder / "robustness").expanduser()
    table, picture = folder / f"robustness_{subset}.csv", folder / f"robustness_{subset}.png"
    write_table(table, rows)
    style.save_figure(card_figure(rows, len(recognizer.classes), f"{title}\n{note}"), picture)
    print_card(rows, title)
    print(f"split: {note}")
    if few := few_speakers(clips["speaker"].nunique()):
        print(f"note:  {few}")
    if times:
        print(f"test:  the test set of this run was scored {counted(times, 'time')}")
    print(f"{table}\n{picture}")
    return 0
