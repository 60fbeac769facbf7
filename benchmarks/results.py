"""Every table of docs/results.md that says how well something recognises emotions, by one command.

python benchmarks/results.py --root DIR [--encoders DIR] [--nemo DIR] [--only WORDS] [--list] [--write FILE]

It runs what is missing, two folds at a time, and goes on where it was stopped: a fold that is finished is never run
again. Then it writes the tables between their marks in docs/results.md, so that no figure is copied by hand, and
says how many rows were not run. A row that is not run here stays as it stands in the page, with its commit.
--encoders has folders tiny.en and base of Whisper's encoders, --nemo nEMO's recordings with nemo.csv; rows that need
what is not there are left out. --list says what is missing, and runs nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common import REPOSITORY, machine, markdown

from emolight.data.datamodule import EmotionDataModule
from emolight.data.splits import Split
from emolight.evaluation.statistics import summarise
from emolight.experiments.results import CROSSVAL, Result, read_result
from emolight.experiments.summary import SUMMARY

LOGS = Path("lightning_logs/results")
SIX = ("neutral", "happy", "sad", "angry", "fearful", "surprised")
INPUTS = ("mfcc", "mel", "spectrogram")
STEMS = "the three inputs in one network with three stems"
STATISTICS = ("classical", "eGeMAPSv02", "ComParE_2016")
SIZES = ("tiny.en", "base")
SPEEDS = ("--model.network.speeds", "[0.93,1.07]")
LEVEL = ("--model.features", "Waveform", "--model.features.level", "rms")
VARIANTS = {"_speeds": (SPEEDS, ", three speeds"), "_level": ((*SPEEDS, *LEVEL), ", three speeds, one level")}
"""Encoders of the full task and across corpora: ends of names, options, words in a label."""


@dataclass(frozen=True)
class Row:
    """A line of a table: what makes it, and the folder in which it lies then.

    ``fit`` trains the run that the command scores. Of the clips in the folder those count whose column has a value.
    """

    table: str
    label: str
    folder: str
    command: tuple[str, ...]
    fit: tuple[str, ...] = ()
    clips: tuple[str, str] | None = None

    @property
    def result(self) -> Result | None:
        """What was found, if it was run to its end."""
        path = LOGS / self.folder
        return read_result(path) if (path / CROSSVAL).is_file() else None


def crossval(name: str, protocol: str, *words: str) -> tuple[str, tuple[str, ...]]:
    """The folder and the command of a cross-validation."""
    where = ("--name", f"results/{name}", "--protocol", protocol, "--workers", "2")
    return f"{name}/crossval_{protocol}", ("crossval", *words, *where)


def ensemble(
    name: str, protocol: str, *members: str, weights: str = "equal", by: str = ""
) -> tuple[str, tuple[str, ...]]:
    """The same of the mean of results."""
    folders = [str(LOGS / member / f"crossval_{protocol}") for member in members]
    words = ("--by", str(LOGS / by / f"crossval_{protocol}")) if by else ("--weights", weights)
    return f"{name}/crossval_{protocol}", ("ensemble", *folders, "--name", f"results/{name}", *words)


def rows_of(encoders: Path, nemo: Path) -> Iterator[Row]:
    """Every line, those that others need before them."""
    full, robust = ("--config", "configs/overlays/full.yaml"), ("--config", "configs/overlays/robust.yaml")
    for protocol in ("emobox6", "luna5", "random"):
        table = f"article {protocol}"
        seeds = ("--seeds", "0", "1", "2") if protocol == "random" else ()
        for one in INPUTS:
            card = ("--robustness",) if (one, protocol) == ("mfcc", "emobox6") else ()
            words = ("--config", f"configs/{one}.yaml", *seeds, *card)
            yield Row(table, f"{one}, ResNet18", *crossval(one, protocol, *words))
        folder, command = ensemble("inputs", protocol, *INPUTS)
        yield Row(table, "mean of the three inputs", f"{folder}{'_seed_0' * (protocol == 'random')}", command)
    words = ("--config", "configs/mel.yaml", "--trainer.max_epochs", "80", "--seeds", "0", "1", "2")
    yield Row("article random", "mel, ResNet18, 80 epochs", *crossval("mel_80", "random", *words))
    folder, command = ensemble("inputs_80", "random", "mfcc", "mel_80", "spectrogram")
    yield Row("article random", "mean of the three inputs, mel with 80 epochs", f"{folder}_seed_0", command)
    stems = ("--config", "configs/stems.yaml")
    for protocol in ("emobox6", "luna5"):
        yield Row(f"article {protocol}", STEMS, *crossval("stems", protocol, *stems))
        if protocol == "emobox6":
            for one in INPUTS:
                made = crossval(f"{one}_1", protocol, "--config", f"configs/{one}.yaml", "--seeds", "1")
                yield Row("article emobox6", f"{one}, ResNet18, seed 1", *made)
            six = ensemble("inputs_twice", protocol, *INPUTS, *(f"{one}_1" for one in INPUTS))
            yield Row("article emobox6", "mean of the three inputs, two seeds of each", *six)
            one = ensemble("input_best", protocol, *INPUTS, weights="best")
            yield Row("article emobox6", "one of the three inputs, chosen within each fold", *one)
        four = ensemble("networks", protocol, *INPUTS, "stems")
        yield Row(f"article {protocol}", "mean of the three inputs and of three stems, four networks alike", *four)
    words = ("--config", "configs/mfcc.yaml", *robust, "--robustness")
    yield Row("article emobox6", "mfcc, ResNet18, `overlays/robust.yaml`", *crossval("robust", "emobox6", *words))
    for task in ("article", "full"):
        classical = ("--config", "configs/classical.yaml", "--data.task", task)
        label = "mfcc statistics, logistic regression"
        yield Row(f"{task} emobox6", label, *crossval(f"classical_{task}", "emobox6", *classical))
        head, shown = ("svm", "SVM") if task == "full" else ("logistic", "logistic regression")
        for name in STATISTICS[1:]:  # they need the extra opensmile
            words = (*classical, "--model.network.statistics", name, "--model.network.head", head)
            yield Row(f"{task} emobox6", f"{name}, {shown}", *crossval(f"{name}_{task}", "emobox6", *words))
    scratch = ensemble("scratch_article", "emobox6", *INPUTS, *(f"{kind}_article" for kind in STATISTICS))
    yield Row("article emobox6", "mean of: the three inputs; three kinds of statistics; nothing pretrained", *scratch)
    for protocol in ("emobox6", "luna5"):
        words = ("--config", "configs/mfcc.yaml", *full)
        yield Row(f"full {protocol}", "mfcc, ResNet18", *crossval("mfcc_full", protocol, *words))
        made = crossval("stems_full", protocol, *stems, *full)
        yield Row(f"full {protocol}", STEMS, *made)
        waveform = crossval("waveform", protocol, "--config", "configs/waveform.yaml")
        yield Row(f"full {protocol}", "waveform, 1-D convolutions", *waveform)
    scratch = ensemble("scratch_full", "emobox6", "mfcc_full", *(f"{kind}_full" for kind in STATISTICS[1:]))
    yield Row("full emobox6", "mean of: mfcc, ResNet18; eGeMAPSv02; ComParE_2016; nothing pretrained", *scratch)
    waveform = crossval("waveform", "random", "--config", "configs/waveform.yaml", "--seeds", "0", "1", "2")
    yield Row("full random", "waveform, 1-D convolutions", *waveform)
    for task, protocol in (("article", "emobox6"), ("full", "emobox6"), ("full", "luna5")):
        names, table = [f"{size}_{task}" for size in SIZES], f"{task} {protocol}"
        for size, name in zip(SIZES, names, strict=True):
            words = _encoder(encoders / size, "--data.task", task)
            yield Row(table, f"Whisper {size}, pretrained, frozen", *crossval(name, protocol, *words))
            folder, command = crossval(name, protocol, *words, "--nested", "sweeps/encoder.yaml")
            label = f"Whisper {size}, pretrained, frozen, penalty chosen within each fold"
            yield Row(table, label, f"{folder}_nested", command)
        yield Row(table, "mean of both encoders", *ensemble(f"encoders_{task}", protocol, *names))
        members = [str(LOGS / name / f"crossval_{protocol}_nested") for name in names]
        nested = f"encoders_{task}_nested"
        command = ("ensemble", *members, "--name", f"results/{nested}")
        label = "mean of both encoders, penalties chosen within each fold"
        yield Row(table, label, f"{nested}/crossval_{protocol}_nested", command)
        if task == "article":
            for weights in ("equal", "validation"):
                made = ensemble(f"encoders_robust_{weights}", protocol, *names, "robust", weights=weights)
                yield Row(table, f"encoders and the robust ResNet18, {weights} weights", *made)
            kinds = (f"encoders_{task}", "inputs", f"classical_{task}")
            label = "mean of: mean of the encoders"
            made = ensemble("kinds_statistics", protocol, kinds[0], kinds[2])
            yield Row(table, f"{label}; MFCC statistics", *made)
            made = ensemble("kinds_inputs", protocol, *kinds[:2])
            yield Row(table, f"{label}; mean of the three inputs", *made)
            made = ensemble("kinds_networks", protocol, kinds[0], "networks")
            yield Row(table, f"{label}; mean of the four networks", *made)
            own, shown = VARIANTS["_level"]
            level = [f"{size}_article_level" for size in SIZES]
            for size, name in zip(SIZES, level, strict=True):
                made = crossval(name, protocol, *_encoder(encoders / size, "--data.task", task, *own))
                yield Row(table, f"Whisper {size}, pretrained, frozen{shown}", *made)
            yield Row(table, f"mean of both encoders{shown}", *ensemble("encoders_article_level", protocol, *level))
            by = _encoder(encoders / "tiny.en", "--data.task", task, "--data.label", "channel")
            yield Row("channel emobox6", "Whisper tiny.en, pretrained, frozen", *crossval("channel", protocol, *by))
            for nets, words in (("inputs", "three inputs"), ("networks", "four networks")):
                for encoder, how in ((kinds[0], ""), (f"{kinds[0]}_level", shown)):
                    said = f"mean of the encoders{how}; mean of the {words}; weighed by what sounds spoken or sung"
                    made = ensemble(f"{nets}_by{'_level' if how else ''}", protocol, encoder, nets, by="channel")
                    yield Row(table, said, *made)
            made = ensemble("kinds_all", protocol, *kinds)
            yield Row(table, f"{label}; mean of the three inputs; MFCC statistics", *made)
        else:
            yield from _at_speeds(encoders, table, protocol)
        nets = INPUTS if task == "article" else ("mfcc_full",)
        for weights in ("equal", "validation"):
            made = ensemble(f"all_{task}_{weights}", protocol, *names, *nets, weights=weights)
            label = f"encoders and {'three ResNet18' if len(nets) > 1 else 'ResNet18'}, {weights} weights"
            yield Row(table, label, *made)
    yield from _enrolled(encoders)
    words = ("--data.corpus", str(nemo / "nemo.csv"))
    mfcc = crossval("nemo", "speakers5", "--config", "configs/mfcc.yaml", *words)
    yield Row("nemo speakers5", "mfcc, ResNet18", *mfcc)
    base = crossval("nemo_base", "speakers5", *_encoder(encoders / "base", *words))
    yield Row("nemo speakers5", "Whisper base, pretrained, frozen", *base)
    yield from _across(encoders, nemo)
    words = ("crossval", "transfer", "--config", "configs/mfcc.yaml", "--by", "channel", "--name", "results/mfcc")
    for trained in ("speech", "song"):
        for tested in ("speech", "song"):
            label, folder = f"trained on {trained}, tested on {tested}", f"mfcc/transfer_emobox6_{trained}"
            yield Row("transfer", label, folder, (*words, "--workers", "2"), clips=("channel", tested))


def _encoder(path: Path, *words: str) -> tuple[str, ...]:
    return ("--config", "configs/encoder.yaml", "--model.network.path", str(path), *words)


def _at_speeds(encoders: Path, table: str, protocol: str) -> Iterator[Row]:
    """Encoders whose heads learn from other speeds too, maybe at one level; their mean; and with the network."""
    for tail, (own, shown) in VARIANTS.items():
        names = [f"{size}_full{tail}" for size in SIZES]
        for size, name in zip(SIZES, names, strict=True):
            words = _encoder(encoders / size, "--data.task", "full", *own)
            yield Row(table, f"Whisper {size}, pretrained, frozen{shown}", *crossval(name, protocol, *words))
        yield Row(table, f"mean of both encoders{shown}", *ensemble(f"encoders_full{tail}", protocol, *names))
        made = ensemble(f"all_full{tail}", protocol, *names, "mfcc_full", weights="validation")
        yield Row(table, f"encoders{shown}, and ResNet18, validation weights", *made)


def _enrolled(encoders: Path) -> Iterator[Row]:
    """Speakers who are enrolled by some of their clips; one command scores all numbers of clips."""
    counts = ("5", "10", "20", "all")
    enrol = ("--model.speaker_norm", "true", "--enrol", *counts, "--enrol-as", "mixed", "ordinary")
    ways = [f"{count}_{kind}" for kind in ("mixed", "ordinary") for count in counts]
    ways.remove("20_ordinary")  # nobody has so many
    for task, own, shown in (("article", (), ""), ("full", (), ""), ("full", *VARIANTS["_level"])):
        table, tail = f"{task} emobox6 enrolled", "_level" if own else ""
        names = [f"{size}_{task}_speakers{tail}" for size in SIZES]
        full = ("--config", "configs/overlays/full.yaml") if task == "full" else ()
        mfcc = (f"mfcc_{task}_speakers", "mfcc, ResNet18", ("--config", "configs/mfcc.yaml", *full))
        kinds = [] if own else [mfcc]
        for size, name in zip(SIZES, names, strict=True):
            kinds.append((name, f"Whisper {size}{shown}", _encoder(encoders / size, "--data.task", task, *own)))
        for name, label, words in kinds:
            folder, command = crossval(name, "emobox6", *words, *enrol)
            yield Row(table, f"{label}, none enrolled", folder, command)
            for way in ways:
                yield Row(table, f"{label}, {way.replace('_', ' ')}", f"{folder}_enrol_{way}", command)
        for way in ways:
            members = [str(LOGS / name / f"crossval_emobox6_enrol_{way}") for name in names]
            folder = f"speakers_{task}{tail}_{way}"
            command = ("ensemble", *members, "--name", f"results/{folder}")
            label = f"mean of both{shown}, {way.replace('_', ' ')}"
            yield Row(table, label, f"{folder}/crossval_emobox6_enrol_{way}", command)


def _across(encoders: Path, nemo: Path) -> Iterator[Row]:
    """Trained on all speakers of one corpus but its validation speakers, tested on the other, whose speakers enrol."""
    places = {"ravdess": ("--data.corpus", "RAVDESS", "--data.task", "full")}
    places["nemo"] = ("--data.corpus", "NEMO", "--data.root", str(nemo))
    ways = {"0": "none enrolled", "20_mixed": "20 mixed enrolled", "all_mixed": "all mixed enrolled"}
    for trained, tested, suffix in (("ravdess", "nemo", "nEMO"), ("nemo", "ravdess", "RAVDESS")):
        table = f"{trained} to {tested}"
        for tail, (own, shown) in {"": ((), ""), **VARIANTS}.items():
            names = [f"from_{trained}_{size}{tail}" for size in SIZES]
            for size, name in zip(SIZES, names, strict=True):
                six = ("--data.emotions", f"[{', '.join(SIX)}]", "--data.split_csv", str(LOGS / f"{trained}.csv"))
                words = _encoder(encoders / size, *places[trained], *six, *own, "--model.speaker_norm", "true")
                fit = ("fit", *words, "--name", f"results/{name}")
                test = ("test", "--ckpt_path", str(LOGS / name / "version_0"), *places[tested])
                test = (*test, "--enrol", "0", "20", "all", "--enrol-as", "mixed")
                for way, enrolled in ways.items():
                    label = f"Whisper {size}{shown}, {enrolled}"
                    yield Row(table, label, f"{name}/version_0_{suffix}_enrol_{way}", test, fit)
            for way, enrolled in ways.items():
                run = f"version_0_{suffix}_enrol_{way}"
                command = ("ensemble", *(str(LOGS / name / run) for name in names))
                command = (*command, "--name", f"results/from_{trained}_mean{tail}")
                yield Row(table, f"mean of both{shown}, {enrolled}", f"from_{trained}_mean{tail}/{run}", command)


def write_split(path: Path, root: Path | None, nemo: Path) -> None:
    """Write the split of a corpus's fold 1 with the test speakers in training."""
    ravdess = {"root": root, "task": "full", "protocol": "emobox6"}
    place = ravdess if path.stem == "ravdess" else {"root": nemo, "corpus": "NEMO", "protocol": "speakers5"}
    data = EmotionDataModule(emotions=list(SIX), fold=1, **place)
    data.setup()
    table = data.split.table.replace({"subset": {"test": "train"}})
    Split(table, f"{path.stem}, all but validation speakers").write(path)


