"""What people mistype: two or three lines with the cause, the value and the fix, exit code 2, no traceback."""

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
STOP = "--trainer.callbacks EarlyStopping"
ROWS = "path,emotion,speaker\n{0},happy,a\n{1},sad,b\n"

FILES = {
    "typo.yaml": "model:\n  learning_rat: 0.1\n",
    "lr.yaml": "model: {lr: 0.1}\n",
    "top.yaml": "epochs: 3\n",
    "type.yaml": "data: {batch_size: many}\n",
    "tabs.yaml": "data:\n\tbatch_size: 8\n",
    "empty.yaml": "model:\n",
    "wide.yaml": "data: {batch_size: 8}\n",
    "list.yaml": "- data\n",
    "net.yaml": "model: {network: {class_path: ResNet19}}\n",
    "mode.yaml": "model: {features: {mode: mel}}\n",
    "args.yaml": "model: {features: {class_path: MFCC, init_args: {n_mfc: 20}}}\n",
    "noise.yaml": "model: {augment: [{class_path: Nois}]}\n",
    "noise2.yaml": "model: {augment: [{class_path: Noise, init_args: {lowest_snr: 3}}]}\n",
    "mine.yaml": "trainer: {callbacks: [{class_path: mine.Mine}]}\n",
    "stop.yaml": "trainer: {callbacks: [{class_path: EarlyStoping, init_args: {monitor: val/uar}}]}\n",
    "loss.yaml": "trainer: {callbacks: [{class_path: EarlyStopping, init_args: {monitor: val_loss}}]}\n",
    "sweep.yaml": "config: mfcc.yaml\nspace: {model.mixup: [0, 1]}\ntrials: 3\n",
    "recipe.yaml": "name: mine\nmodel: {mixup: 0}\n",
    "configs/mfcc.yaml": "name: mfcc\n",
    "lost/config.yaml": "data:\n",
    "found/best.yaml": "name: mine\n",
    "own_net.py": "class Net:\n    pass\n",
    "notes.txt": "no sound\n",
    "page.ckpt": "<!DOCTYPE html>",
    "own/quote.csv": 'path,emotion,speaker,text\na.wav,happy,a,"Hello\nb.wav,sad,b,Yes\nc.wav,sad,c,Bye"\n',
    "lost/page.ckpt": "<!DOCTYPE html>",
    "own/semi.csv": "path;emotion;speaker\nx.wav;happy;a\n",
    "own/lost.csv": ROWS.format("x.wav", "y.wav"),
    "own/columns.csv": "sound,emotion,speaker\nx.wav,happy,a\n",
    "own/label.csv": "path,mood\nx.wav,happy\n",
    "own/empty.csv": "path,emotion,speaker\n",
    "own/hole.csv": "path,emotion,speaker\nx.wav,,a\ny.wav,sad,b\n",
    "own/short.csv": "path,emotion,speaker\nx.wav,happy\n",
    "own/twice.csv": ROWS.format("x.wav", "x.wav"),
    "own/out.csv": ROWS.format("../../x.wav", "y.wav"),
    "own/case.csv": ROWS.format("a.wav", "b.wav") + "c.wav,Happy,c\n",
    "own/voice.csv": ROWS.format("a.wav", "b.wav") + "c.wav,happy,A\n",
    "own/nan.csv": ROWS.format("a.wav", "b.wav") + "c.wav,NaN,c\n",
    **dict.fromkeys(("own/a.wav", "own/b.wav", "own/c.wav"), ""),
    "own/table.xlsx": "PK",
}
"""What lies in the folder; ``folder`` is an empty one."""

