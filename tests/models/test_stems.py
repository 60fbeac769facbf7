from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from emolight.__main__ import run
from emolight.errors import EmolightError
from emolight.models.features import MFCC, Features, MelSpectrogram, Spectrogram, Waveform
from emolight.models.loading import load_classifier
from emolight.models.parts import build, described
from emolight.models.stems import MultiStemResNet18, Stacked
from emolight.run.options import differences

from ..small import CONFIGS, options


def noise(clips: int = 2, length: int = 8000) -> torch.Tensor:
    return torch.randn(clips, length, generator=torch.Generator().manual_seed(0)) / 10


def test_each_channel_is_a_front_end_with_as_many_rows() -> None:
    """As many rows are the same, twice less one has the means in between, and half has every second."""
    for rows in (40, 79, 14):
        image = Stacked(16000, [MFCC, Spectrogram], rows)(noise())
        mfcc = MFCC(16000)(noise())
        assert image.shape == (2, 2, rows, 16)
        channel = image[:, :1]
        if rows == 40:
            torch.testing.assert_close(channel, mfcc)
        elif rows == 79:
            torch.testing.assert_close(channel[:, :, ::2], mfcc)
            torch.testing.assert_close(channel[:, :, 1::2], (mfcc[:, :, 1:] + mfcc[:, :, :-1]) / 2)
        else:
            torch.testing.assert_close(channel, mfcc[:, :, ::3])
        spectrum = Spectrogram(16000)(noise())
        torch.testing.assert_close(image[:, 1:, [0, -1]], spectrum[:, :, [0, -1]])


def test_without_parts_it_is_the_three_of_the_shipped_configuration() -> None:
    stacked = Stacked(16000)
    assert (stacked.channels, stacked.title) == (3, "40 MFCC + 64 mel bins + spectrogram, 81 bins")
    parts = (MFCC(16000, n_fft=1024), MelSpectrogram(16000, n_fft=1024), Spectrogram(16000, f_max=2500))
    assert stacked.pictured == f"{stacked.title}: first of 3 channels"
    assert stacked.spec["init_args"]["parts"] == [part.spec for part in parts]
    assert described(stacked.spec).startswith("Stacked (parts MFCC (n_mfcc 40, n_mels 64, ")
    assert "level keep) + MelSpectrogram (" in described(stacked.spec)
    assert Stacked(4000).channels == 3  # the spectrogram ends where the band does


def test_a_specification_makes_the_same_again() -> None:
    """Of classes, of partials, of names and of nested ones, with the level that is in front of all."""
    deltas = {"class_path": "MFCC", "init_args": {"deltas": 1}}
    stacked = Stacked(16000, [MelSpectrogram, partial(MFCC, n_mfcc=13), "MFCC", deltas, Stacked], 32, level="rms")
    assert (stacked.channels, stacked.rows, stacked.hop_length) == (8, 32, 512)
    again: Features = build(stacked.spec, Features)(16000)
    assert again.spec == stacked.spec
    torch.testing.assert_close(again(noise()), stacked(noise() / 100), atol=1e-3, rtol=0)


def test_a_class_below_may_fix_its_parts() -> None:
    class Two(Stacked):
        def __init__(self, sample_rate: int) -> None:
            super().__init__(sample_rate, [MFCC, Spectrogram])

    assert Two(16000).spec["init_args"] == {}


def test_what_a_function_made_can_be_pickled() -> None:
    """As parts are that the command line makes."""
    stacked = Stacked(16000, [lambda sample_rate: MFCC(sample_rate, n_mfcc=13)])
    assert torch.equal(pickle.loads(pickle.dumps(stacked))(noise()), stacked(noise()))


def test_without_parts_a_run_goes_on_with_those_of_its_checkpoint() -> None:
    kept = Stacked(16000).spec
    given = {**kept, "init_args": {**kept["init_args"], "parts": None}}
    assert differences({"features": kept}, {"features": given}, "model") == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": 0}, "model.features.rows is 0; it must be at least 1."),
        ({"parts": []}, "these hops: none"),
        ({"parts": [MFCC, partial(MFCC, hop_length=256)]}, "these hops: MFCC 512, MFCC 256"),
        ({"parts": [Waveform]}, "Waveform gives no image"),
        ({"parts": ["MFC"]}, "Did you mean 'MFCC'?"),
        ({"parts": [partial(MFCC, n_fft=8)]}, "model.features.parts' n_fft is 8; it must be at least 16."),
    ],
)
def test_parts_that_do_not_fit_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EmolightError) as caught:
        Stacked(16000, **settings)
    assert message in str(caught.value)


def test_each_stem_sees_its_own_channel() -> None:
    torch.manual_seed(0)
    network = MultiStemResNet18(3, 5).eval()
    seen: list[torch.Tensor] = []
    network.stems[1].register_forward_hook(lambda module, inputs, result: seen.append(result))
    image = torch.randn(2, 3, 64, 71, requires_grad=True)
    assert network(image).shape == (2, 5)
    (gradient,) = torch.autograd.grad(seen[0].sum(), image)
    assert gradient[:, 1].any()
    assert not gradient[:, [0, 2]].any()
    assert network.head is network.last


def test_the_shipped_configuration_trains_and_predicts(corpus: Path, here: Path) -> None:
    """Front-ends named in YAML stand in config.yaml and in the checkpoint, which makes them again."""
    run(["fit", f"--config={CONFIGS / 'stems.yaml'}", *options(corpus), "--model.features.rows=32"])
    made = here / "lightning_logs/stems/version_0"
    assert "MultiStemResNet18 on Stacked (parts MFCC (n_mfcc 40, " in (made / "MODEL_CARD.md").read_text()
    model = load_classifier(made / "checkpoints/best.ckpt")
    assert isinstance(model.network, MultiStemResNet18)
    assert model.front_end.title == "40 MFCC + 64 mel bins + spectrogram, 81 bins"
    assert model.features(noise()).shape == (2, 3, 32, 16)
    assert model(noise()).shape == (2, 5)
