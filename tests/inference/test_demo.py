from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile

from emolight.errors import EmolightError
from emolight.inference import demo
from emolight.inference.recognizer import Recognizer, load
from emolight.models.classifier import EmotionClassifier
from emolight.models.encoder import SpeechEncoder
from emolight.models.features import Waveform as RawWaveform
from emolight.models.loading import load_classifier
from tests.encoders import make_whisper

from .conftest import CLASSES, save, voice


def test_the_verdict_is_the_recognizers_and_the_pictures_agree(checkpoint: Path, tmp_path: Path) -> None:
    recognizer, model = load(checkpoint), load_classifier(checkpoint)
    for seconds in (0.7, 9.0):
        wave = voice(seconds)
        wave[48000:80000] = 0
        soundfile.write(tmp_path / "a.wav", wave, 16000)
        prediction, figures = demo.judge(recognizer, tmp_path / "a.wav", model)
        assert prediction == recognizer.predict_file(tmp_path / "a.wav")
        *over_time, seen = figures
        titles = [axis.get_title(loc="left") for axis in seen.axes]
        assert recognizer.contract.title in titles
        assert len(over_time) == bool(prediction.windows) == (seconds > 1)
        if not over_time:
            assert "waveform, zeros after the dashed line" in titles
            assert demo.judge(recognizer, tmp_path / "a.wav")[1] == []
            continue
        assert f"waveform of the window that speaks most for {prediction.label}" in titles
        (axis, _) = over_time[0].axes
        assert axis.get_xlabel() == "time (s); grey: no sound"
        assert [text.get_text() for text in axis.get_yticklabels()] == CLASSES
        cells = axis.collections[0].get_array()
        assert cells.shape == (3, len(prediction.windows))
        assert cells.mask.any()
        assert list(cells.mean(axis=1)) == pytest.approx([100 * p for p in prediction.probabilities.values()])


def test_a_long_or_broken_recording_gets_a_sentence(checkpoint: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", voice(61.0), 16000)
    (tmp_path / "broken.wav").write_bytes(b"no sound at all")
    (tmp_path / "large.wav").write_bytes(bytes(demo.MAX_BYTES + 1))
    recognizer = load(checkpoint)
    for name, message in (
        ("long", "takes 61.0 s"),
        ("broken", "cannot be used: not readable"),
        ("large", "has 20.0 MB"),
    ):
        with pytest.raises(EmolightError, match=message) as caught:
            demo.judge(recognizer, tmp_path / f"{name}.wav")
        assert str(tmp_path) not in str(caught.value)


def test_a_taken_port_is_refused(checkpoint: Path) -> None:
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmolightError, match=f"Cannot listen at 127.0.0.1:{port}"):
            demo.main([str(checkpoint), "--port", str(port)])


