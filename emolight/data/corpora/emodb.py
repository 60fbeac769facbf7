"""EMO-DB, the Berlin Database of Emotional Speech: the grammar of its file names, and what was published.

Source: Burkhardt et al. 2005, Interspeech, 1517-1520. A name is speaker, sentence, emotion (the first letter of its
German word) and version: ``03a01Fa`` is speaker 03, sentence a01, *Freude*, version a.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from emolight.data.corpus import Corpus

NAME = re.compile(r"([0-9][0-9])([ab][0-9][0-9])([WLEAFTN])([a-z]?)")
EMOTIONS = {
    **{"N": "neutral", "F": "happy", "T": "sad", "W": "angry"},
    **{"A": "fearful", "E": "disgust", "L": "bored"},
}
SPEAKERS = {
    **{"03": "male", "08": "female", "09": "female", "10": "male", "11": "male"},
    **{"12": "male", "13": "female", "14": "female", "15": "male", "16": "female"},
}
SENTENCES = {"a01", "a02", "a04", "a05", "a07", "b01", "b02", "b03", "b09", "b10"}


class EMODB(Corpus):
    """The 535 clips of 2005; release 2.0 adds 281 that fewer than 80 % of the listeners recognised.

    Its second folder, of laryngograph signals (``laryngo``), is left out.
    """

    name = "EMO-DB"
    about = "acted German sentences by 10 actors from Berlin"
    emotions = tuple(EMOTIONS.values())
    licence = "CC0 1.0 in the edition of audEERING; of other copies see the publisher"
    citation = (
        "Burkhardt F, Paeschke A, Rolfes M, Sendlmeier W, Weiss B (2005) A database of German emotional speech. "
        "Interspeech, 1517-1520. http://emodb.bilderbar.info"
    )
    default_protocol = "loso"
    default_root = "data/emodb"
    counts: Mapping[str, int] = {
        **{"neutral": 79, "happy": 71, "sad": 62, "angry": 127},
        **{"fearful": 69, "disgust": 46, "bored": 81},
    }

    def parse(self, stem: str) -> dict[str, object] | None:
        """The fields of a clip's name, such as ``03a01Fa``."""
        match = NAME.fullmatch(stem)
        if match is None or match[1] not in SPEAKERS or match[2] not in SENTENCES:
            return None
        return {
            "clip_id": stem,
            "emotion": EMOTIONS[match[3]],
            "speaker": match[1],
            "sex": SPEAKERS[match[1]],
            "statement": match[2],
            "repetition": match[4] or "a",
        }

    def parse_path(self, path: Path) -> dict[str, object] | None:
        """Without the laryngograph signals."""
        return None if "laryngo" in path.parts else self.parse(path.stem)

    def twin(self, clip_id: str) -> str | None:
        """The name without its version."""
        return clip_id[:6]
