"""From a configuration to batches, for the corpora that come along and for any CSV."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from emolight.data.clips import share
from emolight.data.corpora import Synthetic
from emolight.data.datamodule import EVERY_CLIP, EmotionDataModule
from emolight.data.resident import ResidentClips, ResidentLoader, sizes_of
from emolight.data.splits import ALL_TEST, BEST_EPOCH, LAST_EPOCH, Split
from emolight.errors import EmolightError


@pytest.fixture
def module(corpus: Path, tmp_path: Path) -> Any:
    def build(**settings: Any) -> EmotionDataModule:
        defaults = {"corpus": "Synthetic", "root": str(corpus), "splits_dir": str(tmp_path / "splits")}
        return EmotionDataModule(**{**defaults, "cache_dir": str(corpus.parent / "cache"), **settings})

    return build


@pytest.fixture
def table(corpus: Path, tmp_path: Path) -> Path:
    """A CSV of the synthetic corpus, as a user might have it."""
    clips = Synthetic().find(corpus).table.rename(columns={"path": "file"})
    clips["file"] = str(corpus) + "/" + clips["file"]
    clips[["file", "emotion", "speaker", "sex", "intensity"]].to_csv(tmp_path / "mine.csv", sep=";", index=False)
    return tmp_path / "mine.csv"


def test_batches_have_the_promised_shapes_and_labels(module: Any) -> None:
    data = module(batch_size=7, duration=0.5)
    assert data.classes == ["calm", "happy", "sad", "angry", "fearful"]  # known before setup
    data.setup("fit")
    seen = []
    for batch in data.val_dataloader():
        assert batch["waveform"].dtype == torch.float32
        assert batch["waveform"].shape == (len(batch["label"]), 8000)
        emotions = data.clips.iloc[batch["index"].numpy()]["emotion"]
        assert [data.classes[label] for label in batch["label"]] == emotions.tolist()
        seen += batch["index"].tolist()
    assert seen == data.subset("val").tolist()
    assert data.contract == {"classes": data.classes, "sample_rate": 16000, "duration": 0.5, "trim_db": 30.0}
    assert (data.corpus_name, data.task_name) == ("synthetic voices", "article")
    assert data.groups == ("sex", "intensity", "statement")


def test_training_order_and_crops_follow_seed_and_epoch_alone(module: Any) -> None:
    def epoch(number: int, workers: int, seed: int = 0) -> torch.Tensor:
        data = module(duration=0.3, num_workers=workers, seed=seed)
        data.setup("fit")
        place = SimpleNamespace(root_device=torch.device("cpu"))
        data.trainer = SimpleNamespace(current_epoch=number, global_rank=0, world_size=1, strategy=place)
        return torch.cat([batch["waveform"] for batch in data.train_dataloader()])

    first = epoch(0, workers=0)
    assert torch.equal(first, epoch(0, workers=2))
    assert not torch.equal(first, epoch(1, workers=0))
    assert not torch.equal(first, epoch(0, workers=0, seed=1))


@pytest.mark.parametrize("own", [{"limit_train_batches": 1}, {"overfit_batches": 1}], ids=list)
@pytest.mark.parametrize("resident", [False, True])
def test_a_trainer_of_ones_own_gets_another_order_and_other_crops_each_epoch(
    own: dict[str, Any], resident: bool, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To overfit a few batches they must be the same clips in each epoch, also where a GPU holds them."""
    seen: list[torch.Tensor] = []
    rows: list[torch.Tensor] = []
    monkeypatch.setattr("emolight.data.datamodule.fits", lambda *_: resident)

    class Look(pl.LightningModule):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            seen.append(batch["waveform"])
            rows.append(batch["index"])

        def configure_optimizers(self) -> None:
            pass

    pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        **own,
    ).fit(Look(), module(duration=0.3))
    assert len(seen) == 2
    assert not torch.equal(*seen)
    assert torch.equal(*rows) == ("overfit_batches" in own)


def test_more_processes_than_clips_are_refused_by_each(module: Any) -> None:
    data = module()
    data.setup("fit")
    data.trainer = SimpleNamespace(current_epoch=0, global_rank=99, world_size=100)
    with pytest.raises(EmolightError, match=r"100 processes, but 80 val clips\.\nTake at most 80 processes"):
        data.val_dataloader()


