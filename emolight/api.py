"""A training in one line of Python, and what came out of it."""

from pathlib import Path
from typing import Any

from emolight.errors import EmolightError
from emolight.report import report as pages
from emolight.run import cli
from emolight.run.folder import Run
from emolight.run.words import word_of


class FittedRun(Run):
    """A finished run: its figures, its tables, its pages; see :class:`~emolight.run.folder.Run` for the rest."""

    def test(self) -> dict[str, Any]:
        """Score the test clips, on the record; returns ``uar``, ``accuracy``, ``macro_f1``, ``recall`` and ``n``."""
        cli.main(["test", "--ckpt_path", str(self.folder), "--trainer.enable_progress_bar=false"])
        return self.metrics

    def report(self) -> Path:
        """Write ``report.html`` and return its path."""
        pages.main([str(self.folder)])
        return self.folder / "report.html"


def fit(config: str | Path | None = None, **options: Any) -> FittedRun:
    """Train a classifier, as ``python -m emolight fit`` does, and return the run.

    Args:
        config: a recipe: a YAML file, or the name of one that comes along, such as ``mfcc``.
        options: of ``fit``, with two underscores for a dot (``trainer__max_epochs=3``); ``root``, ``corpus``,
            ``protocol``, ``fold`` and ``task`` are those of ``data``.

    Returns:
        The run: ``.metrics``, ``.predictions("val")``, ``.test()``, ``.report()``.

    Raises:
        EmolightError: a mistake in the options, the data or the file system.

    Example:
        >>> run = fit("mfcc", corpus="mine.csv", trainer__max_epochs=20)  # doctest: +SKIP
        >>> run.metrics["uar"]
        0.61
    """
    words = ["fit"] if config is None else ["fit", "--config", str(config)]
    for name, value in options.items():
        place = f"data.{name}" if name in ("root", "corpus", "protocol", "fold", "task") else name.replace("__", ".")
        words.append(word_of(place, value))
    made: list[Run] = []
    cli.main(words, on_done=lambda done: made.append(done.run))
    if not made:
        raise EmolightError("Nothing was trained.", "Leave trainer.fast_dev_run out.")
    return FittedRun(made[0].folder)
