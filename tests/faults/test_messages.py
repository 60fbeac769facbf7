"""What people mistype: at most three lines with the cause, the value and the fix, exit code 2, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from emolight.__main__ import main
from tests.inference.conftest import checkpoint
from tests.small import CONFIGS, options

__all__ = ["checkpoint"]

MFCC = f"--config {CONFIGS / 'mfcc.yaml'}"

FILES = {
    "typo.yaml": "model:\n  learning_rat: 0.1\n",
    "type.yaml": "data: {batch_size: many}\n",
    "tabs.yaml": "data:\n\tbatch_size: 8\n",
    "empty.yaml": "model:\n",
    "list.yaml": "- data\n",
    "lost/config.yaml": "data:\n",
    "notes.txt": "no sound\n",
    "page.ckpt": "<!DOCTYPE html>",
    "lost/page.ckpt": "<!DOCTYPE html>",
}
"""What lies in the folder; ``folder`` is an empty one."""

# Words, and what of them the message must tell: the cause with the value, and the fix. DATA stands for small
# recordings that are right.
MISTAKES: list[tuple[str, list[str]]] = [
    ("fti", ["Unknown command 'fti'.", "Did you mean 'fit'?"]),
    (f"{MFCC} fit", ["The command comes first, received '--config'.", "python -m emolight fit --config"]),
    ("fit --config", ["--config: expected one argument"]),
    ("fit mfcc.yaml", ["'mfcc.yaml' stands alone.", "--config mfcc.yaml"]),
    ("fit --config typ.yaml", ["There is no configuration file", "typ.yaml", "Did you mean 'typo.yaml'?"]),
    ("fit --config folder", ["folder"]),
    (f"fit {MFCC} --model.lerning_rate 1", ["'model.lerning_rate'", "Did you mean 'model.learning_rate'?"]),
    (f"fit {MFCC} --config typo.yaml", ["'model.learning_rat'", "Did you mean 'model.learning_rate'?"]),
    (f"fit {MFCC} --data.batch_size many", ["data.batch_size is 'many'.", "Expected: int."]),
    (f"fit {MFCC} --config type.yaml", ["data.batch_size is 'many'.", "Expected: int."]),
    (f"fit {MFCC} --config tabs.yaml", ["tabs.yaml is not valid YAML", "Mend it"]),
    (f"fit {MFCC} --config empty.yaml", ["empty.yaml: model is empty", "Take the line out"]),
    (f"fit {MFCC} --config list.yaml", ["list.yaml holds no options", "NAME: VALUE"]),
    (f"fit {MFCC} --data.protocol emobox", ["data.protocol is 'emobox'.", "Did you mean 'emobox6'?"]),
    (f"fit {MFCC} DATA --data.fold 9", ["no fold 9", "from 1 to 6"]),
    (f"fit {MFCC} DATA --data.emotions [calm,hapy]", ["'hapy'", "Did you mean 'happy'?"]),
    (f"fit {MFCC} DATA --data.emotions [calm]", ["[calm]", "Change data.emotions."]),
    (f"fit {MFCC} DATA --data.channels [sing]", ["'sing'", "speech, song"]),
    (f"fit {MFCC} DATA --data.duration 0", ["data.duration is 0 s", "0.05 to 60"]),
    (f"fit {MFCC} DATA --data.sample_rate 0", ["data.sample_rate is 0", "at least 1000"]),
    (f"fit {MFCC} DATA --data.batch_size 0", ["data.batch_size is 0", "at least 1"]),
    (f"fit {MFCC} DATA --data.split_csv none.csv", ["none.csv"]),
    (f"fit {MFCC} DATA --data.split_csv notes.txt", ["notes.txt"]),
    (f"fit {MFCC} DATA --data.splits_dir notes.txt", ["notes.txt"]),
    (f"fit {MFCC} DATA --data.cache_dir notes.txt", ["notes.txt"]),
    (f"fit {MFCC} DATA --name ../proc/x", ["proc/x", "leads out of lightning_logs", "--name"]),
    (f"fit {MFCC}", ["'data/ravdess'", "emolight download", "--data.root DIR"]),
    (f"fit {MFCC} --data.root folder", ["No RAVDESS clip under 'folder'", "--data.root DIR"]),
    (f"fit {MFCC} --data.root notes.txt", ["'notes.txt'", "--data.root DIR"]),
    (f"fit {MFCC} --model.features.n_mels 100000", ["of 100000 mel bins are empty", "Lower model.features.n_mels"]),
    (f"fit {MFCC} --model.features.n_mels -3", ["model.features.n_mels is -3", "at least 1"]),
    (f"fit {MFCC} --model.features.f_min 9000 --model.features.f_max 100", ["f_min is 9000", "below f_max = 100"]),
    (f"fit {MFCC} --model.features.n_mfcc 400", ["model.features.n_mfcc is 400", "from 1 to n_mels = 64"]),
    (f"fit {MFCC} --model.features.n_fft 1", ["model.features.n_fft is 1", "Change"]),
    (f"fit {MFCC} --model.features.hop_length 0", ["model.features.hop_length is 0", "at least 1"]),
    (f"fit {MFCC} --model.learning_rate -0.1", ["model.learning_rate is -0.1", "above 0"]),
    (f"fit {MFCC} --model.classes [calm,sad]", ["model.classes cannot be set", "Set data.emotions."]),
    (f"fit {MFCC} --seed_everything -1", ["seed_everything is -1", "from 0 to"]),
    (f"fit {MFCC} --trainer.max_epochs -3", ["trainer.max_epochs is -3", "at least 1"]),
    (f"fit {MFCC} DATA --trainer.max_epochs 0", ["trainer.max_epochs is 0", "at least 1"]),
    (f"fit {MFCC} --trainer.accelerator gpus", ["'gpus'", "what is there is taken"]),
    (f"fit {MFCC} --trainer.accelerator tpu", ["what is there is taken"]),
    (f"fit {MFCC} --trainer.accelerator cpu --trainer.devices 999", ["trainer.devices is 999", "Leave it out"]),
    (f"fit {MFCC} --trainer.precision 12", ["trainer.precision is '12'", "bf16-mixed"]),
    (f"fit {MFCC} --trainer.callbacks mine.Mine", ["'mine.Mine'", "EMOLIGHT_IMPORTS=mine"]),
    ("fit --resume folder", ["folder is not a run folder", "lightning_logs/NAME/version_N"]),
    ("fit --ckpt_path page.ckpt", ["page.ckpt", "fit --resume RUN"]),
    ("test", ["`test` needs a checkpoint", "--ckpt_path RUN/checkpoints/best.ckpt"]),
    ("test --ckpt_path none.ckpt", ["There is no checkpoint none.ckpt.", "RUN/checkpoints/best.ckpt"]),
    ("test --ckpt_path folder", ["'folder' is a folder", "RUN/checkpoints/best.ckpt"]),
    ("test --ckpt_path page.ckpt", ["No config.yaml in the folders above page.ckpt"]),
    ("validate --ckpt_path lost/page.ckpt", ["lost/config.yaml is not the configuration of a run"]),
    ("test --ckpt_path https://example.org/best.ckpt", ["'https://example.org/best.ckpt' is an address"]),
    (f"crossval {MFCC} --folds 77", ["'emobox6' has no fold 77", "1, 2, 3, 4, 5, 6"]),
    (f"crossval {MFCC} --protocol emobox", ["'emobox'", "emobox6"]),
    (f"crossval {MFCC} --seeds one", ["--seeds", "'one'"]),
    ("crossval", ["--config", "python -m emolight crossval --help"]),
    (f"leakgap {MFCC} --workers 0", ["--workers is 0", "at least 1"]),
    (f"transfer {MFCC} --fold 1", ["Unknown option '--fold'", "Did you mean '--folds'?", "transfer --help"]),
    ("sweep --config sweep.yaml --trails 3", ["Unknown option '--trails'", "Did you mean '--trials'?"]),
    ("compare", ["'lightning_logs'", "train first"]),
    ("compare nowhere", ["There is no folder 'nowhere'"]),
    ("ensemble folder", ["needs two results, received one", "Name more folders."]),
    ("ensemble folder lost", ["folder is neither a run folder nor"]),
    ("report lost", ["lost"]),
    ("report", ["report", "--help"]),
    ("examples folder", ["'folder'", "lightning_logs/NAME/version_N"]),
    ("examples lost --subset train", ["'train'", "val"]),
    ("robustness none.ckpt", ["There is no checkpoint none.ckpt."]),
    ("robustness model.onnx", ["'model.onnx'", "RUN/checkpoints/best.ckpt"]),
    ("predict page.ckpt none.wav", ["There is no file 'none.wav'."]),
    ("predict page.ckpt notes.txt", ["page.ckpt is no checkpoint: it begins with b'<!DOCTYPE html>'"]),
    ("predict MODEL folder", ["No sound file is in the folder 'folder'."]),
    ("predict MODEL CLIP --device tpu9", ["'tpu9'", "Try cpu."]),
    ("predict MODEL CLIP --hop 1", ["--hop is given without --window."]),
    ("predict MODEL CLIP --window 0", ["Windows of 0 s"]),
    ("predict MODEL CLIP --abstain-below 2", ["abstain_below is 2", "from 0 to 1"]),
    ("predict MODEL CLIP --output notes.txt/out.csv", ["notes.txt", "choose another place"]),
    ("predict MODEL CLIP --outpt out.csv", ["--outpt", "Did you mean '--output'?"]),
    ("export MODEL --output notes.txt/model.onnx", ["notes.txt"]),
    ("export MODEL --int8", ["--clips"]),
    ("demo none.ckpt", ["There is no checkpoint none.ckpt."]),
    ("demo MODEL --port 99999999", ["99999999", "--port"]),
    ("audit nowhere", ["'nowhere'"]),
    ("audit folder --chanels song", ["--chanels", "Did you mean '--channels'?"]),
    ("download", ["root", "python -m emolight download --help"]),
    ("download notes.txt", ["'notes.txt' is a file."]),
]


@pytest.fixture
def folder(here: Path) -> Path:
    for name, content in FILES.items():
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(content)
    (here / "folder").mkdir()
    return here


def words_of(text: str, corpus: Path, model: Path) -> list[str]:
    clip = next(corpus.rglob("*.wav"))
    places = {"DATA": options(corpus), "MODEL": [str(model)], "CLIP": [str(clip)]}
    return [word for part in text.split() for word in places.get(part, [part])]


@pytest.mark.parametrize(("text", "told"), MISTAKES, ids=[text[-40:] for text, _ in MISTAKES])
def test_a_mistake_is_told_in_three_lines(
    text: str, told: list[str], folder: Path, corpus: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words_of(text, corpus, checkpoint))
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert [part for part in told if part not in said] == [], said
    assert 2 <= len(said.splitlines()) <= 3, said
    assert not list(folder.rglob("version_*"))  # nothing half begun stays behind


@pytest.mark.parametrize("number", [1, 7, 64])
def test_and_so_it_is_in_a_process_of_its_own(number: int, folder: Path, corpus: Path) -> None:
    text, told = MISTAKES[number]
    command = [sys.executable, "-m", "emolight", *words_of(text, corpus, folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert all(part in done.stderr for part in told), done.stderr
    assert 2 <= len(done.stderr.splitlines()) <= 3
    assert "Traceback" not in done.stderr + done.stdout
