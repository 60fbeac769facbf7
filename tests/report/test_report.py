from __future__ import annotations

import base64
import io
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from matplotlib.image import imread

from emolight.data.audio import load_waveform
from emolight.errors import EmolightError
from emolight.evaluation.pictures import decibels
from emolight.evaluation.predictions import PREFIX, predictions_table, scores
from emolight.evaluation.statistics import summarise
from emolight.experiments.ensemble import about_ensemble, mean_of
from emolight.experiments.results import read_result
from emolight.experiments.summary import write_crossval
from emolight.report import clips, report
from emolight.report.pages import Picture
from emolight.run.folder import Run

from .made import CONTROL, Page, make_crossval, make_run

pytestmark = pytest.mark.drawn

SECTIONS = (
    *("protocol", "result", "controls", "confusion", "recall", "curves"),
    *("speakers", "groups", "calibration", "wrong", "clips"),
)
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def logs(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, two cross-validations of two folds and two seeds, and their ensemble; tests write nothing here."""
    logs = tmp_path_factory.mktemp("logs") / "lightning_logs"
    make_run(logs / "demo" / "version_3", corpus)
    parts = [make_crossval(logs / name / "crossval_emobox6", corpus, (1, 2), (0, 1)) for name in ("mfcc", "mel")]
    results = [read_result(one) for one in parts]
    about = about_ensemble(folder := logs / "both" / "crossval_emobox6", "both", results)
    write_crossval(folder, about, mean_of([one.table for one in results]), [])
    return logs


@pytest.fixture
def run(logs: Path, tmp_path: Path) -> Path:
    """A run folder that a test may change."""
    return Path(shutil.copytree(logs / "demo", tmp_path / "demo")) / "version_3"


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn but not written, where a test is about words."""
    monkeypatch.setattr(report, "picture", lambda *_: Picture("data:image/svg+xml,", "", 600))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No controls of a run, and few resamples."""
    monkeypatch.setattr("emolight.experiments.summary.control_scores", lambda *_: [CONTROL])
    monkeypatch.setattr("emolight.experiments.summary.summarise", lambda table: summarise(table, 100))


def edit(run: Path, **data: Any) -> None:
    """Change the configuration of a run."""
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["data"] |= data
    path.write_text(yaml.safe_dump(config))


def make_page(folder: Path, most: int = 2, each: int = 1) -> Page:
    return Page(report.page(read_result(folder), None, most, each, "made so"))


@pytest.mark.usefixtures("quick")
def test_page_of_a_run(run: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(run), "--clips", "3"]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    page = Page((run / "report.html").read_text("utf-8"))
    assert page.of("section", "id") == list(SECTIONS)
    assert len(page.html.encode()) < 2_000_000
    table = Run.open(run).predictions("test")
    for name, value in scores(table).items():
        if name in ("uar", "accuracy", "macro_f1"):
            assert f"{100 * value:.1f} %" in page.text
    for words in (
        "Held out: speakers 01, 11, 20, 21.",
        "highest UAR on the validation clips. The test clips had no part",
        "emobox6 fold 1, speaker-independent",
        "From only 4 speakers the intervals by speaker are too narrow",
        "duration only",
        "features MFCC (n_mfcc 40",
        "network ResNet18",
        "parameters 11 169 605",
        "abc1234",
        "5:10",
        f"emolight report {run} --clips 3",
    ):
        assert words in page.text
    for emotion, other, share in report.confusions(table):  # as the matrix below writes it
        assert f"{emotion} predicted as {other} ({100 * share:.1f} %)" in page.text
    assert "RAVDESS" not in page.text
    # The three most wrong clips come first, each with its recording and every probability.
    wrong = table[table["label"] != table["prediction"]]
    surest = wrong.loc[wrong.filter(like=PREFIX).max(axis=1).nlargest(3).index]
    files = {path.stem: path for path in corpus.rglob("*.wav")}
    bars = re.findall(r'<ul class="bars".*?</ul>', page.html, re.DOTALL)
    for (_, row), name, uri, one in zip(
        surest.iterrows(), page.of("audio", "aria-label"), page.of("audio", "src"), bars, strict=False
    ):
        assert row["clip_id"] in name
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(uri.partition(",")[2])), dtype="float32")
        assert rate == 16_000
        np.testing.assert_allclose(samples, load_waveform(files[row["clip_id"]], 16_000, 30.0), atol=2 / 32768)
        shares = [float(width) for width in re.findall(r"width:([\d.]+)%", one)]
        assert shares == pytest.approx([100 * value for value in row.filter(like=PREFIX)], abs=0.051)
    assert len(bars) == 3
    # Then come right and wrong ones of each of the five emotions.
    assert page.text.count("predicted as something else") == 5
    assert 3 + 5 * 2 < len(page.of("audio", "src")) <= 3 + 5 * 4


@pytest.mark.usefixtures("quick")
def test_page_needs_nothing_from_outside(run: Path) -> None:
    page = make_page(run)
    assert all(uri.startswith("data:image/") for uri in page.of("img", "src"))
    assert all(uri.startswith("data:audio/flac;base64,") for uri in page.of("audio", "src"))
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    assert "url(" not in page.html
    assert "://" not in page.html


@pytest.mark.usefixtures("no_figures")
def test_crossval_of_two_seeds_shows_one_quantity(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Any] = {}
    for name in ("confusion_figure", "recall_figure", "speaker_figure", "curves_figure"):
        monkeypatch.setattr(report.plots, name, lambda table, *_, name=name: drawn.__setitem__(name, table))
    folder = logs / "mfcc" / "crossval_emobox6"
    page, table = make_page(folder), read_result(folder).table
    assert "2 folds, in each of which 4 of 24 speakers are held out" in page.text
    assert "Once by each of the 4 runs" in page.text
    assert "A thin line for each of the 4 runs" in page.text
    assert "mean over 2 seeds" in page.text
    assert "1:02:05" in page.text
    assert len(drawn["curves_figure"]) == 4
    assert all(len(drawn[name]) == len(table) for name in drawn if name != "curves_figure")
    # Headline, recalls and groups are means over the seeds, not the figures of their ensemble.
    means = [scores(rows) for _, rows in table.groupby("seed")]
    uar = np.mean([one["uar"] for one in means])
    assert f"{100 * uar:.1f} %" in page.text
    assert uar != pytest.approx(scores(clips.judged(table))["uar"], abs=0.001)
    for emotion in means[0]["recall"]:
        recall = 100 * np.mean([one["recall"][emotion] for one in means])
        assert f"{emotion} recall {recall:.1f} %" in page.text
    folds = page.html.partition('aria-label="Results by fold"')[2].partition("</table>")[0]
    assert "01, 11, 20, 21" in folds


@pytest.mark.usefixtures("no_figures")
def test_ensemble_names_its_members_and_has_no_curves(logs: Path) -> None:
    page = make_page(logs / "both" / "crossval_emobox6")
    assert page.of("section", "id") == [name for name in SECTIONS if name != "curves"]
    assert "Members mfcc emobox6, weight 0.50; mel emobox6, weight 0.50. Weights: equal." in page.text
    assert "8 times by the runs that the ensemble is made of" in page.text
    assert "No controls were computed." in page.text
    assert len(page.of("audio", "src")) > 5


@pytest.mark.usefixtures("quick", "no_figures")
def test_labels_that_are_no_emotions_are_called_by_their_column(run: Path) -> None:
    result = read_result(run)
    sung = result._replace(facts={**result.facts, "label": "channel"})
    assert "5 emotions (" in Page(report.page(result)).text
    text = Page(report.page(sung)).text
    assert "5 labels of channel (" in text
    assert "Right and wrong clips of every channel" in text


@pytest.mark.usefixtures("quick", "no_figures")
def test_validation_clips_of_a_run(run: Path) -> None:
    (run / "predictions_test.csv").unlink()
    page = make_page(run)
    assert "Kept out of training, for validation: speakers 04, 09, 10, 19." in page.text
    assert "These are those clips, which flatters the figures." in page.text
    assert "Once; the figures here are of the validation clips." in page.text
    assert "temperature of the probabilities was fitted" in page.text


@pytest.mark.usefixtures("quick", "no_figures")
def test_clips_of_training_voices_are_said_to_be_such(tmp_path: Path, corpus: Path) -> None:
    run = make_run(tmp_path / "random" / "version_0", corpus, protocol="random", fold=None)
    page = make_page(run.folder)
    assert "Not every speaker was held out" in page.text
    assert "speaker-dependent" in page.text
    assert "The last epoch, fixed beforehand" in page.text
    assert "This split has no test set" in page.text


@pytest.mark.usefixtures("quick", "no_figures")
def test_without_the_recordings_the_page_says_why(run: Path, tmp_path: Path) -> None:
    edit(run, corpus="RAVDESS", root=str(tmp_path / "gone"))
    output = tmp_path / "out" / "a.html"
    assert report.main([str(run), "--output", str(output)]) == 0
    page = Page(output.read_text("utf-8"))
    assert "cannot be heard here: The recordings of" in page.text
    assert f"are not at '{tmp_path / 'gone'}'." in page.text
    assert page.of("audio", "src") == []
    assert "24 professional actors" in page.text
    assert "CC BY-NC-SA" in page.text
    with pytest.raises(EmolightError, match=r"'nowhere'(.|\n)*--root DIR"):
        report.main([str(run), "--root", "nowhere", "--output", str(output)])


@pytest.mark.usefixtures("quick", "no_figures")
def test_a_recording_that_is_gone_or_damaged_is_named(run: Path, corpus: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(corpus, tmp_path / "copy"))
    edit(run, corpus="RAVDESS", filter={"channel": ["speech"]}, root=str(copy))
    wrong = clips.judged(Run.open(run).predictions("test")).query("not right").head(2)
    gone, damaged = (next(copy.rglob(f"{name}.wav")) for name in wrong["clip_id"])
    gone.unlink()
    damaged.write_bytes(b"RIFF")
    page = make_page(run, 2, 0)
    assert page.of("audio", "src") == []
    assert f"1 of 2 recordings are not there, such as {gone.stem}." in page.text


@pytest.mark.usefixtures("quick", "no_figures")
def test_code_of_a_stranger_is_not_run(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stranger.py").write_text("raise SystemExit('it ran')")
    edit(run, corpus="stranger.Corpus")
    page = make_page(run)
    assert "names code outside of emolight: 'stranger.Corpus'" in page.text
    assert "stranger" not in sys.modules


@pytest.mark.usefixtures("quick", "no_figures")
def test_names_are_escaped(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emolight.experiments.summary.control_scores", lambda *_: [CONTROL | {"name": HOSTILE}])
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("name: demo", f"name: {HOSTILE}"))
    page = make_page(run)
    assert page.html.count("<script>") == 1
    assert page.raw.count(HOSTILE) >= 3


@pytest.mark.usefixtures("quick", "no_figures")
def test_columns_of_a_corpus_may_be_called_as_what_a_card_shows(run: Path) -> None:
    path = run / "predictions_test.csv"
    table = pd.read_csv(path, dtype=str)
    for name in ("seconds", "sound", "right"):
        table.insert(2, name, np.resize(["a", "b"], len(table)))
    table.to_csv(path, index=False)
    page = make_page(run)
    assert "By seconds" in page.text
    assert all(uri.startswith("data:audio/flac;base64,") for uri in page.of("audio", "src"))


@pytest.mark.usefixtures("quick", "no_figures")
def test_mistakes_leave_no_page(run: Path) -> None:
    with pytest.raises(EmolightError, match="NonNegativeInt"):
        report.main([str(run), "--clips", "-1"])
    with pytest.raises(OSError, match="/proc"):  # which the command line tells in two lines
        report.main([str(run), "--output", "/proc/a.html"])
    assert not (run / "report.html").exists()


def test_of_two_seeds_the_mean_probability_decides() -> None:
    own = pd.DataFrame({"clip_id": ["a", "b", "c"], "speaker": "1", "emotion": ["calm", "calm", "sad"]})
    seeds = [[[0.0, 1.0], [0.3, 0.7], [0.2, 0.8]], [[0.9, 0.1], [0.4, 0.6], [0.6, 0.4]]]
    tables = [predictions_table(own, ["calm", "sad"], np.array(one)).assign(seed=k) for k, one in enumerate(seeds)]
    judged = clips.judged(pd.concat(tables, ignore_index=True))
    assert list(judged["clip_id"]) == ["b", "c", "a"]
    assert list(judged["probability"]) == pytest.approx([0.65, 0.6, 0.55])
    assert list(judged["seeds_right"]) == [0, 1, 1]
    assert list(judged["right"]) == [False, True, False]
    cards = clips.make_cards(judged, {"b": np.ones(16_000 * 9, np.float32) * 0.1})
    assert ["sound" in card for card in cards] == [True, False, False]
    heard = soundfile.info(io.BytesIO(base64.b64decode(cards[0]["sound"].partition(",")[2])))
    assert (heard.duration, cards[0]["seconds"]) == (clips.LONGEST, 9)


def test_clips_that_are_parts_of_a_recording(tmp_path: Path) -> None:
    time = np.arange(32_000) / 16_000
    soundfile.write(tmp_path / "long.wav", 0.5 * np.sin(2 * np.pi * np.where(time < 1, 500, 1000) * time), 16_000)
    table = pd.DataFrame({"clip_id": ["a", "b"], "file": str(tmp_path / "long.wav"), "start": [0, 1], "end": [1, None]})
    sounds, silence = clips.load_sounds({"a", "b"}, table, None)
    assert silence == ""
    for name, row in (("a", 16), ("b", 32)):
        image = decibels(sounds[name], 512, 128)
        assert image.shape == (257, 126)
        assert (image[:, 20:100].argmax(axis=0) == row).all()  # in steps of 31.25 Hz
    picture = imread(io.BytesIO(clips.thumbnail(sounds["a"])))
    assert picture.shape[0] == 96
    assert picture[88:92, :, :3].mean() > picture[:24, :, :3].mean()  # 500 Hz lie low


@pytest.fixture
def tab(logs: Path, tmp_path: Path) -> Iterator[Any]:
    """The page of a cross-validation in Chromium, as wide as a telephone; it may ask and say nothing."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    playwright = pytest.importorskip("playwright.sync_api")
    path = tmp_path / "report.html"
    path.write_text(make_page(logs / "mfcc" / "crossval_emobox6").html, encoding="utf-8")
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    asked: list[str] = []
    with (
        playwright.sync_playwright() as engine,
        engine.chromium.launch(executable_path=chromium, args=flags) as browser,
    ):
        tab = browser.new_page(viewport={"width": 390, "height": 844})
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: asked.append(message.text))
        tab.goto(path.as_uri())
        yield tab
    assert [url for url in asked if not url.startswith(("data:", path.as_uri()))] == []


def test_tables_are_sorted_in_a_browser_and_the_page_fits_a_phone(tab: Any) -> None:
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    table = tab.get_by_role("region", name="Results by speaker")
    header = table.get_by_role("columnheader", name="UAR")
    assert header.get_attribute("aria-sort") == "none"
    header.get_by_role("button").focus()
    for key, order in (("Enter", "ascending"), ("Space", "descending")):
        tab.keyboard.press(key)
        values = table.locator("tbody tr").evaluate_all("rows => rows.map(row => Number(row.cells[3].dataset.key))")
        assert header.get_attribute("aria-sort") == order
        assert len(values) == 8
        assert values == sorted(values, reverse=order == "descending")
    table.get_by_role("columnheader", name="sex").get_by_role("button").click()
    sexes = table.locator("tbody tr").evaluate_all("rows => rows.map(row => row.cells[1].textContent)")
    assert sexes == sorted(sexes)
    assert header.get_attribute("aria-sort") == "none"
    assert tab.locator("img").evaluate_all("images => images.filter(image => !image.naturalWidth).length") == 0