@pytest.mark.parametrize("duration", [0.3, 0.55, 2.0])
def test_batches_that_are_cut_on_a_device_are_the_same(module: Any, duration: float) -> None:
    data = module(duration=duration, batch_size=7)
    data.setup("fit")
    every = data.clips["clip_id"].tolist()
    resident = ResidentClips(data.cache, every, torch.device("cpu"))
    assert sizes_of(data.cache, every).tolist() == [len(data.cache.waveform(clip_id)) for clip_id in every]
    for subset, seed in (("val", None), ("train", 3)):
        dataset = data.dataset(data.subset(subset), seed)
        dataset.epoch = 2
        for rank in range(2):
            order = share(len(dataset), rank, 2, seed, 2)
            usual = DataLoader(
                dataset, batch_size=7, sampler=order, drop_last=seed is not None, collate_fn=lambda batch: batch
            )
            ours = ResidentLoader(resident, dataset, order, 7, seed is not None)
            assert len(list(ours)) == len(ours) == len(usual) > 3
            for one, other in zip(ours, usual, strict=True):
                assert list(one) == list(other)
                assert all(torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)


def test_short_clips_get_zeros_behind_and_long_ones_their_middle(module: Any) -> None:
    data = module(duration=5.0)
    data.setup("fit")
    row = data.subset("val")[:1]
    clip = data.cache.waveform(data.clips["clip_id"].iloc[row[0]])
    padded = data.dataset(row).__getitems__([0])["waveform"][0].numpy()
    np.testing.assert_array_equal(padded[: len(clip)], clip)
    assert not padded[len(clip) :].any()
    data.duration = 0.25
    cropped = data.dataset(row).__getitems__([0])["waveform"][0].numpy()
    start = (len(clip) - 4000) // 2
    np.testing.assert_array_equal(cropped, clip[start : start + 4000])


def test_a_csv_of_ones_own_just_works(module: Any, table: Path) -> None:
    data = module(corpus=str(table), root=None)
    data.setup("fit")
    assert (data.corpus_name, data.task_name) == ("mine", "angry-calm-fearful-happy-sad")
    assert data.groups == ("sex", "intensity")
    assert data.split.label == "speakers5 fold 1 seed 0"
    assert data.split.selection == BEST_EPOCH
    assert len(next(iter(data.train_dataloader()))["label"]) == 32
    facts = data.training_facts()
    assert (facts["corpus"], facts["licence"]) == ("mine", "")
    assert not set(facts["speakers"]) & set(facts["val_speakers"])
    assert len(facts["hashes"]) == len(data.subset("train"))
    assert [path.name for path in table.with_name("splits").glob("*.csv")] == [
        "mine-angry-calm-fearful-happy-sad-speakers5-fold-1-seed-0.csv"
    ]
    other = module(corpus=[str(table), "Synthetic"], root=[str(table.parent), data.places[0][1].name])
    assert other.choice == data.choice


