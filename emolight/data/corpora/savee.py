"""SAVEE, Surrey Audio-Visual Expressed Emotion: the grammar of its file names, and what was published.

Source: Haq and Jackson 2010, in *Machine Audition*, IGI Global, 398-423. A name is emotion and sentence, in the
speaker's folder: ``DC/sa03.wav``. Other copies have the speaker in the name: ``DC_sa03.wav``.
"""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from emolight.data.corpus import Corpus, clip_table

if TYPE_CHECKING:
    import pandas as pd

SPEAKERS = ("DC", "JE", "JK", "KL")
EMOTIONS = {
    **{"n": "neutral", "h": "happy", "sa": "sad", "a": "angry"},
    **{"f": "fearful", "d": "disgust", "su": "surprised"},
}
NAME = re.compile(rf"({'|'.join(SPEAKERS)})_({'|'.join(EMOTIONS)})([0-9][0-9])")


class SAVEE(Corpus):
    """15 sentences an emotion and 30 neutral ones by each of four men: 480 clips."""

    name = "SAVEE"
    about = "acted English sentences by 4 men from Surrey"
    emotions = tuple(EMOTIONS.values())
    licence = "free for research, after registration (see the publisher)"
    citation = (
        "Haq S, Jackson PJB (2010) Multimodal Emotion Recognition. In: Wang W (ed) Machine Audition. IGI Global, "
        "398-423. http://kahlan.eps.surrey.ac.uk/savee"
    )
    groups = ("speaker",)
    default_protocol = "loso"
    default_root = "data/savee"

    def parse(self, stem: str) -> dict[str, object] | None:
        """The fields of a clip's name, such as ``DC_sa03``."""
        match = NAME.fullmatch(stem)
        if match is None or not 1 <= int(match[3]) <= (30 if match[2] == "n" else 15):
            return None
        return {"clip_id": stem, "emotion": EMOTIONS[match[2]], "speaker": match[1], "sex": "male"}

    def parse_path(self, path: Path) -> dict[str, object] | None:
        """The folder may be the speaker."""
        return self.parse(path.stem) or self.parse(f"{path.parent.name}_{path.stem}")

    def expected(self) -> pd.DataFrame:
        """The 480 clips."""
        paths = (f"{who}/{code}{n:02d}.wav" for who, code, n in product(SPEAKERS, EMOTIONS, range(1, 31)))
        clips = ((self.parse_path(Path(path)), path) for path in paths)
        return clip_table([{**clip, "path": path} for clip, path in clips if clip])
