"""How ``audit`` shows its report: tables and lists for people, and a figure of the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emolight.files import atomic_write

LISTED = 20
"""Entries of a list that are printed; the JSON has all."""
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
"""Okabe and Ito's, safe for the colour-blind."""


def show(report: Mapping[str, Any], errors: Mapping[str, str], warnings: Mapping[str, str]) -> None:
    """Print the report of :func:`emolight.data.audit.audit`.

    Args:
        report: what it returned.
        errors: key of the report to what it lists, in words.
        warnings: the same.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, soft_wrap=True)
    counts = report["counts"]
    table = Table("emotion", *counts, title=f"{report['corpus']}: clips found / published", title_justify="left")
    for name in emotions_of(report):
        table.add_row(name, *(_pair(of.get(name, (0, 0))) for of in counts.values()))
    console.print(table)
    short = [f"{name}: {_pair(pair)}" for name, pair in report["speakers"].items() if pair[1] not in (None, pair[0])]
    console.print(f"{len(report['speakers'])} speakers" + (f", {len(short)} of them not complete:" if short else ""))
    _list(console, short)
    table = Table(report["by"] or "", "sample rates (Hz)", "audio channels", "seconds: min / median / max")
    for group, sound in report["sound"].items():
        if group == "all" and len(counts) > 1:
            continue
        parts = (sound["sample_rates"], sound["channel_counts"])
        tallies = (", ".join(f"{value} × {count}" for value, count in part.items()) for part in parts)
        table.add_row(group, *tallies, " / ".join(f"{second:.2f}" for second in sound["seconds"].values()))
    console.print(table)
    for split, share in report["twin_share"].items():
        said = share if isinstance(share, str) else f"{100 * share:.1f} %"
        console.print(f"{split}: validation clips of which another take is in training: {said}")
    for name, title in {**errors, **warnings}.items():
        if entries := report[name]:
            console.print(f"{'ERROR' if name in errors else 'warning'}: {len(entries)} {title}")
            _list(console, [entry if isinstance(entry, str) else "  |  ".join(entry) for entry in entries])
    for reason, count in report["passed_over"].items():
        console.print(f"passed over: {count} × {reason}")
    known = any(pair[1] is not None for pair in counts["all"].values())
    fine = "The set is complete and sound." if known else "The recordings are sound; what was published is not known."
    console.print(fine if report["ok"] else "Something is wrong: see ERROR above.")
    if "figure" in report:
        console.print(f"Class distribution: {report['figure']}")


def emotions_of(report: Mapping[str, Any]) -> list[str]:
    """Every emotion, in the order of the corpus."""
    return list(report["counts"]["all"])


def _list(console: Any, lines: Sequence[str]) -> None:
    for line in lines[:LISTED]:
        console.print(f"    {line}")
    if len(lines) > LISTED:
        console.print(f"    … and {len(lines) - LISTED} more (--json lists all)")


def _pair(pair: Sequence[int | None]) -> str:
    found, published = pair
    return f"{found}" if published is None else f"{found} / {published}"


def draw(report: Mapping[str, Any], path: Path, task: Sequence[str] = ()) -> None:
    """Draw the clips of each emotion as PNG, stacked by group; emotions outside of ``task`` are pale."""
    from matplotlib.figure import Figure

    emotions = emotions_of(report)
    *groups, total = report["counts"]
    figure = Figure(figsize=(8, 1.4 + 0.4 * len(emotions)), dpi=130, layout="constrained")
    axis = figure.subplots()
    left = np.zeros(len(emotions))
    for group, colour in zip(groups or [total], COLOURS * len(report["counts"]), strict=False):
        found = np.array([report["counts"][group].get(name, (0, 0))[0] for name in emotions])
        bars = axis.barh(emotions, found, left=left, color=colour, height=0.72)
        axis.barh(emotions[:1], 0, color=colour, label=group)  # for the legend, which would be pale otherwise
        for bar, name in zip(bars, emotions, strict=True):
            bar.set_alpha(1.0 if not task or name in task else 0.3)
        left += found
    for row, (name, clips) in enumerate(zip(emotions, left, strict=True)):
        axis.text(
            clips, row, f" {clips:.0f}" + (" (not in the task)" if task and name not in task else ""), va="center"
        )
    axis.set_title(f"{report['corpus']}: {left.sum():.0f} clips", loc="left", fontsize=12)
    axis.set_xlabel("clips")
    axis.margins(x=0.2)
    axis.invert_yaxis()
    axis.grid(axis="x", color="#dddddd", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(left=False)
    if groups:
        figure.legend(title=report["by"], loc="outside right upper", frameon=False)
    with atomic_write(path) as part:
        figure.savefig(part, format="png", facecolor="white")