# Words, and what of them the message must tell: the cause with the value, and the fix. DATA stands for small
# recordings that are right.
COMMANDS: list[tuple[str, list[str]]] = [
    ("fti", ["Unknown command 'fti'.", "Did you mean 'fit'?"]),
    ("train", ["Unknown command 'train'.", "Did you mean 'fit'?"]),
    ("crossval leak", ["Unknown command 'crossval leak'.", "Did you mean 'crossval leakgap'?"]),
    ("predict voice.wav some_run", ["'voice.wav' is a recording; the model comes first."]),
    ("evaluate --ckpt_path x", ["Did you mean 'test'?"]),
    ("tune", ["Did you mean 'sweep'?"]),
    ("infer x.wav", ["Did you mean 'predict'?"]),
    ("crosval", ["Did you mean 'crossval'?"]),
    (f"{MFCC} fit", ["The command comes first, received '--config'.", "python -m emolight fit --config"]),
]
OPTIONS: list[tuple[str, list[str]]] = [
    ("fit --config", ["--config: expected one argument"]),
    ("fit mfcc.yaml", ["'mfcc.yaml' stands alone.", "--config mfcc.yaml"]),
    ("fit --config typ.yaml", ["There is no configuration file", "typ.yaml", "Did you mean 'typo'?"]),
    ("fit --config mfc", ["There is no configuration file", "Did you mean 'mfcc'?"]),
    ("fit --config folder", ["folder"]),
    ("fit --config sweep.yaml", ["sweep.yaml describes a sweep.", "emolight sweep --config sweep.yaml"]),
    (f"fit {MFCC} --model.lerning_rate 1", ["'--model.lerning_rate'", "Did you mean '--model.learning_rate'?"]),
    (f"fit {MFCC} --epochs 3", ["Unknown option '--epochs'.", "Did you mean '--trainer.max_epochs'?"]),
    (f"fit {MFCC} --lr=0.1", ["Unknown option '--lr'.", "Did you mean '--model.learning_rate'?"]),
    (f"fit {MFCC} --model.lr 0.1", ["Did you mean '--model.learning_rate'?"]),
    (f"fit {MFCC} --batch_size 8", ["Did you mean '--data.batch_size'?"]),
    (f"fit {MFCC} --gpus 2", ["Did you mean '--trainer.devices'?"]),
    (f"fit {MFCC} --root x", ["Did you mean '--data.root'?"]),
    (f"fit {MFCC} --data.rot x", ["Did you mean '--data.root'?"]),
    (f"fit {MFCC} --max_epoch 3", ["Did you mean '--trainer.max_epochs'?"]),
    (f"fit {MFCC} --data.channels speech", ["Did you mean '--data.filter'?"]),
    (f"fit {MFCC} --seed 3", ["Did you mean '--seed_everything'?"]),
    (f"fit {MFCC} --config typo.yaml", ["'model.learning_rat'", "Did you mean 'model.learning_rate'?"]),
    (f"fit {MFCC} --config lr.yaml", ["'model.lr'", "Did you mean 'model.learning_rate'?"]),
    (f"fit {MFCC} --config top.yaml", ["'epochs'", "Did you mean 'trainer.max_epochs'?"]),
    (f"fit {MFCC} --config tabs.yaml", ["tabs.yaml is not valid YAML", "Mend it"]),
    (f"fit {MFCC} --config wide.yaml", ["wide.yaml is not valid YAML", "Save it as UTF-8."]),
    (f"fit {MFCC} --config empty.yaml", ["empty.yaml: model is empty", "Take the line out"]),
    (f"fit {MFCC} --config list.yaml", ["list.yaml holds no options", "NAME: VALUE"]),
    (f"fit {MFCC} --config type.yaml", ["data.batch_size is 'many'.", "a whole number above 0"]),
    (f"fit {MFCC} --data.batch_size many", ["data.batch_size is 'many'.", "Expected: a whole number above 0."]),
    (f"fit {MFCC} --data.batch_size 0", ["data.batch_size is '0'", "above 0"]),
    (f"fit {MFCC} --data.split_seed -1", ["data.split_seed is '-1'", "0 or more"]),
    (f"fit {MFCC} --data.fold one", ["data.fold is 'one'", "a whole number or null"]),
    (f"fit {MFCC} --data.duration long", ["data.duration is 'long'", "Expected: a number."]),
    (f"fit {MFCC} --data.emotions calm", ["data.emotions is 'calm'", "a list, written [one, another]"]),
    (f"fit {MFCC} --data.filter speech", ["data.filter is 'speech'", "written {name: value}"]),
    (f"fit {MFCC} --data.on_bad_clip ignore", ["data.on_bad_clip is 'ignore'", "one of error, skip"]),
    (f"fit {MFCC} --data.speakers unknwn", ["Did you mean 'unknown'?"]),
    (f"fit {MFCC} --seed_everything -1", ["seed_everything is -1", "from 0 to"]),
    (f"fit {MFCC} --seed_everything x", ["seed_everything is 'x'", "a whole number"]),
    (f"fit {MFCC} bf16", ["'bf16' stands alone.", "--config bf16"]),
    (f"fit {MFCC} trainer.max_epochs=3", ["'trainer.max_epochs' stands without dashes.", ": --trainer.max_epochs"]),
    (f"fit {MFCC} --model resnet18", ["--model is a group of options", "'resnet18'", "--model.network"]),
    (f"fit {MFCC} --model.pretrained true", ["Did you mean '--model.network.pretrained'?"]),
    (f"fit {MFCC} --model.optimizer SGD", ["Unknown option '--model.optimizer'.\nAll options: "]),
    (f"fit {MFCC} --dropout 0.3", ["Unknown option '--dropout'.\nAll options: "]),
    (f"fit {MFCC} --name= DATA", ["The name ''", "--name"]),
    (f"fit {MFCC} --name ../proc/x DATA", ["proc/x", "leads out of lightning_logs", "--name"]),
]
DATA: list[tuple[str, list[str]]] = [
    (f"fit {MFCC}", ["'data/ravdess'", "emolight download", "--data.root DIR"]),
    (f"fit {MFCC} --data.root nowhere", ["'nowhere'", "--data.root DIR"]),
    (f"fit {MFCC} --data.root folder", ["No RAVDESS clip under 'folder'", "--data.root DIR"]),
    (f"fit {MFCC} --data.root notes.txt", ["'notes.txt'", "--data.root DIR"]),
    (f"fit {MFCC} --data.corpus RAVDES", ["Unknown corpus 'RAVDES'.", "Did you mean 'RAVDESS'?"]),
    (f"fit {MFCC} --data.corpus mine.Corpus", ["Unknown corpus 'mine.Corpus'", "No module named 'mine'"]),
    (f"fit {MFCC} --data.corpus folder", ["data.corpus is the folder 'folder'", "--data.root folder"]),
    (f"fit {MFCC} --data.corpus nowhere.csv", ["nowhere.csv"]),
    (f"fit {MFCC} --data.corpus own/table.xlsx", ["own/table.xlsx", "Save the table as CSV"]),
    (f"fit {MFCC} --data.corpus own/lost.csv", ["own/lost.csv", "x.wav"]),
    (f"fit {MFCC} --data.corpus own/semi.csv", ["own/semi.csv", "x.wav"]),
    (f"fit {MFCC} --data.corpus own/columns.csv", ["own/columns.csv", "path"]),
    (f"fit {MFCC} --data.corpus own/label.csv", ["own/label.csv", "emotion"]),
    (f"fit {MFCC} --data.corpus own/empty.csv", ["own/empty.csv"]),
    (f"fit {MFCC} --data.corpus own/hole.csv", ["own/hole.csv, line 2", "emotion"]),
    (f"fit {MFCC} --data.corpus own/case.csv", ["'Happy' and 'happy'", '--data.label_map \'{"happy": "Happy"}\'']),
    (f"fit {MFCC} --data.corpus own/voice.csv", ["The speakers of voice 'a' and 'A' differ in writing only."]),
    (f"fit {MFCC} --data.corpus own/nan.csv", ["own/nan.csv, line 4: no emotion"]),
    (f"fit {MFCC} --data.corpus own/quote.csv", ["own/quote.csv, line 2: a quote", "takes in 2 rows"]),
    (f"fit {MFCC} --data.emotions [no,yes]", ["data.emotions has [False, True]", 'Quote such words: ["no", "yes"]']),
    (f"fit {MFCC} DATA --data.emotions [0,1]", ["emotions 0, 1.", "Its labels: "]),
    (f"fit {MFCC} --data.corpus own/short.csv", ["own/short.csv, line 2"]),
    (f"fit {MFCC} --data.corpus own/twice.csv", ["own/twice.csv", "x.wav"]),
    (f"fit {MFCC} --data.corpus own/out.csv", ["own/out.csv", "x.wav"]),
    (f"fit {MFCC} --data.corpus [RAVDESS,TESS] --data.root folder", ["data.root is 'folder' for 2 corpora", "a list"]),
    (f"fit {MFCC} DATA --data.task articl", ["no task 'articl'", "Did you mean 'article'?"]),
    (f"fit {MFCC} DATA --data.protocol emobox", ["'emobox'", "Did you mean 'emobox6'?"]),
    (f"fit {MFCC} DATA --data.fold 9", ["no fold 9", "from 1 to 6"]),
    (f"fit {MFCC} DATA --data.protocol random --data.fold 1", ["no folds", "data.split_seed"]),
    (f"fit {MFCC} DATA --data.protocol subset", ["a column `subset`"]),
    (f"fit {MFCC} DATA --data.emotions [calm,hapy]", ["'hapy'", "Did you mean 'happy'?"]),
    (f"fit {MFCC} DATA --data.emotions [calm]", ["[calm]", "Change data.emotions."]),
    (f"fit {MFCC} DATA --data.emotions [calm,calm]", ["names one twice"]),
    (f'fit {MFCC} DATA --data.filter {{"chanel":["speech"]}}', ["'chanel'", "Did you mean 'channel'?"]),
    (f'fit {MFCC} DATA --data.filter {{"channel":["sing"]}}', ["channel 'sing'", "speech"]),
    (f'fit {MFCC} DATA --data.label_map {{"hapiness":"happy"}}', ["'hapiness'"]),
    (f"fit {MFCC} DATA --data.duration 0", ["data.duration is 0", "0.05 to 60"]),
    (f"fit {MFCC} DATA --data.sample_rate 0", ["data.sample_rate is 0", "1000 to"]),
    (f"fit {MFCC} DATA --data.trim_db -3", ["data.trim_db is -3", "1 to 1000"]),
    (f"fit {MFCC} DATA --data.split_csv none.csv", ["none.csv", "data.split_csv"]),
    (f"fit {MFCC} DATA --data.split_csv notes.txt", ["notes.txt"]),
    (f"fit {MFCC} DATA --data.splits_dir notes.txt", ["notes.txt"]),
    (f"fit {MFCC} DATA --data.cache_dir notes.txt", ["notes.txt"]),
]
MODEL: list[tuple[str, list[str]]] = [
    (f"fit {MFCC} --model.features Stacked --model.features.parts [MFFC]", ["features.parts is 'MFFC'", "'MFCC'?"]),
    (f"fit {MFCC} --model.features MFFC", ["model.features is 'MFFC'", "Did you mean 'MFCC'?", "my_module.MyClass"]),
    (f"fit {MFCC} --model.features.mode mell", ["model.features.mode is 'mell'", "Did you mean 'mel'?"]),
    (f"fit {MFCC} --model.network ResNet", ["model.network is 'ResNet'", "Did you mean 'ResNet"]),
    (f"fit {MFCC} --model.network own_net.Net", ["'own_net.Net', which is no Network.", "see docs/extend.md"]),
    (f"fit {MFCC} --config net.yaml", ["model.network is 'ResNet19'", "Did you mean 'ResNet18'?"]),
    (f"fit {MFCC} --config args.yaml", ["MFCC has no argument 'n_mfc'", "Did you mean 'n_mfcc'?"]),
    (f"fit {MFCC} --config mode.yaml", ["no argument 'mode'", "In a file it is class_path: Waveform, "]),
    (f"fit {MFCC} --model.features.n_mel 3", ["MFCC has no argument 'n_mel'", "Did you mean 'n_mels'?"]),
    (f"fit {MFCC} --model.network.pretraned true", ["no argument 'pretraned'", "Did you mean 'pretrained'?"]),
    (f"fit {MFCC} --model.features.n_mels many", ["model.features.n_mels is 'many'.\nExpected: a whole number."]),
    (f"fit {MFCC} --config noise.yaml", ["model.augment is 'Nois'", "Did you mean 'Noise'?"]),
    (f"fit {MFCC} --config noise2.yaml", ["Noise has no argument 'lowest_snr'", "Valid: "]),
    (f"fit {MFCC} --model.augment Noise", ["model.augment", "a list"]),
    (f"fit {MFCC} --model.network own_net.Nett", ["'own_net' has no 'Nett'.\nDid you mean 'Net'?"]),
    (f"fit {MFCC} --model.network my.Net", ["model.network", "my"]),
    (f"fit {MFCC} DATA --model.network WaveCNN", ["WaveCNN takes samples", "--model.network ResNet18"]),
    (
        f"fit {MFCC} DATA --model.features.n_mels 100000",
        ["of 100000 mel bins are empty", "Lower model.features.n_mels"],
    ),
    (f"fit {MFCC} DATA --model.features.n_mels -3", ["n_mels is -3", "at least 1"]),
    (f"fit {MFCC} DATA --model.features.f_min 9000 --model.features.f_max 100", ["f_min is 9000"]),
    (f"fit {MFCC} DATA --model.features.n_mfcc 400", ["n_mfcc is 400", "64"]),
    (f"fit {MFCC} DATA --model.features.n_fft 1", ["n_fft is 1"]),
    (f"fit {MFCC} DATA --model.features.hop_length 0", ["hop_length is 0", "at least 1"]),
    (f"fit {MFCC} DATA --model.features.hop_length 100000", ["hop_length", "100000"]),
    (f"fit {MFCC} --model.learning_rate fast", ["model.learning_rate is 'fast'", "a number"]),
    (f"fit {MFCC} DATA --model.learning_rate -0.1", ["model.learning_rate is -0.1", "above 0"]),
    (f"fit {MFCC} DATA --model.weight_decay -0.1", ["model.weight_decay is -0.1", "at least 0"]),
    (f"fit {MFCC} DATA --model.weight_decay .nan", ["model.weight_decay is nan", "at least 0"]),
    (f"fit {MFCC} DATA --model.mixup -1", ["model.mixup is -1"]),
    (f"fit {MFCC} DATA --model.label_smoothing 1", ["model.label_smoothing is 1"]),
    (f"fit {MFCC} DATA --model.warmup 1", ["model.warmup is 1"]),
]
TRAINER: list[tuple[str, list[str]]] = [
    (f"fit {MFCC} --trainer.max_epochs -3", ["trainer.max_epochs is -3", "at least 1"]),
    (f"fit {MFCC} --trainer.max_epochs 1e3", ["trainer.max_epochs is '1e3'.", "a whole number or null"]),
    (f"fit {MFCC} DATA --trainer.max_time 5", ["DD:HH:MM:SS", "Change that option of the trainer."]),
    (f"fit {MFCC} {STOP} --trainer.callbacks.monitor val/uar", ["the maximum is best", "mode max"]),
    (f"fit {MFCC} {STOP} --trainer.callbacks.monitor val/loss --trainer.callbacks.mode max", ["minimum is best"]),
    (
        f"fit {MFCC} {STOP} --trainer.callbacks.monitor val/UAR",
        ["'val/UAR', which is not logged.\nDid you mean 'val/uar'"],
    ),
    (f"fit {MFCC} {STOP} --trainer.callbacks.monitor test/uar", ["'test/uar', which is not logged.", "val/uar"]),
    (f"fit {MFCC} {STOP}", ["trainer.callbacks: EarlyStopping needs monitor.", "--trainer.callbacks.monitor VALUE"]),
    (f"fit {MFCC} {STOP} --trainer.callbacks.monitor val/loss --trainer.callbacks.mode low DATA", ["got low"]),
    (f"fit {MFCC} {STOP} --trainer.callbacks.patience x", ["trainer.callbacks.patience is 'x'.", "a whole number"]),
    (f"fit {MFCC} --trainer.callbacks LearningRateFinder", ["LearningRateFinder", "Give model.learning_rate"]),
    (f"fit {MFCC} --trainer.callbacks BatchSizeFinder", ["BatchSizeFinder", "Give data.batch_size"]),
    (
        f"fit {MFCC} DATA --trainer.callbacks BackboneFinetuning",
        ["trainer.callbacks: BackboneFinetuning cannot be used"],
    ),
    (f"fit {MFCC} --trainer.logger wandb", ["trainer.logger is 'wandb'.", "Did you mean 'WandbLogger'?"]),
    (f"fit {MFCC} --trainer.logger CSVLogger", ["CSVLogger needs save_dir.", "--trainer.logger.save_dir VALUE"]),
    (f"fit {MFCC} --trainer.max_epochs many", ["trainer.max_epochs is 'many'", "a whole number or null"]),
    (f"fit {MFCC} DATA --trainer.accumulate_grad_batches 0", ["accumulate_grad_batches is 0; it must be above 0."]),
    (f"fit {MFCC} DATA --trainer.check_val_every_n_epoch -1", ["check_val_every_n_epoch is -1; it must be above 0."]),
    (f"fit {MFCC} DATA --trainer.val_check_interval 0", ["trainer.val_check_interval is 0"]),
    (f"fit {MFCC} DATA --trainer.max_epochs 0", ["trainer.max_epochs is 0", "at least 1"]),
    (f"fit {MFCC} DATA --trainer.limit_train_batches 0", ["trainer.limit_train_batches is 0", "Leave it out"]),
    (f"fit {MFCC} DATA --trainer.val_check_interval 1000", ["val_check_interval"]),
    (f"fit {MFCC} DATA --trainer.accelerator gpus", ["'gpus'", "--trainer.accelerator auto"]),
    (f"fit {MFCC} DATA --trainer.accelerator tpu", ["--trainer.accelerator auto"]),
    (f"fit {MFCC} DATA --trainer.strategy dpp", ["dpp"]),
    (f"fit {MFCC} DATA --trainer.strategy ddp_spawn --trainer.devices 2", ["is ddp_spawn", "--trainer.strategy ddp"]),
    (
        "fit --config classical DATA --trainer.callbacks StochasticWeightAveraging --trainer.callbacks.swa_lrs 0.1",
        ["a network without batch norm after the last validation", "EMAWeightAveraging"],
    ),
    (f"fit {MFCC} DATA --trainer.devices 999", ["trainer.devices is 999", "Leave it out"]),
    (f"fit {MFCC} --trainer.precision 12", ["trainer.precision is '12'", "bf16-mixed"]),
    (f"fit {MFCC} --trainer.precision fp16", ["trainer.precision is 'fp16'", "Did you mean '16-mixed'?"]),
    (f"fit {MFCC} --trainer.callbacks mine.Mine", ["trainer.callbacks needs the module 'mine'"]),
    (f"fit {MFCC} --config mine.yaml", ["'mine.Mine'", "EMOLIGHT_IMPORTS=mine"]),
    (f"fit {MFCC} --config stop.yaml", ["trainer.callbacks is 'EarlyStoping'", "Did you mean 'EarlyStopping'?"]),
    (f"fit {MFCC} --config loss.yaml", ["monitors 'val_loss', which is not logged", "val/loss"]),
    (f"fit {MFCC} --trainer.logger CSVLoger", ["trainer.logger is 'CSVLoger'", "Did you mean 'CSVLogger'?"]),
    (f"fit {MFCC} DATA --trainer.default_root_dir notes.txt", ["notes.txt"]),
]
RUNS: list[tuple[str, list[str]]] = [
    ("fit --resume folder", ["No config.yaml in 'folder'", "lightning_logs/NAME/version_N"]),
    ("fit --resume nowhere", ["There is no run 'nowhere'.", "lightning_logs/NAME/version_N"]),
    ("fit --ckpt_path page.ckpt", ["page.ckpt", "fit --resume RUN"]),
    ("test", ["`test` needs a checkpoint", "--ckpt_path lightning_logs/NAME/version_N"]),
    ("test folder", ["'folder' stands alone.", "--ckpt_path folder"]),
    ("test --checkpoint x", ["Did you mean '--ckpt_path'?"]),
    ("test --ckpt_path none.ckpt", ["There is no checkpoint none.ckpt."]),
    ("test --ckpt_path folder", ["No config.yaml in 'folder'", "lightning_logs/NAME/version_N"]),
    ("test --ckpt_path page.ckpt", ["No config.yaml in the folders above page.ckpt"]),
    ("validate --ckpt_path lost/page.ckpt", ["lost/page.ckpt is no checkpoint"]),
    ("test --ckpt_path lost", ["There is no checkpoint lost/checkpoints/best.ckpt"]),
    ("test --ckpt_path https://example.org/best.ckpt", ["'https://example.org/best.ckpt' is an address"]),
]
OTHERS: list[tuple[str, list[str]]] = [
    (f"crossval {MFCC} DATA --folds 77", ["'emobox6' has no fold 77", "1, 2, 3, 4, 5, 6"]),
    (f"crossval {MFCC} DATA --protocol emobox", ["'emobox'", "emobox6"]),
    (f"crossval {MFCC} --data.root nowhere --nested no.yaml", ["There is no sweep no.yaml."]),
    (f"crossval {MFCC} --seeds one", ["--seeds", "'one'"]),
    ("crossval", ["--config", "python -m emolight crossval --help"]),
    (f"crossval {MFCC} --epochs 3", ["Did you mean '--trainer.max_epochs'?"]),
    (f"leakgap {MFCC} --workers 0", ["--workers is 0", "at least 1"]),
    (f"transfer {MFCC} --fold 1", ["Unknown option '--fold'", "transfer --help"]),
    ("sweep --config sweep.yaml --trails 3", ["Unknown option '--trails'", "Did you mean '--trials'?"]),
    ("sweep --config recipe.yaml", ["recipe.yaml"]),
    ("sweep retrain --config ./found --seeds 1 2", ["--seeds is of a cross-validation.", "--protocol emobox6"]),
    ("sweep --config none.yaml", ["none.yaml"]),
    ("compare", ["'lightning_logs'", "train first"]),
    ("compare nowhere", ["nowhere"]),
    ("ensemble folder", ["needs two results, received one"]),
    ("ensemble folder lost", ["folder"]),
    ("ensemble lost lost", ["'lost' is named twice."]),
    ("report lost", ["lost"]),
    ("report", ["report", "--help"]),
    ("robustness none.ckpt", ["none.ckpt"]),
    ("robustness model.onnx", ["model.onnx"]),
    ("predict page.ckpt none.wav", ["There is no file 'none.wav'."]),
    ("predict page.ckpt notes.txt", ["page.ckpt is no checkpoint: it begins with b'<!DOCTYPE html>'"]),
    ("predict MODEL folder", ["'folder'"]),
    ("predict MODEL CLIP --device tpu9", ["'tpu9'", "cpu"]),
    ("predict MODEL CLIP --device gpu", ["'gpu' cannot be used", "Valid: cpu, cuda"]),
    ("predict MODEL CLIP --timeline time.line", ["'time.line'", ".png"]),
    ("predict MODEL CLIP --window 0", ["0 s"]),
    ("predict MODEL CLIP --abstain-below 2", ["2", "from 0 to 1"]),
    ("predict MODEL CLIP --output notes.txt/out.csv", ["notes.txt"]),
    ("predict MODEL CLIP --outpt out.csv", ["--outpt", "Did you mean '--output'?"]),
    ("export MODEL --output notes.txt/model.onnx", ["notes.txt"]),
    ("demo none.ckpt", ["none.ckpt"]),
    ("demo MODEL --port 99999999", ["99999999"]),
    ("audit nowhere", ["'nowhere'"]),
    ("audit folder --corpus EMODB", ["No EMO-DB clip under 'folder'", "another --corpus"]),
    ("audit folder --filtr channel=song", ["--filtr", "Did you mean '--filter'?"]),
    ("download", ["root", "python -m emolight download --help"]),
    ("download notes.txt", ["notes.txt"]),
    ("cache --prune=-1", ["--prune is -1", "a number of days"]),
]
MISTAKES = [*COMMANDS, *OPTIONS, *DATA, *MODEL, *TRAINER, *RUNS, *OTHERS]


@pytest.fixture
def folder(here: Path) -> Path:
    for name, content in FILES.items():
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(content, encoding="utf-16" if name == "wide.yaml" else "utf-8")
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
    message = "emolight: " + said.partition("emolight: ")[2]
    assert ended.value.code == 2
    assert [part for part in told if part not in message] == [], said
    assert 2 <= len(message.splitlines()) <= 3, said
    assert not list(folder.rglob("version_*"))  # nothing half begun stays behind


@pytest.mark.parametrize("text", [DATA[1][0], MODEL[0][0]])
def test_and_so_it_is_in_a_process_of_its_own(text: str, folder: Path, corpus: Path) -> None:
    told = dict(MISTAKES)[text]
    command = [sys.executable, "-m", "emolight", *words_of(text, corpus, folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert all(part in done.stderr for part in told), done.stderr
    assert 2 <= len(done.stderr.splitlines()) <= 3
    assert "Traceback" not in done.stderr + done.stdout