def line(row: Row) -> list[str]:
    """The cells of a row that was run."""
    result = row.result
    assert result
    if row.clips:
        column, value = row.clips
        pooled = summarise(result.table[result.table[column] == value])["pooled"]
    else:
        pooled = json.loads((result.folder / SUMMARY).read_text(encoding="utf-8"))["pooled"]
    uar, *others = (f"{100 * pooled[name]['value']:.1f}" for name in ("uar", "accuracy", "macro_f1"))
    ends = [" to ".join(f"{100 * end:.1f}" for end in pooled["uar"][unit]) for unit in ("by_speaker", "by_clip")]
    seconds, commit = result.facts.get("seconds"), str(result.facts.get("commit") or "")
    return [row.label, f"**{uar}**", *ends, *others, f"{seconds:.0f}" if seconds else "", commit[:7]]


def tables(rows: list[Row], page: str = "") -> dict[str, str]:
    """Mark to text: a table for each task and protocol of which a row was run, the robustness card, the time of all."""
    head = ["system", "UAR %", "95 % by speaker", "95 % by clip", "accuracy %", "macro-F1 %", "wall s", "commit"]
    texts, seconds, count = {}, set[tuple[tuple[str, ...], str]](), 0
    for name in dict.fromkeys(row.table for row in rows):
        own, kept = [row for row in rows if row.table == name], standing(page, name)
        lines = {row: line(row) if row.result else kept.get(row.label, []) for row in own}
        there = {row: cells for row, cells in lines.items() if cells}
        seconds |= {(row.command, cells[6]) for row, cells in there.items() if row.command[0] == "crossval"}
        count += len(there)
        if any(row.result for row in own):
            missing = len(own) - len(there)
            texts[name] = markdown(head, there.values())
            texts[name] += f"\nNot run: {missing} more rows, which `--list` names.\n" if missing else ""
    cards = {name: found for name in ("mfcc", "robust") if (found := card(name))}
    if cards:
        kept = standing(page, "robustness")
        names, *_ = [*(cells for first, cells in kept.items() if first.startswith("UAR")), ["", *cards]]
        columns = [name for name in ("mfcc", "robust") if name in {*cards, *names[1:]}]
        table = []
        for change in next(iter(cards.values())):
            old = dict(zip(names[1:], kept.get(change, [])[1:], strict=False))
            lost = {key: (100 * one[change], 100 * (one[change] - one["clean"])) for key, one in cards.items()}
            new = {key: f"{left:.1f} ({round(more, 1) or 0:+.1f})" for key, (left, more) in lost.items()}
            table.append([change, *({**old, **new}.get(column, "") for column in columns)])
        texts["robustness"] = markdown(["UAR %, and its change", *columns], table)
    if texts:
        hours = sum(float(one or 0) for _, one in seconds) / 3600
        texts["time"] = f"{count} of {len(rows)} rows; {hours:.1f} hours of trainings, two at a time.\n"
    return texts


