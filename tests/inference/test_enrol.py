"""A speaker is enrolled by a few recordings: the same shift in PyTorch and ONNX, and said with every prediction."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from emolight.__main__ import run
from emolight.data.audio import fix_length
from emolight.errors import EmolightError
from emolight.inference.network import Speakers
from emolight.inference.recognizer import KINDS, load
from emolight.models.classifier import EmotionClassifier
from emolight.models.encoder import SpeechEncoder
from emolight.models.features import Waveform
from emolight.models.loading import load_classifier
from emolight.models.speakers import SpeakerNorm
from tests.inference.conftest import CLASSES, RATE, adapted, save, voice
from tests.models.test_encoder import make_wav2vec, make_whisper


def test_the_shift_is_what_the_model_learned_it_by() -> None:
    torch.manual_seed(0)
    norm, statistics = SpeakerNorm((2, 3)), torch.randn(12, 2, 3)
    norm.fit(statistics, torch.arange(12) // 4, torch.arange(12) % 3 == 0)
    norm.strength.fill_(3.0)
    ours = Speakers(norm.centre.numpy(), norm.ordinary.numpy(), float(norm.strength))
    again = Speakers.unpacked(json.loads(json.dumps(ours.packed())))
    for ordinary in (True, False):
        expected = norm.offset(statistics[:5], ordinary).numpy()
        assert np.abs(expected).max() > 0.01
        for one in (ours, again):
            np.testing.assert_allclose(one.offset(statistics[:5].numpy(), ordinary), expected, atol=1e-6)


def test_an_enrolled_model_is_the_classifier_with_the_speakers_offset(enrollable: Path, speaker: Path) -> None:
    model, plain = load_classifier(enrollable), load(enrollable)
    found = {kind: plain.enrol(speaker, kind) for kind in ("ordinary", "mixed")}
    clips = [plain.load_clip(path) for path in sorted(speaker.iterdir())]
    waves = torch.from_numpy(np.stack([fix_length(clip.trimmed, plain.contract.length) for clip in clips]))
    assert model.speakers is not None
    with torch.no_grad():
        for kind, enrolled in found.items():
            offset = model.speakers.offset(model.statistics({"waveform": waves}), kind == "ordinary")
            logits = model.logits({"waveform": waves[:1]}, offset) / model.temperature
            said = enrolled.predict_clips(clips[:1])[0]
            np.testing.assert_allclose([*said.probabilities.values()], logits.softmax(1)[0], atol=1e-5)
    said = [one.predict_clips(clips[:1])[0] for one in (plain, *found.values())]
    assert len({one.probabilities["sad"] for one in said}) == 3
    assert [one.how for one in said] == [
        "",
        "speaker enrolled with 6 recordings in an ordinary voice",
        "speaker enrolled with 6 recordings of every emotion",
    ]


def test_recordings_are_folders_paths_or_arrays_and_few_are_said(enrollable: Path, speaker: Path) -> None:
    model, paths = load(enrollable), sorted(speaker.iterdir())
    offsets = [
        model.enrol(speaker).offset,
        model.enrol(paths).offset,
        model.enrol([soundfile.read(path)[0] for path in paths], sample_rate=RATE).offset,
    ]
    offsets.append(model.enrol([model.load_clip(path) for path in paths]).offset)
    for other in offsets[1:]:
        np.testing.assert_allclose(other, offsets[0], atol=1e-4)
    one = model.enrol(paths[0])
    assert one.predict_file(paths[1]).how == (
        "speaker enrolled with 1 recording in an ordinary voice, few: 5 or more are better"
    )
    assert np.abs(one.offset).sum() < np.abs(offsets[0]).sum()
    minute = np.concatenate([soundfile.read(path)[0] for path in paths] * 3)
    long = model.enrol([minute], sample_rate=RATE).predict(minute, RATE)
    assert long.how.endswith("s; speaker enrolled with 1 recording in an ordinary voice")
    assert all(not window.how for window in long.windows)


def test_what_cannot_be_enrolled_is_refused(enrollable: Path, small: Path, speaker: Path, tmp_path: Path) -> None:
    with pytest.raises(EmolightError, match=r"without speaker_norm.\n.*--model.speaker_norm true"):
        run(["predict", str(small), str(speaker), "--enrol", str(speaker)])
    with pytest.raises(EmolightError, match="Valid: ordinary, mixed"):
        load(enrollable).enrol(speaker, "angry")
    with pytest.raises(EmolightError, match="are needed"):
        load(enrollable).enrol([])
    (tmp_path / "a.m4a").write_bytes(b"ftyp")
    soundfile.write(tmp_path / "b.wav", voice(), RATE)
    with pytest.raises(EmolightError, match=r"1 × .m4a, which cannot be read"):
        load(enrollable).enrol(tmp_path)
    content = torch.load(enrollable, weights_only=True)
    content["state_dict"]["speakers.ordinary"].fill_(torch.nan)
    torch.save(content, tmp_path / "best.ckpt")
    with pytest.warns(UserWarning, match="checksum"):
        model = load(tmp_path / "best.ckpt")
    with pytest.raises(EmolightError, match="as mixed"):
        model.enrol(speaker)
    assert model.enrol(speaker, "mixed").offset.any()


def test_the_command_line_enrols_and_every_format_says_so(
    enrollable: Path, speaker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(enrollable), str(speaker / "0.wav"), "--enrol", str(speaker), "--enrol-as", "mixed"]
    how = "speaker enrolled with 6 recordings of every emotion"
    for form in ("text", "csv", "json"):
        assert run([*words, "--format", form]) == 0
        assert how in capsys.readouterr().out
    warning = "  warning: the speaker was enrolled with this very recording\n"
    for path, count in ((speaker / "0.wav", 1), (tmp_path / "other.wav", 0)):
        soundfile.write(tmp_path / "other.wav", voice(0.6, pitch=240), RATE)
        assert run([*words[:2], str(path), *words[3:]]) == 0
        assert capsys.readouterr().out.count(warning) == count
    assert run([*words, "--explain", str(tmp_path / "pictures")]) == 0
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["0.png"]


@pytest.fixture(scope="module", params=["mfcc", "whisper", "wav2vec2"])
def exported(request: pytest.FixtureRequest, enrollable: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A checkpoint that can be adapted, and its ONNX file."""
    for library in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(library)
    from emolight.inference.export import export

    folder, checkpoint = tmp_path_factory.mktemp("encoder"), enrollable
    if request.param != "mfcc":
        pytest.importorskip("transformers")
        make = make_whisper if request.param == "whisper" else make_wav2vec
        network = partial(SpeechEncoder, path=str(make(folder)), pooling="weighted")
        given = {"features": Waveform, "network": network, "augment": [], "classes": CLASSES, "duration": 0.5}
        model = EmotionClassifier(**given, speaker_norm=True).eval()
        checkpoint = save(adapted(model), folder / "best.ckpt")
    made = export(checkpoint, folder / "model.onnx")
    assert made["largest_difference"] < 1e-4
    assert made["offset"].endswith("zeros: not enrolled")
    return [checkpoint, folder / "model.onnx"]


