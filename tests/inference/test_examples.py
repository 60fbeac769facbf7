from __future__ import annotations

import base64
import io
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from matplotlib.image import imread

from emolight.data.audio import load_waveform
from emolight.data.ravdess import ARTICLE_EMOTIONS, discover, select
from emolight.errors import EmolightError
from emolight.evaluation.predictions import predictions_table, read_predictions, write_predictions
from emolight.inference.examples import choose, draw, load_rows, main, page, read_run, spectrogram

LICENCE = "https://creativecommons.org/licenses/by-nc-sa/4.0/"


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.html = html
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def sources(self, tag: str) -> list[str]:
        return [str(attributes["src"]) for name, attributes in self.tags if name == tag]


class Gallery(NamedTuple):
    run: Path
    printed: list[str]
    page: Page


@pytest.fixture
def run(corpus: Path, tmp_path: Path) -> Path:
    return make_run(corpus, tmp_path)


@pytest.fixture(scope="module")
def gallery(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """A run after the command."""
    run = make_run(corpus, tmp_path_factory.mktemp("gallery"))
    code = "import sys; from emolight.inference.examples import main; code = main(sys.argv[1:]); "
    code += "print('torch' in sys.modules); sys.exit(code)"
    command = [sys.executable, "-c", code, str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Gallery(run, done.stdout.split(), Page((run / "plots" / "examples_val.html").read_text("utf-8")))


def make_run(corpus: Path, folder: Path) -> Path:
    """A run folder with predictions of 50 clips; nothing calm is heard wrongly."""
    folder = folder / "lightning_logs" / "demo" / "version_3"
    folder.mkdir(parents=True)
    clips = select(discover(corpus).table, ARTICLE_EMOTIONS, ("speech",)).iloc[::6]
    chance = np.random.default_rng(0)
    probabilities = chance.dirichlet(np.ones(len(ARTICLE_EMOTIONS)), len(clips))
    probabilities[(clips["emotion"] == "calm").to_numpy()] = [0.9, 0.1, 0, 0, 0]
    write_predictions(folder / "predictions_val.csv", predictions_table(clips, ARTICLE_EMOTIONS, probabilities))
    clips[["clip_id", "emotion", "actor"]].assign(subset="val", protocol="emobox6 fold 1").to_csv(
        folder / "split.csv", index=False
    )
    configure(folder, root=str(corpus))
    return folder


def configure(folder: Path, name: str = "demo", **data: object) -> None:
    values = {"root": "data/ravdess", "trim_db": 30.0, "synthetic": False, "protocol": "emobox6", **data}
    (folder / "config.yaml").write_text(yaml.safe_dump({"name": name, "data": values}))


def content(uri: str) -> bytes:
    return base64.b64decode(uri.partition(",")[2], validate=True)


def test_page_and_picture_stand_in_the_run(gallery: Gallery) -> None:
    written = [gallery.run / "plots" / f"examples_val.{kind}" for kind in ("png", "html")]
    assert gallery.printed[:2] == [str(path) for path in written]
    assert sorted((gallery.run / "plots").iterdir()) == sorted(written)
    assert imread(written[0]).shape[1] > 800
    assert written[1].stat().st_size < 5_000_000


def test_the_command_needs_no_torch(gallery: Gallery) -> None:
    assert gallery.printed[2] == "False"


def test_page_needs_nothing_from_outside(gallery: Gallery) -> None:
    page = gallery.page
    images, sounds = page.sources("img"), page.sources("audio")
    assert len(images) == len(sounds) == 18
    assert all(uri.startswith("data:image/png;base64,") for uri in images)
    assert all(uri.startswith("data:audio/flac;base64,") for uri in sounds)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    assert all("alt" in attributes for tag, attributes in page.tags if tag == "img")
    assert "url(" not in page.html
    assert "://" not in page.html.replace(LICENCE, "")
    assert "prefers-color-scheme: dark" in page.html


def test_picture_of_a_clip_is_its_spectrogram(gallery: Gallery) -> None:
    for uri in gallery.page.sources("img"):
        image = imread(io.BytesIO(content(uri)))
        assert image.shape[0] == 96
        low, high = image[72:, :, :3].mean(), image[:24, :, :3].mean()  # a voice is low
        assert low > high


def test_sound_is_the_recording_at_16_khz(gallery: Gallery, corpus: Path) -> None:
    page = gallery.page
    paths = {Path(path).stem: corpus / path for path in discover(corpus).table["path"]}
    names = [str(attributes["aria-label"]).split()[-1] for tag, attributes in page.tags if tag == "audio"]
    for name, uri in zip(names, page.sources("audio"), strict=True):
        samples, rate = soundfile.read(io.BytesIO(content(uri)), dtype="float32")
        assert rate == 16000
        np.testing.assert_allclose(samples, load_waveform(paths[name], 16000, 30.0), atol=2 / 32768)


def test_examples_are_the_most_confident_right_and_wrong_ones(run: Path) -> None:
    table = read_predictions(run / "predictions_val.csv")
    chosen = choose(table, 2)
    assert chosen.groupby(["label", "right"]).size().max() == 2
    for (label, right), some in chosen.groupby(["label", "right"]):
        rows = table[(table["label"] == label) & ((table["prediction"] == label) == right)]
        highest = rows.filter(like="prob_").max(axis=1).nlargest(2)
        assert list(some["probability"]) == pytest.approx(list(highest))


def test_random_examples_are_the_same_every_time(run: Path) -> None:
    table = read_predictions(run / "predictions_val.csv")
    first, second = (list(choose(table, 2, "random")["clip_id"]) for _ in range(2))
    assert first == second
    assert set(first) != set(choose(table, 2)["clip_id"])


def test_grid_has_right_beside_wrong_for_every_emotion(run: Path) -> None:
    found = read_run(run, "val")
    rows = load_rows(found, choose(found.table, 2))
    figure = draw(rows, 2, "title")
    left, right = figure.subfigs
    for side, wrong in ((left, False), (right, True)):
        assert len(side.axes) == 2 * len(ARTICLE_EMOTIONS)
        for row, emotion in enumerate(ARTICLE_EMOTIONS):
            for axis in side.axes[2 * row : 2 * row + 2]:
                said = axis.get_title().split()
                if said:
                    assert said[0] == emotion
                    assert (said[2] != emotion) is wrong
                    assert len(axis.images) == 1
    assert [axis.texts[0].get_text() for axis in right.axes[:2]] == ["none", "none"]
    assert all(axis.get_title() for axis in left.axes[:2])
    figure.draw_without_rendering()
    for one, other in zip(left.axes, right.axes, strict=True):
        assert abs(one.get_window_extent().y0 - other.get_window_extent().y0) < 2


def test_page_tells_subset_protocol_score_and_whose_voices(gallery: Gallery) -> None:
    text = " ".join(gallery.page.text.split())
    table = read_predictions(gallery.run / "predictions_val.csv")
    right = int((table["label"] == table["prediction"]).sum())
    assert f"{right} of {len(table)} validation clips are right" in text
    assert "emobox6 fold 1, speaker-independent" in text
    assert "synthetic" in text
    assert "RAVDESS" not in text


def make_page(folder: Path, root: Path | None = None) -> Page:
    found = read_run(folder, "val", root)
    return Page(page(found, load_rows(found, choose(found.table, 1)), "val", "The most confident."))


def test_page_of_recordings_names_their_licence(run: Path, corpus: Path, tmp_path: Path) -> None:
    real = tmp_path / "recordings"
    real.mkdir()
    for folder in corpus.iterdir():  # without the marker of the synthetic corpus
        if folder.is_dir():
            (real / folder.name).symlink_to(folder)
    found = make_page(run, real)
    assert [attributes["href"] for tag, attributes in found.tags if tag == "a"] == [LICENCE]
    assert "RAVDESS" in found.text
    assert "CC BY-NC-SA 4.0" in found.text
    assert "synthetic" not in found.text


def test_names_are_escaped(run: Path, corpus: Path) -> None:
    configure(run, "<script>alert(1)</script>", root=str(corpus))
    found = make_page(run)
    assert "script" not in {tag for tag, _ in found.tags}
    assert "<script>" in found.text


def test_spectrogram_has_a_tone_at_its_frequency() -> None:
    time = np.arange(16000) / 16000
    image = spectrogram(np.sin(2 * np.pi * 1000 * time).astype(np.float32))
    assert image.shape == (257, 126)
    assert (image[:, 20:100].argmax(axis=0) == 32).all()  # 1000 Hz in steps of 31.25 Hz
    assert image.max() - image.min() == pytest.approx(80, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--subset", "test"], r"predictions_test\.csv(.|\n)*emolight test --ckpt_path"),
        (["--root", "nowhere"], r"'nowhere'(.|\n)*--root"),
        (["--per-emotion", "0"], r"--per-emotion is 0"),
        (["--per-emotion", "11"], r"--per-emotion is 11"),
    ],
)
def test_mistakes_are_sentences(run: Path, arguments: list[str], text: str) -> None:
    with pytest.raises(EmolightError, match=text):
        main([str(run), *arguments])
    assert not (run / "plots").exists()


def test_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(EmolightError, match=r"config\.yaml"):
        main([str(tmp_path)])


def test_damaged_config(run: Path) -> None:
    (run / "config.yaml").write_text("data: [")
    with pytest.raises(EmolightError, match="cannot be used"):
        main([str(run)])


def test_recording_that_is_gone(run: Path) -> None:
    table = pd.read_csv(run / "predictions_val.csv")
    table.loc[0, "clip_id"] = "03-01-02-01-01-01-00"
    table.to_csv(run / "predictions_val.csv", index=False)
    with pytest.raises(EmolightError, match=r"1 of \d+ recordings(.|\n)*03-01-02-01-01-01-00(.|\n)*--root"):
        main([str(run), "--per-emotion", "1"])


def test_page_that_is_too_large(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emolight.inference.examples.MAX_BYTES", 20_000)
    with pytest.raises(EmolightError, match=r"MB(.|\n)*--per-emotion"):
        main([str(run)])
    assert not (run / "plots").exists()