@contextlib.contextmanager
def serving(model: Path, folder: Path) -> Iterator[str]:
    """Address of a running demo; the environment asks for what must not be done. ``folder`` takes what is temporary."""
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    asked = {
        "GRADIO_SERVER_NAME": "0.0.0.0",
        "GRADIO_SHARE": "True",
        "GRADIO_ALLOWED_PATHS": "/",
        "SPACE_ID": "some/where",
        "TMPDIR": str(folder),
        "EMOLIGHT_IMPORTS": "tests",
    }
    command = [sys.executable, "-m", "emolight", "demo", str(model), "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, **asked}, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert f"http://127.0.0.1:{port}" in process.stdout.readline()
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(180) == 143
        assert not list(folder.glob("emolight-demo-*"))
    finally:
        process.kill()


@contextlib.contextmanager
def tab_of_browser(*flags: str) -> Iterator[Any]:
    """A page of the Chromium that is installed."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    playwright = pytest.importorskip("playwright.sync_api")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    with (
        playwright.sync_playwright() as engine,
        engine.chromium.launch(executable_path=chromium, args=[*quiet, *flags]) as browser,
    ):
        tab = browser.new_page()
        tab.set_default_timeout(120000)
        yield tab


@pytest.fixture(scope="module")
def page(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of a running demo and its temporary folder."""
    folder = tmp_path_factory.mktemp("demo")
    with serving(checkpoint, folder) as address:
        yield address, folder


def test_it_listens_on_this_machine_alone_whatever_the_environment_says(page: tuple[str, Path]) -> None:
    port = int(page[0].rpartition(":")[2])
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if " 0A " in line]
    assert [address for address in listening if address.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


def test_upload_a_clip_and_upload_garbage_in_a_browser(
    page: tuple[str, Path], checkpoint: Path, tmp_path: Path
) -> None:
    address, folder = page
    soundfile.write(tmp_path / "mine.wav", voice(1.5, pitch=150), 16000)
    (tmp_path / "garbage.wav").write_bytes(b"no sound at all" * 50)
    expected = load(checkpoint).predict_file(tmp_path / "mine.wav").probabilities
    outside: list[str] = []

    def kept() -> list[str]:
        return [path.name for path in folder.rglob("*.wav") if path.name in ("mine.wav", "garbage.wav")]

    with tab_of_browser() as tab:
        tab.on("request", lambda request: outside.append(request.url))
        tab.goto(address)
        tab.locator("#recording input[type=file]").first.set_input_files(tmp_path / "mine.wav")
        tab.wait_for_selector("#picture1 img", timeout=60000)
        words = tab.locator("#bars").inner_text().split()
        shown = {name: int(words[words.index(name) + 1].rstrip("%")) for name in CLASSES}
        assert shown == {name: round(100 * value) for name, value in expected.items()}
        assert "acted sentences of a test" in tab.content()
        assert "CC BY-NC-SA 4.0: name the authors" in tab.content()
        assert kept() == ["mine.wav"]
        tab.locator("#recording").get_by_label("Clear").first.click()
        tab.locator("#recording input[type=file]").first.set_input_files(tmp_path / "garbage.wav")
        tab.wait_for_selector("#answer >> text=cannot be used: not readable as audio", timeout=60000)
        assert "Traceback" not in tab.content()
        tab.close()
        for _ in range(300):
            if not kept():
                break
            time.sleep(0.2)
        assert kept() == []
    assert [url for url in outside if not url.startswith((address, "data:", "blob:"))] == []


def test_a_microphone_is_heard_and_a_speaker_enrolled_in_a_browser(
    enrollable: Path, speaker: Path, tmp_path: Path
) -> None:
    """Chromium's microphone plays a file; sentences give the model that ``load().enrol`` gives."""
    soundfile.write(tmp_path / "mine.wav", voice(0.6, pitch=240), 16000)
    soundfile.write(tmp_path / "microphone.wav", voice(2.0, 48000), 48000, subtype="PCM_16")
    files, plain = sorted(speaker.iterdir())[:5], load(enrollable)
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with (
        serving(enrollable, tmp_path) as address,
        tab_of_browser(*flags, f"--use-file-for-fake-audio-capture={tmp_path / 'microphone.wav'}") as tab,
    ):

        def shown(path: Path, model: Recognizer) -> None:
            expected = [f"{name} {value:.0%}" for name, value in model.predict_file(path).probabilities.items()]
            for words in expected:
                name, value = words.split()
                tab.wait_for_selector(f"#bars >> text=/{name}\\s*{value}/")

        tab.goto(address)
        tab.locator("#recording input[type=file]").set_input_files(tmp_path / "mine.wav")
        shown(tmp_path / "mine.wav", plain)
        tab.get_by_text("Record 5 sentences first").click()
        for count, path in enumerate(files, 1):
            tab.locator("#sentence input[type=file]").set_input_files(path)
            tab.wait_for_selector(f"#learned >> text=/^{count} /")
        tab.wait_for_selector("#answer >> text=/speaker enrolled with 5 recordings in an ordinary voice/")
        shown(tmp_path / "mine.wav", plain.enrol(files))
        tab.get_by_label("of every emotion").click()
        tab.wait_for_selector("#answer >> text=/speaker enrolled with 5 recordings of every emotion/")
        shown(tmp_path / "mine.wav", plain.enrol(files, "mixed"))
        assert [path.name for path in tmp_path.rglob("*/*.wav") if path.name in {one.name for one in files}] == []
        tab.get_by_role("button", name="Start over").click()
        tab.wait_for_selector("#learned >> text=No sentence is kept")
        shown(tmp_path / "mine.wav", plain)
        tab.locator("#recording").get_by_label("Clear").first.click()
        tab.locator("#recording button[aria-label='Record audio']").click()
        tab.locator("#recording .record-button").click()
        tab.wait_for_timeout(2500)
        tab.locator("#recording .stop-button").click()
        tab.wait_for_selector("#answer >> text=/It sounds (calm|happy|sad) .*mean of [1-9]/")
        assert "enrolled" not in tab.locator("#answer").inner_text()


def test_an_encoder_and_an_ensemble_have_a_page(small: Path, enrollable: Path, tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    pytest.importorskip("transformers")
    from emolight.inference import demo_page

    network = partial(SpeechEncoder, path=str(make_whisper(tmp_path / "encoder")))
    encoder = EmotionClassifier(RawWaveform, network, augment=[], classes=CLASSES, duration=0.5).eval()
    save(encoder, tmp_path / "encoder.ckpt")
    runs = [{"folder": str(path)} for path in (small, enrollable)]
    (tmp_path / "crossval.json").write_text(json.dumps({"runs": runs}))
    soundfile.write(tmp_path / "a.wav", voice(3.0), 16000)
    for path, how in ((tmp_path / "encoder.ckpt", "mean of"), (tmp_path, f"mean of 2 models of {tmp_path.name}")):
        recognizer = load(path)
        prediction, figures = demo.judge(recognizer, tmp_path / "a.wav", demo.pictured(path))
        assert how in prediction.how
        assert [figure.get_suptitle().split("\n")[0] for figure in figures] == [
            "probability of every emotion over time"
        ]
        names = [block.elem_id for block in demo_page.build(recognizer, None).blocks.values() if block.visible]
        assert ("speaker" in names) == (path == tmp_path)
    recognizer.contract.training["column"] = "sex"
    page = str([getattr(block, "value", "") for block in demo_page.build(recognizer, None).blocks.values()])
    assert "Which sex does a voice sound like?" in page
    assert "It tells which sex of 3 a" in page
    assert "or as many of every sex." in page


def test_an_upload_is_kept_while_a_page_shows_it(enrollable: Path, speaker: Path, tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    from emolight.inference import demo_page

    page = demo_page.build(load(enrollable), None)
    answer, learn, leave = (
        {one.name: one.fn for one in page.fns.values()}[name] for name in ("answer", "learn", "leave")
    )
    ann, ben = SimpleNamespace(session_hash="ann"), SimpleNamespace(session_hash="ben")
    path = shutil.copy(speaker / "0.wav", tmp_path)  # Gradio has one path for equal files
    for visitor in (ann, ben):
        assert "It sounds" in answer(path, visitor)[0]
    answer(None, ann)
    assert learn(path, "mixed", ben)[1] == "1 of 5 sentences"
    assert "the speaker was enrolled with this very recording" in answer(path, ben)[0]
    assert "enrolled" not in answer(path, ann)[0]
    leave(ben)
    assert "It sounds" in answer(path, ann)[0]
    leave(ann)
    assert not Path(path).exists()
    assert answer(path, ann)[0] == "⚠️ The recording is not kept any more. Record or upload it again."