def test_without_speakers_the_clips_are_split_at_random(module: Any, table: Path) -> None:
    clips = pd.read_csv(table, sep=";").drop(columns="speaker")
    clips.to_csv(table, index=False)
    with pytest.raises(EmolightError, match="no column `speaker`"):
        module(corpus=str(table), root=None).setup("fit")
    split = module(corpus=str(table), root=None, speakers="unknown").make_split()
    assert (split.protocol, split.selection) == ("random", LAST_EPOCH)
    clips.assign(subset=["train", "dev"] * (len(clips) // 2)).to_csv(table, index=False)
    assert module(corpus=str(table), root=None, speakers="unknown").make_split().protocol == "subset"


def test_a_subset_column_that_was_changed_is_another_split(module: Any, table: Path) -> None:
    clips, trained = pd.read_csv(table, sep=";"), set[str]()
    for subsets in (["train", "val"], ["val", "train"]):
        clips.assign(subset=subsets * (len(clips) // 2)).to_csv(table, index=False)
        trained |= {*module(corpus=str(table), root=None).make_split().clips("train")}
    assert len(trained) == len(clips)


def test_clips_by_times_of_one_recording(module: Any, corpus: Path, tmp_path: Path) -> None:
    import soundfile

    paths = [corpus / path for path in Synthetic().find(corpus).table["path"][:6]]
    waves = [soundfile.read(path)[0] for path in paths]
    soundfile.write(tmp_path / "all.wav", np.concatenate(waves), 16000)
    ends = np.cumsum([len(wave) for wave in waves])
    starts = [0, *ends[:-1]]
    labels = ["sad,1", "happy,1", "sad,2", "happy,2", "sad,3", "happy,3"]
    rows = [f"all.wav,{a / 16000},{b / 16000},{label}" for a, b, label in zip(starts, ends, labels, strict=True)]
    (tmp_path / "parts.csv").write_text("\n".join(["file,start,end,emotion,speaker", *rows]))
    data = module(corpus=str(tmp_path / "parts.csv"), root=None, trim_db=None)
    data.setup("fit")
    assert data.split.label == "loso fold 1"
    for clip_id, wave in zip(data.clips["clip_id"], waves, strict=True):
        np.testing.assert_allclose(data.cache.waveform(clip_id), wave, atol=1e-4)


def test_bad_clips_are_refused_or_left_out_of_clips_and_split_alike(corpus: Path, tmp_path: Path, module: Any) -> None:
    root = tmp_path / "corpus"
    shutil.copytree(corpus, root)
    (root / "synthetic.json").unlink()
    (root / "README.txt").unlink()
    broken = sorted(root.rglob("*.wav"))[5]
    broken.write_bytes(broken.read_bytes()[:400])
    settings = {"corpus": "RAVDESS", "root": str(root), "cache_dir": str(tmp_path / "cache")}
    with pytest.raises(EmolightError, match=broken.name):
        module(**settings).setup("fit")
    data = module(**settings, on_bad_clip="skip")
    with pytest.warns(UserWarning, match=broken.name):
        data.setup("fit")
    assert list(data.clips["clip_id"]) == list(data.split.table["clip_id"])
    assert list(data.clips["subset"]) == list(data.split.table["subset"])
    assert (len(data.clips), data.split.label) == (479, "emobox6 fold 1")
    assert data.selection.left_out["clips that cannot be read"] == 1
    assert any("1 clips cannot be read" in note for note in data.selection.notes)
    data.split.write(tmp_path / "split.csv")  # as a run does
    again = module(**settings, split_csv=str(tmp_path / "split.csv"))
    again.setup("test")
    assert again.split.hash == data.split.hash
    assert "1 clips of the task are not in the split" in again.selection.notes


def test_copies_and_emotions_that_a_subset_lacks_are_told(module: Any, table: Path, tmp_path: Path) -> None:
    clips = pd.read_csv(table, sep=";")
    clips["subset"] = ["val" if speaker < 9 else "train" for speaker in clips["speaker"]]
    clips.to_csv(tmp_path / "right.csv", index=False)
    right = module(corpus=str(tmp_path / "right.csv"), root=None)
    right.setup("fit")
    assert right.selection.notes == []
    val = clips[clips["subset"] == "val"]
    for name in ("one", "two"):
        shutil.copy(val["file"].iloc[0], tmp_path / f"{name}.wav")
    copies = [
        val.iloc[0].to_dict() | {"file": f"{name}.wav", "speaker": 9 + n} for n, name in enumerate(("one", "two"))
    ]
    odd = pd.concat([clips[(clips["subset"] == "train") | (clips["emotion"] != "sad")], pd.DataFrame(copies)])
    odd.assign(subset=odd["subset"].where(odd["speaker"] != 9, "train")).to_csv(tmp_path / "odd.csv", index=False)
    data = module(corpus=str(tmp_path / "odd.csv"), root=None)
    data.setup("fit")
    assert data.selection.notes == [
        "no validation clip is labelled sad",
        "clips whose sound is there already: 2, the first is one; in two subsets: 1, which flatters the figures",
    ]


def test_a_part_from_start_to_end_is_the_whole_recording(module: Any, table: Path) -> None:
    """As audformat writes whole files."""
    clips = pd.read_csv(table, sep=";").query("speaker < 7")
    clips.to_csv(table, index=False)
    clips.assign(start="0 days", end="NaT").to_csv(table.with_name("parts.csv"), index=False)
    data = module(corpus=[str(table), str(table.with_name("parts.csv"))], root=None)
    data.setup("fit")
    assert len({data.cache.content(clip_id) for clip_id in data.clips["clip_id"]}) == len(clips)
    (note,) = data.selection.notes
    assert note.startswith(f"clips whose sound is there already: {len(clips)}, the first is parts/03-")


def test_a_split_of_ones_own_is_held_to_its_name(module: Any, tmp_path: Path) -> None:
    split = module().make_split()
    moved = split.table.assign(subset=split.table["subset"].where(split.table["speaker"] != "05", "test"))
    Split(moved, split.label).write(tmp_path / "mine.csv")
    with pytest.raises(EmolightError, match="calls itself 'emobox6 fold 1', but has speaker 05 in 'test'"):
        module(split_csv=str(tmp_path / "mine.csv")).setup("fit")
    kept = next((tmp_path / "splits").glob("*.csv"))
    kept.write_text((tmp_path / "mine.csv").read_text())  # the same in the folder of splits
    with pytest.raises(EmolightError, match="calls itself 'emobox6 fold 1', but has speaker 05 in 'test'"):
        module().setup("fit")
    Split(moved, "custom").write(tmp_path / "mine.csv")
    assert module(split_csv=str(tmp_path / "mine.csv")).make_split().speaker_independent()


def test_another_corpus_is_scored_whole(module: Any, table: Path) -> None:
    data = module(corpus=str(table), root=None, protocol="test", emotions=["happy", "sad", "bored"])
    data.setup("test")
    assert (data.split.label, set(data.clips["subset"]), data.classes[2]) == (ALL_TEST, {"test"}, "bored")
    assert len(data.clips) == 192
    assert sum(len(batch["label"]) for batch in data.test_dataloader()) == 192
    assert not table.with_name("splits").exists()
    with pytest.raises(EmolightError, match="has no train clips"):
        data.train_dataloader()


def test_home_is_the_home_folder_everywhere(
    corpus: Path, here: Path, module: Any, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(table.parent))
    data = module(corpus="~/mine.csv", root="~", splits_dir="~/own", cache_dir="~/cache")
    data.setup("fit")
    assert next(table.with_name("own").glob("*.csv")).is_file()
    assert data.cache.folder.is_relative_to(table.with_name("cache"))
    data.split.write("~/split.csv")
    assert module(corpus="~/mine.csv", root="~", split_csv="~/split.csv").make_split().hash == data.split.hash
    assert not (here / "~").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"duration": 0.0}, "data.duration is 0; take 0.05 to 60"),
        ({"sample_rate": 10}, "data.sample_rate is 10"),
        ({"trim_db": -1.0}, "data.trim_db is -1"),
        ({"corpus": "RAVDES"}, "Did you mean 'RAVDESS'"),
        ({"protocol": "random", "fold": 2}, "'random' has no folds"),
        ({"split_csv": "nowhere.csv"}, "no split file nowhere.csv"),
        ({"num_workers": 1000, "batch_size": 100_000, "duration": 60.0}, "data.num_workers is 1000, which needs about"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str, module: Any) -> None:
    with pytest.raises(EmolightError, match=message):
        module(**settings).setup("fit")


def test_random_has_no_test_clips(module: Any) -> None:
    data = module(protocol="random")
    data.setup("fit")
    with pytest.raises(EmolightError, match=r"'random seed 0' has no test clips\.\nUse `validate`, or a protocol"):
        data.test_dataloader()
    data = module(protocol=EVERY_CLIP)
    data.setup("validate")
    with pytest.raises(EmolightError, match=r"'every clip tests' has no val clips\.\nUse `test`, or a protocol"):
        data.val_dataloader()


def test_many_labels_make_a_file_name_that_systems_take(module: Any, table: Path) -> None:
    clips = pd.read_csv(table, sep=";")
    clips["emotion"] = [f"emotion / number: {n % 40}" for n in range(len(clips))]
    clips.to_csv(table, index=False)
    module(corpus=str(table), root=None).make_split()
    (name,) = [path.name for path in table.with_name("splits").glob("*.csv")]
    assert len(name) < 100
    assert not set(name) & set("/ :")
