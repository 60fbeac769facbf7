"""Each process' share of the clips."""

from __future__ import annotations

import pytest

from emolight.data.clips import share


@pytest.mark.parametrize("size", [7, 13, 320])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_evaluation_shards_hold_every_clip_once(size: int, processes: int) -> None:
    shards = [share(size, rank, processes) for rank in range(processes)]
    rows = [row for shard in shards for row in shard]
    assert sorted(rows) == list(range(size))
    assert sum(map(len, shards)) == size


def test_training_shards_are_disjoint_and_of_one_size() -> None:
    shards = [share(13, rank, 2, seed=0, epoch=3) for rank in range(2)]
    assert len(shards[0]) == len(shards[1]) == 6
    assert not set(shards[0]) & set(shards[1])
    assert share(13, 0, 1, seed=0, epoch=4) != share(13, 0, 1, seed=0, epoch=3)
