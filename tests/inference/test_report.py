from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from emolight.data.audio import load_waveform
from emolight.data.ravdess import ARTICLE_EMOTIONS, discover, select
from emolight.data.splits import FOLDS
from emolight.errors import EmolightError
from emolight.evaluation.predictions import PREFIX, predictions_table, read_predictions, write_predictions
from emolight.evaluation.statistics import summarise
from emolight.inference import report

from .test_examples import LICENCE, Page

SECTIONS = (
    *("protocol", "result", "controls", "confusion", "recall", "curves"),
    *("actors", "groups", "calibration", "wrong"),
)
HOSTILE = "<script>alert(1)</script>"


def table_of(corpus: Path, seed: int = 0) -> pd.DataFrame:
    """Predictions of synthetic clips, right more often than not."""
    clips = select(discover(corpus).table, ARTICLE_EMOTIONS, ("speech",))
    chance = np.random.default_rng(seed)
    probabilities = chance.dirichlet(np.ones(len(ARTICLE_EMOTIONS)), len(clips))
    labels = clips["emotion"].map(list(ARTICLE_EMOTIONS).index).to_numpy()
    probabilities[np.arange(len(clips)), labels] += 0.3
    return predictions_table(clips, ARTICLE_EMOTIONS, probabilities / probabilities.sum(axis=1, keepdims=True))