def standing(page: str, name: str) -> dict[str, list[str]]:
    """The lines of the table that stands in a page, their cells by the first of them, its head included."""
    text = page.partition(f"<!-- {name} -->\n")[2].partition("<!-- end -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {cells[0]: cells for cells in rows}


def card(name: str) -> dict[str, float]:
    """Disturbance to UAR of the held-out clips of all folds; empty if it was not run."""
    path = LOGS / name / "crossval_emobox6" / "robustness_test.json"
    found = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    return {str(one["disturbance"]): float(one["uar"]) for one in found}


def write(path: Path, texts: dict[str, str]) -> None:
    """Put the tables between their marks: ``<!-- NAME -->`` and ``<!-- end -->``."""
    page = path.read_text(encoding="utf-8")
    for name, text in texts.items():
        start, end = f"<!-- {name} -->\n", "<!-- end -->"
        if start in page:
            before, _, rest = page.partition(start)
            page = f"{before}{start}{text}{end}{rest.partition(end)[2]}"
    path.write_text(page, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="the RAVDESS recordings; default: data/ravdess")
    parser.add_argument("--encoders", type=Path, default=Path("encoders"))
    parser.add_argument("--nemo", type=Path, default=Path("nemo"))
    parser.add_argument("--only", default="", help="run rows whose table and label match this regular expression")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--write", type=Path, default=REPOSITORY / "docs" / "results.md")
    options = parser.parse_args()
    root, page = options.root and options.root.resolve(), options.write.resolve()
    if not page.is_file():
        parser.error(f"there is no page {page} whose tables could be written; copy docs/results.md there")
    encoders, nemo = options.encoders.resolve(), options.nemo.resolve()
    os.chdir(REPOSITORY)
    rows = list(rows_of(encoders, nemo))
    print(machine(), flush=True)
    for row in rows:
        if row.result is not None or not re.search(options.only, f"{row.table} {row.label}"):
            continue
        made = () if row.fit else (f"{LOGS}/",)  # what a fit needs of it is written on the way
        needed = [word for word in row.fit or row.command if word.startswith((str(encoders), str(nemo), *made))]
        absent = next((word for word in needed if not Path(word).exists()), "")
        print(f"{row.table}: {row.label}" + f"; it needs {absent}" * bool(absent), flush=True)
        for words in (row.fit, row.command) if not (options.list or absent) else ():
            if not words:
                continue
            if words is row.fit and Path(row.command[2]).is_dir():
                words = ("fit", "--resume", row.command[2])  # a finished one stays as it is
            elif words is row.fit:
                write_split(Path(words[words.index("--data.split_csv") + 1]), root, nemo)
            own = root and words[0] != "ensemble" and str(nemo) not in " ".join(words)
            place = ["--data.root", str(root)] if own else []
            subprocess.run([sys.executable, "-m", "emolight", *words, *place], check=False)
    if not options.list:
        write(page, tables(rows, page.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
