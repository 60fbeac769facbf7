"""Clips a second of `predict` against the usual loop: librosa.load, librosa features, a batch of one.

python benchmarks/predict.py CKPT FOLDER [--clips 500] [--threads 2]

Both run the same network on the same files in this process, after the model is loaded; run it on an idle machine.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import librosa
import numpy as np
import torch

from emolight.data.audio import AudioError
from emolight.inference.predict import Result, find_recordings, predict_files
from emolight.inference.recognizer import load
from emolight.models.classifier import EmotionClassifier
from emolight.models.loading import load_classifier


def usual_loop(model: EmotionClassifier, paths: list[str]) -> list[int]:
    """Class numbers, a clip at a time, for a checkpoint on MFCC."""
    settings = model.front_end.spec["init_args"]
    rate, length = model.hparams["sample_rate"], round(model.hparams["duration"] * model.hparams["sample_rate"])
    found = []
    for path in paths:
        wave, _ = librosa.load(path, sr=rate)
        wave, _ = librosa.effects.trim(wave, top_db=model.hparams["trim_db"])
        spare = max(0, len(wave) - length)
        wave = librosa.util.fix_length(wave[spare // 2 : spare // 2 + length], size=length)
        image = librosa.feature.mfcc(
            y=wave,
            sr=rate,
            pad_mode="constant",
            **{name: settings[name] for name in ("n_mfcc", "n_mels", "n_fft", "hop_length")},
        )
        with torch.no_grad():
            logits = model.network(model.normalise(torch.from_numpy(image.astype(np.float32))[None, None]))
        found.append(int(logits.argmax()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a checkpoint on MFCC")
    parser.add_argument("folder")
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    paths = find_recordings([options.folder])[0][: options.clips]
    recognizer, model = load(options.checkpoint), load_classifier(options.checkpoint)
    usual_loop(model, paths[:5])
    list(predict_files(recognizer, paths[:64], whole=True))
    start = time.perf_counter()
    theirs = usual_loop(model, paths)
    middle = time.perf_counter()
    results = list(predict_files(recognizer, paths, whole=True))
    end = time.perf_counter()
    if bad := [one for one in results if isinstance(one, AudioError)]:
        raise bad[0]
    ours = [recognizer.classes.index(str(one.prediction.label)) for one in results if isinstance(one, Result)]
    agree = np.mean(np.array(ours) == np.array(theirs))
    slow, fast = len(paths) / (middle - start), len(paths) / (end - middle)
    print(f"{len(paths)} clips, {options.threads} threads; labels agree on {agree:.1%}")
    rates = f"librosa, one at a time: {slow:.1f} clips/s   emolight predict: {fast:.1f} clips/s"
    print(f"{rates}   ratio {fast / slow:.2f}")


if __name__ == "__main__":
    main()
