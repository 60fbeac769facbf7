"""nEMO: the grammar of its file names, and what was published.

Source: Christop 2024, LREC-COLING, https://aclanthology.org/2024.lrec-main.1059. A name is
``speaker_emotion_sentence``: ``EB0_anger_1``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from emolight.data.corpus import Corpus

EMOTIONS = {
    **{"neutral": "neutral", "happiness": "happy", "sadness": "sad"},
    **{"anger": "angry", "fear": "fearful", "surprised": "surprised"},
}
SPEAKERS = {
    **{"EB0": ("female", 27), "IC0": ("female", 28), "KD0": ("female", 28), "MK0": ("female", 23)},
    **{"KS0": ("male", 23), "MP0": ("male", 24), "SM0": ("male", 24), "TP0": ("male", 26), "WR0": ("male", 23)},
}
"""Sex and age, from the published table."""
NAME = re.compile(rf"({'|'.join(SPEAKERS)})_({'|'.join(EMOTIONS)})_([1-9][0-9]?)")


class NEMO(Corpus):
    """90 sentences in six emotions, of which 4,481 clips were published."""

    name = "nEMO"
    about = "acted Polish sentences by 9 actors"
    emotions = tuple(EMOTIONS.values())
    licence = "CC BY-NC-SA 4.0"
    citation = (
        "Christop I (2024) nEMO: Dataset of Emotional Speech in Polish. LREC-COLING 2024. "
        "https://github.com/amu-cai/nEMO"
    )
    default_root = "data/nemo"
    counts: Mapping[str, int] = {
        **{"neutral": 809, "happy": 749, "sad": 769},
        **{"angry": 749, "fearful": 736, "surprised": 669},
    }

    def parse(self, stem: str) -> dict[str, object] | None:
        """The fields of a clip's name, such as ``EB0_anger_1``."""
        match = NAME.fullmatch(stem)
        if match is None or int(match[3]) > 90:
            return None
        sex, age = SPEAKERS[match[1]]
        return {
            "clip_id": stem,
            "emotion": EMOTIONS[match[2]],
            "speaker": match[1],
            "sex": sex,
            "age": age,
            "statement": int(match[3]),
        }
