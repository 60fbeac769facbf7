from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emolight.data.datamodule import EmotionDataModule, ShardSampler
from emolight.data.ravdess import ARTICLE_EMOTIONS, EMOTIONS, task_name
from emolight.errors import EmolightError


@pytest.fixture
def module(corpus: Path, tmp_path: Path) -> Any:
    def build(**settings: Any) -> EmotionDataModule:
        defaults = {"root": str(corpus), "channels": ["speech"], "splits_dir": str(tmp_path / "splits")}
        return EmotionDataModule(**{**defaults, "cache_dir": str(corpus.parent / "cache"), **settings})

    return build


def test_batches_have_the_promised_shapes_and_labels(module: Any) -> None:
    data = module(batch_size=7, duration=0.5)
    data.setup("fit")
    seen = []
    for batch in data.val_dataloader():
        assert batch["waveform"].dtype == torch.float32
        assert batch["waveform"].shape == (len(batch["label"]), 8000)
        emotions = data.clips.iloc[batch["index"].numpy()]["emotion"]
        assert [data.emotions[label] for label in batch["label"]] == emotions.tolist()
        seen += batch["index"].tolist()
    assert seen == data.subset("val").tolist()


def test_training_order_and_crops_follow_seed_and_epoch_alone(module: Any) -> None:
    def epoch(number: int, workers: int, seed: int = 0) -> torch.Tensor:
        data = module(duration=0.3, num_workers=workers, seed=seed)
        data.setup("fit")
        dataset = data.dataset(data.subset("train"), seed)
        dataset.epoch = number
        loader = data._loader(dataset, ShardSampler(len(dataset), 0, 1, seed, number))
        return torch.cat([batch["waveform"] for batch in loader])

    first = epoch(0, workers=0)
    assert torch.equal(first, epoch(0, workers=2))
    assert not torch.equal(first, epoch(1, workers=0))
    assert not torch.equal(first, epoch(0, workers=0, seed=1))


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


@pytest.mark.parametrize("size", [7, 13, 320])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_evaluation_shards_hold_every_clip_once(size: int, processes: int) -> None:
    shards = [ShardSampler(size, rank, processes) for rank in range(processes)]
    rows = [row for shard in shards for row in shard]
    assert sorted(rows) == list(range(size))
    assert sum(map(len, shards)) == size


def test_training_shards_are_disjoint_and_of_one_size() -> None:
    shards = [list(ShardSampler(13, rank, 2, seed=0, epoch=3)) for rank in range(2)]
    assert len(shards[0]) == len(shards[1]) == 6
    assert not set(shards[0]) & set(shards[1])


def test_bad_clips_are_refused_or_left_out(corpus: Path, tmp_path: Path, module: Any) -> None:
    import shutil

    root = tmp_path / "corpus"
    shutil.copytree(corpus, root)
    broken = sorted(root.rglob("*.wav"))[5]
    broken.write_bytes(broken.read_bytes()[:400])
    with pytest.raises(EmolightError, match=broken.name):
        module(root=str(root), cache_dir=str(tmp_path / "cache")).setup("fit")
    data = module(root=str(root), cache_dir=str(tmp_path / "cache"), on_bad_clip="skip")
    with pytest.warns(UserWarning, match=broken.name):
        data.setup("fit")
    assert broken.stem not in set(data.clips["clip_id"])
    assert broken.stem in set(data.split["clip_id"])


def test_random_has_no_test_clips(module: Any) -> None:
    data = module(protocol="random")
    data.setup("fit")
    with pytest.raises(EmolightError, match="'random seed 0' has no test clips"):
        data.test_dataloader()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"duration": 0.0}, "data.duration is 0"),
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"sample_rate": 10}, "data.sample_rate is 10"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str, module: Any) -> None:
    with pytest.raises(EmolightError, match=message):
        module(**settings)


def test_an_unknown_emotion_gets_the_nearest_name(module: Any) -> None:
    with pytest.raises(EmolightError, match="Did you mean 'happy'"):
        module(emotions=["hapy", "sad"]).setup("fit")


def test_tasks_have_names() -> None:
    assert task_name(ARTICLE_EMOTIONS, ["speech", "song"]) == "article"
    assert task_name(EMOTIONS, ["speech"]) == "full"
    assert task_name(["sad", "happy"], ["song"]) == "sad-happy-song"