def test_a_bundle_says_everything_that_it_takes(enrollable: Path, tmp_path: Path) -> None:
    for library in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(library)
    import onnxruntime

    assert run(["export", str(enrollable), "--bundle", str(tmp_path)]) == 0
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for one in (*session.get_inputs(), *session.get_outputs()):
        assert f"`{one.name}`" in card


def test_onnx_enrols_as_pytorch_does(exported: list[Path], speaker: Path) -> None:
    torched, onnx = (load(path) for path in exported)
    paths = sorted(speaker.iterdir())
    long = np.concatenate([voice(0.4, pitch=200 + 40 * n, seed=n) for n in range(8)])
    for ours, theirs in [(onnx, torched), *((onnx.enrol(speaker, k), torched.enrol(speaker, k)) for k in KINDS)]:
        said = [[*map(model.predict_file, paths), model.predict(long, RATE)] for model in (ours, theirs)]
        for one, other in zip(*said, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
            assert one.how == other.how
    clips = [onnx.load_clip(path) for path in paths]  # as the demo keeps them
    assert "the speaker was enrolled with this very recording" in onnx.enrol(clips).predict_file(paths[0]).warnings
    enrolled = onnx.enrol(speaker).predict_file(paths[0]).probabilities["sad"]
    assert abs(enrolled - onnx.predict_file(paths[0]).probabilities["sad"]) > 1e-3


def test_encoders_that_no_graph_holds_are_refused_by_what_they_are(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from emolight.inference.export import write_onnx

    for norm, half, what in (("group", False, "each clip passes alone"), ("layer", True, "in float16")):
        network = partial(SpeechEncoder, path=str(make_wav2vec(tmp_path / norm, norm)))
        model = EmotionClassifier(Waveform, network, augment=[], classes=CLASSES, duration=0.5)
        with pytest.raises(EmolightError, match=rf"[Ee]ncoder .*{what}.* cannot be exported.\nTake float32"):
            write_onnx(model, {}, tmp_path / "model.onnx", half)


def test_an_encoder_predicts_but_has_no_class_activation_map(speaker: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    network = partial(SpeechEncoder, path=str(make_whisper(tmp_path)))
    model = EmotionClassifier(Waveform, network, augment=[], classes=CLASSES, duration=0.5).eval()
    words = ["predict", str(save(model, tmp_path / "best.ckpt")), str(speaker), "--format", "csv"]
    assert run(words) == 0
    with pytest.raises(EmolightError, match="no convolution for Grad-CAM"):
        run([*words, "--explain", str(tmp_path / "pictures")])
    assert not (tmp_path / "pictures").exists()