def configure(folder: Path, corpus: Path, name: str = "demo") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    data = {"root": str(corpus), "trim_db": 30.0, "synthetic": True, "emotions": list(ARTICLE_EMOTIONS)}
    data["channels"] = ["speech"]
    config = {"name": name, "data": data, "model": {"features": {"mode": "mfcc"}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    losses = {"epoch": [0, 0, 1, 1], "train/loss": [1.5, None, 1.2, None], "val/loss": [None, 1.4, None, 1.3]}
    pd.DataFrame({**losses, "val/uar": [None, 0.3, None, 0.5], "val/accuracy": [None, 0.3, None, 0.5]}).to_csv(
        folder / "metrics.csv", index=False
    )


@pytest.fixture
def run(corpus: Path, tmp_path: Path) -> Path:
    """A run folder with test predictions of the first fold."""
    folder = tmp_path / "lightning_logs" / "demo" / "version_3"
    configure(folder, corpus)
    table = table_of(corpus)
    table = table[table["actor"].isin(FOLDS["emobox6"][1].test)]
    write_predictions(folder / "predictions_test.csv", table)
    split = table[["clip_id", "label", "actor"]].rename(columns={"label": "emotion"})
    split.assign(subset="test", protocol="emobox6 fold 1").to_csv(folder / "split.csv", index=False)
    return folder


def make_crossval(corpus: Path, folder: Path, name: str = "mine", kind: str = "crossval") -> Path:
    """Six folds with two seeds, in a folder as ``crossval`` writes it, or an ensemble without runs."""
    fold_of = {actor: fold for fold, actors in FOLDS["emobox6"].items() for actor in actors.test}
    tables = [
        one.assign(fold=one["actor"].map(fold_of), seed=seed) for seed in (0, 1) for one in [table_of(corpus, seed)]
    ]
    table = pd.concat(tables, ignore_index=True)
    folder.mkdir()
    write_predictions(folder / "predictions.csv", table)
    runs = []
    if kind == "crossval":
        runs = [
            {"fold": f, "seed": s, "folder": f"fold_{f}_seed_{s}", "seconds": 3.0}
            for f in fold_of.values()
            for s in (0, 1)
        ]
        runs = list({one["folder"]: one for one in runs}.values())
    for one in runs:
        configure(folder / one["folder"], corpus)
        (folder / one["folder"] / "test_openings.csv").write_text("time,command\nnow,crossval\n")
    facts = {
        "seconds": 3725.0,
        "commit": "abc1234",
        "precision": "32-true",
        "mode": "mfcc",
        "parameters": 11_169_605,
    }
    about = {
        **{"name": name, "kind": kind, "subset": "test", "protocol": "emobox6", "task": "article"},
        **{"selection": "best epoch by validation UAR", "split": "0123456789abcdef", "runs": runs},
        "facts": {**facts, "root": str(corpus)},
    }
    (folder / "crossval.json").write_text(json.dumps(about))
    return folder


def summary_for(table: pd.DataFrame) -> dict[str, Any]:
    one = {"name": "duration only", "uar": 0.25, "uar_low": 0.2, "uar_high": 0.3, "wa": 0.25, "macro_f1": 0.2}
    return {**summarise(table, 100), "controls": [one]}


def make_page(folder: Path, count: int = 3, summary: dict[str, Any] | None = None) -> Page:
    study = report.read_study(folder)
    chosen = report.most_wrong(study.result.table, count)
    sounds = report.load_sounds(study, chosen, Path(study.result.facts["root"]))
    return Page(report.page(study, summary or summary_for(study.result.table), chosen, sounds, command="made so"))


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn but not written, where a test is about words."""
    empty = report.Picture("data:image/svg+xml,", "", 600, 400)
    monkeypatch.setattr("emolight.inference.report.picture", lambda *_: empty)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command computes no controls."""

    def summary_of(folder: Path, root: Path | None = None) -> dict[str, Any]:
        return summary_for(report.read_study(folder).result.table)

    monkeypatch.setattr("emolight.experiments.summary.summary_of", summary_of)


def words(page: Page) -> str:
    return " ".join(page.text.split())


def test_page_of_a_run_has_every_section_in_order(run: Path) -> None:
    page = make_page(run)
    assert [attributes["id"] for tag, attributes in page.tags if tag == "section"] == list(SECTIONS)
    text = words(page)
    summary = summary_for(read_predictions(run / "predictions_test.csv"))
    for name in ("uar", "wa", "macro_f1"):
        low, high = (100 * end for end in summary["pooled"][name]["by_actor"])
        assert f"{100 * summary['pooled'][name]['value']:.1f} %" in text
        assert f"{low:.1f} – {high:.1f} %" in text
    for sentence in (
        "Held out: actors 1, 11, 20, 21.",
        "highest UAR on the validation",
        "How often is not recorded.",
    ):
        assert sentence in text
    assert "duration only" in text
    assert "made so" in text
    assert "synthetic" in text
    assert len(page.html.encode()) < 15_000_000


def test_page_needs_nothing_from_outside_and_runs_its_own_script_only(run: Path) -> None:
    page = make_page(run)
    assert all(uri.startswith("data:image/") for uri in page.sources("img"))
    assert all(uri.startswith("data:audio/flac;base64,") for uri in page.sources("audio"))
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    assert "url(" not in page.html
    assert "://" not in page.html.replace(LICENCE, "")
    scripts = re.findall(r"<script>(.*?)</script>", page.html, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = next(str(a["content"]) for t, a in page.tags if t == "meta" and a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert policy.endswith(f"script-src 'sha256-{digest}'")


def test_most_wrong_clips_are_the_surest_wrong_ones(corpus: Path) -> None:
    table = table_of(corpus)
    chosen = report.most_wrong(table, 4)
    wrong = table[table["label"] != table["prediction"]]
    highest = wrong.filter(like=PREFIX).max(axis=1).nlargest(4)
    assert list(chosen["clip_id"]) == list(wrong.loc[highest.index, "clip_id"])
    assert list(chosen["probability"]) == pytest.approx(list(highest))


def test_of_two_seeds_the_mean_probability_decides(corpus: Path) -> None:
    clips = select(discover(corpus).table, ARTICLE_EMOTIONS, ("speech",)).iloc[:2]  # both calm
    seeds = [
        [[0.0, 1.0, 0, 0, 0], [0.3, 0.7, 0, 0, 0]],
        [[0.9, 0.1, 0, 0, 0], [0.4, 0.6, 0, 0, 0]],  # the means of happy: 0.55 and 0.65
    ]
    tables = [
        predictions_table(clips, ARTICLE_EMOTIONS, np.array(one)).assign(seed=k) for k, one in enumerate(seeds)
    ]
    chosen = report.most_wrong(pd.concat(tables, ignore_index=True), 5)
    assert list(chosen["clip_id"]) == list(clips["clip_id"])[::-1]
    assert list(chosen["probability"]) == pytest.approx([0.65, 0.55])


@pytest.mark.usefixtures("no_figures")
def test_cards_have_the_recording_and_every_probability(run: Path, corpus: Path) -> None:
    page = make_page(run, 2)
    chosen = report.most_wrong(read_predictions(run / "predictions_test.csv"), 2)
    paths = {Path(path).stem: corpus / path for path in discover(corpus).table["path"]}
    for clip_id, uri in zip(chosen["clip_id"], page.sources("audio"), strict=True):
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(uri.partition(",")[2])), dtype="float32")
        assert rate == 16000
        np.testing.assert_allclose(samples, load_waveform(paths[clip_id], 16000, 30.0), atol=2 / 32768)
    lists = re.findall(r'<ul class="bars".*?</ul>', page.html, re.DOTALL)
    for one, (_, row) in zip(lists, chosen.iterrows(), strict=True):
        told = [float(width) for width in re.findall(r"width:([\d.]+)%", one)]
        assert told == pytest.approx([100 * row[PREFIX + name] for name in ARTICLE_EMOTIONS], abs=0.051)


@pytest.mark.usefixtures("no_figures")
def test_crossval_of_two_seeds(corpus: Path, tmp_path: Path) -> None:
    page = make_page(make_crossval(corpus, tmp_path / "cv"))
    text = words(page)
    assert "6 folds, in each of which 4 actors of 24 are held out" in text
    assert "Once by each of the 12 runs" in text
    assert "mean over 2 seeds" in text
    assert "A thin line for each of the 12 runs" in text
    assert "1 h 02 min" in text
    assert "abc1234" in text
    folds = page.html.partition('aria-label="Results by fold"')[2].partition("</table>")[0]
    assert "1, 11, 20, 21" in folds
    assert len(re.findall("<tr", folds)) == 7
    clips = table_of(corpus)["clip_id"].nunique()
    assert f"in {clips} test clips" in text


def test_words_count_the_openings_of_each_run(corpus: Path, tmp_path: Path) -> None:
    folder = make_crossval(corpus, tmp_path / "cv")
    assert report.protocol_words(report.read_study(folder))[2] == "Once by each of the 12 runs."
    (folder / "fold_1_seed_0" / "test_openings.csv").write_text("time,command\na,b\na,b\n")
    (folder / "fold_1_seed_1" / "test_openings.csv").unlink()
    assert report.protocol_words(report.read_study(folder))[2].startswith("12 × by 12 runs. The more often")


@pytest.mark.usefixtures("no_figures")
def test_ensemble_has_no_learning_curves(corpus: Path, tmp_path: Path) -> None:
    page = make_page(make_crossval(corpus, tmp_path / "cv", kind="ensemble"))
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert sections == [name for name in SECTIONS if name != "curves"]


def test_curves_of_runs_are_thin_and_their_mean_is_thick() -> None:
    metrics = [pd.DataFrame({"epoch": range(n), "val/uar": [value] * n}) for n, value in ((2, 0.4), (3, 0.6))]
    lines = report.draw.curves_of_runs(metrics).axes[1].lines
    assert [list(line.get_xdata()) for line in lines] == [[1, 2], [1, 2, 3], [1, 2]]
    assert list(lines[2].get_ydata()) == pytest.approx([50, 50])
    assert lines[2].get_linewidth() > 2 * lines[0].get_linewidth()


@pytest.mark.usefixtures("no_figures")
def test_interval_by_clip_is_called_too_narrow_only_where_it_is(run: Path) -> None:
    summary = summary_for(read_predictions(run / "predictions_test.csv"))
    uar = summary["pooled"]["uar"]
    uar |= {"by_actor": [0.3, 0.6], "by_clip": [0.4, 0.5]}
    assert "The interval by clip is too narrow" in words(make_page(run, 1, summary))
    uar |= {"by_actor": [0.4, 0.5], "by_clip": [0.3, 0.6]}
    text = words(make_page(run, 1, summary))
    assert "The interval by clip is too narrow" not in text
    assert "4 actors are few" in text


@pytest.mark.usefixtures("no_figures")
def test_no_controls(run: Path) -> None:
    summary = {**summary_for(read_predictions(run / "predictions_test.csv")), "controls": []}
    assert "No controls were computed." in words(make_page(run, 1, summary))


@pytest.mark.usefixtures("no_figures")
def test_names_are_escaped(corpus: Path, tmp_path: Path) -> None:
    folder = make_crossval(corpus, tmp_path / "cv", name=HOSTILE)
    summary = summary_for(report.read_study(folder).result.table)
    summary["controls"][0]["name"] = HOSTILE
    page = make_page(folder, 1, summary)
    assert page.html.count("<script>") == 1
    assert HOSTILE not in page.html
    assert page.text.count(HOSTILE) >= 3


@pytest.mark.usefixtures("quick", "no_figures")
def test_command_writes_the_page(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(run), "--clips", "2"]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    page = Page((run / "report.html").read_text("utf-8"))
    assert len(page.sources("audio")) == 2
    assert f"emolight report {run} --clips 2" in words(page)


@pytest.mark.usefixtures("quick", "no_figures")
def test_without_the_recordings_there_is_a_sentence(run: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["root"] = str(tmp_path / "gone")
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert report.main([str(run), "--output", str(tmp_path / "out" / "a.html")]) == 0
    page = Page((tmp_path / "out" / "a.html").read_text("utf-8"))
    assert "They cannot be heard here: There is no folder with recordings" in words(page)
    assert page.sources("audio") == []
    assert page.html.count('class="bars"') == 12


@pytest.mark.usefixtures("quick", "no_figures")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--root", "nowhere"], r"'nowhere'"),
        (["--clips", "0"], r"--clips is 0"),
        (["--clips", "101"], r"from 1 to"),
    ],
)
def test_mistakes_are_sentences(run: Path, arguments: list[str], text: str) -> None:
    with pytest.raises(EmolightError, match=text):
        report.main([str(run), *arguments])
    assert not (run / "report.html").exists()


@pytest.mark.usefixtures("no_figures")
def test_page_that_is_too_large(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_BYTES", 20_000)
    with pytest.raises(EmolightError, match=r"MB(.|\n)*--clips"):
        make_page(run, 1)


def test_tables_are_sorted_in_a_browser_and_the_page_fits_a_phone(corpus: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    playwright = pytest.importorskip("playwright.sync_api")
    path = tmp_path / "report.html"
    path.write_text(make_page(make_crossval(corpus, tmp_path / "cv")).html, encoding="utf-8")
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    asked: list[str] = []
    said: list[str] = []
    with (
        playwright.sync_playwright() as engine,
        engine.chromium.launch(executable_path=chromium, args=flags) as browser,
    ):
        tab = browser.new_page(viewport={"width": 390, "height": 844})
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: said.append(message.text))
        tab.goto(path.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") == 390
        table = tab.get_by_role("region", name="Results by actor")
        column = "rows => rows.map(row => Number(row.cells[3].dataset.key))"
        header = table.get_by_role("columnheader", name="UAR")
        assert header.get_attribute("aria-sort") == "none"
        header.get_by_role("button").focus()
        for key, order in (("Enter", "ascending"), ("Space", "descending")):
            tab.keyboard.press(key)
            values = table.locator("tbody tr").evaluate_all(column)
            assert header.get_attribute("aria-sort") == order
            assert len(values) == 24
            assert values == sorted(values, reverse=order == "descending")
        sexes = table.get_by_role("columnheader", name="sex")
        sexes.get_by_role("button").click()
        words_of = table.locator("tbody tr").evaluate_all("rows => rows.map(row => row.cells[1].textContent)")
        assert words_of == sorted(words_of)
        assert header.get_attribute("aria-sort") == "none"
        broken = "images => images.filter(image => !image.naturalWidth).length"
        assert tab.locator("img").evaluate_all(broken) == 0
    assert [url for url in asked if not url.startswith(("data:", path.as_uri()))] == []
    assert said == []
