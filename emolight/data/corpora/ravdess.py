"""RAVDESS: the grammar of its file names, what was published, and its published folds.

Source: Livingstone and Russo 2018, PLoS ONE 13(5): e0196391; Zenodo record 1188976. A name is
``modality-channel-emotion-intensity-statement-repetition-actor``, two digits each.

Folds: EmoBox (Ma et al. 2024) for the test speakers of ``emobox6``; Luna-Jiménez et al. 2021 for those of ``luna5``,
with the validation speakers of ResLSTM; the validation speakers of ``emobox6`` and ``loso`` are this project's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from emolight.data.corpus import Archive, Corpus, Fold, Task, clip_table

if TYPE_CHECKING:
    import pandas as pd

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
ARTICLE = ("calm", "happy", "sad", "angry", "fearful")
"""The five emotions of the article's task, which has them in speech and song."""
FOLDERS = {"speech": "Audio_Speech_Actors_01-24", "song": "Audio_Song_Actors_01-24"}  # the two published folders
ZENODO = "https://zenodo.org/records/1188976/files/"


def _fold(test: str, val: str) -> Fold:
    """A fold of two lists of actors' numbers."""
    return Fold(*(tuple(f"{int(actor):02d}" for actor in part.split()) for part in (test, val)))


PROTOCOLS = {
    "emobox6": {
        1: _fold("1 11 20 21", "4 9 10 19"),
        2: _fold("4 10 12 14", "8 9 19 24"),
        3: _fold("8 9 19 23", "2 3 5 24"),
        4: _fold("3 5 7 24", "2 13 15 16"),
        5: _fold("2 15 16 18", "6 13 17 22"),
        6: _fold("6 13 17 22", "1 4 11 20"),
    },
    "luna5": {
        0: _fold("2 5 14 15 16", "3 6"),
        1: _fold("3 6 7 13 18", "10 11"),
        2: _fold("10 11 12 19 20", "8 17"),
        3: _fold("8 17 21 23 24", "1 14"),
        4: _fold("1 4 9 22", "2 5"),
    },
    # The next man and the next woman validate: with actor 24 held out these are actors 1 and 2.
    "loso": {actor: _fold(f"{actor}", f"{actor % 24 + 1} {(actor + 1) % 24 + 1}") for actor in range(1, 25)},
}


class RAVDESS(Corpus):
    """Acted speech and song by 24 actors: two English sentences, eight emotions."""

    name = "RAVDESS"
    about = "two English sentences, spoken and sung by 24 professional actors from Toronto who act emotions"
    emotions = EMOTIONS
    licence = "CC BY-NC-SA 4.0: not for commercial use, and so, most probably, are models trained on it"
    citation = "Livingstone SR, Russo FA (2018), PLoS ONE 13(5): e0196391"
    archives: tuple[Archive, ...] = tuple(
        Archive(f"{folder}.zip", f"{ZENODO}{folder}.zip?download=1", f"md5:{checksum}", size, folder, clips)
        for folder, checksum, size, clips in (
            (FOLDERS["speech"], "bc696df654c87fed845eb13823edef8a", 208468073, 1440),
            (FOLDERS["song"], "5411230427d67a21e18aa4d466e6d1b9", 225505317, 1012),
        )
    )
    tasks: Mapping[str, Task] = {"article": Task(ARTICLE), "full": Task(EMOTIONS, {"channel": ("speech",)})}
    default_task = "article"
    # Neutral is never strong; disgust and surprise are not sung.
    grammar = (
        r"03-(?!02-0[78]|0[12]-01-02)(?P<channel>0[12])-(?P<emotion>0[1-8])-(?P<intensity>0[12])-(?P<statement>0[12])"
        r"-(?P<repetition>0[12])-(?P<speaker>0[1-9]|1[0-9]|2[0-4])"
    )
    codes: Mapping[str, Mapping[str, str]] = {
        "channel": {"01": "speech", "02": "song"},
        "emotion": {f"{number:02d}": name for number, name in enumerate(EMOTIONS, 1)},
        "intensity": {"01": "normal", "02": "strong"},
        "statement": {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"},
        "repetition": {"01": "1", "02": "2"},
    }
    voices = {f"{actor:02d}": {"sex": "male" if actor % 2 else "female"} for actor in range(1, 25)}
    protocols: Mapping[str, Mapping[int, Fold]] = PROTOCOLS
    default_protocol = "emobox6"
    groups: tuple[str, ...] = ("sex", "channel", "intensity", "statement")
    default_root = "data/ravdess"

    def label(self, path: Path) -> dict[str, object] | None:
        """As :meth:`parse`, of the sound of the video recordings too."""
        return self.parse(re.sub(r"^0[12]-", "03-", path.stem))

    def expected(self) -> pd.DataFrame | None:
        """The published set: 1440 speech and 1012 song clips (actor 18's are lost), in their published folders."""
        rows = []
        for numbers in product((1, 2), range(1, 9), (1, 2), (1, 2), (1, 2), range(1, 25)):
            clip = self.parse("03-" + "-".join(f"{number:02d}" for number in numbers))
            if clip and (clip["channel"], clip["speaker"]) != ("song", "18"):
                folder = FOLDERS[str(clip["channel"])]
                rows.append({**clip, "path": f"{folder}/Actor_{clip['speaker']}/{clip['clip_id']}.wav"})
        return clip_table(rows)

    def passed_over(self, path: Path) -> str:
        """Sound of the video recordings has names of its own."""
        if re.fullmatch(r"0[12](-[0-9]{2}){6}", path.stem):
            return f"sound of the video recordings, named {path.stem[:2]}-…: rename it to 03-… to use it"
        return super().passed_over(path)
