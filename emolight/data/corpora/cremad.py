"""CREMA-D: the grammar of its file names, and what was published.

Source: Cao et al. 2014, IEEE Transactions on Affective Computing 5(4), 377-390. A name is
``speaker_sentence_emotion_level``: ``1001_IEO_ANG_HI``. The label is the emotion that was acted, not what listeners
recognised.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from emolight.data.corpus import Corpus

SENTENCES = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
LEVELS = {"LO": "low", "MD": "medium", "HI": "high", "XX": "unspecified", "X": "unspecified"}
"""One published clip, 1040_ITH_SAD_X, has a single X."""
EMOTIONS = {
    **{"NEU": "neutral", "HAP": "happy", "SAD": "sad"},
    **{"ANG": "angry", "FEA": "fearful", "DIS": "disgust"},
}
NAME = re.compile(rf"(1[0-9][0-9][0-9])_({'|'.join(SENTENCES)})_({'|'.join(EMOTIONS)})_({'|'.join(LEVELS)})")
FEMALE = {
    *(1002, 1003, 1004, 1006, 1007, 1008, 1009, 1010, 1012, 1013, 1018, 1020, 1021, 1024, 1025),
    *(1028, 1029, 1030, 1037, 1043, 1046, 1047, 1049, 1052, 1053, 1054, 1055, 1056, 1058, 1060),
    *(1061, 1063, 1072, 1073, 1074, 1075, 1076, 1078, 1079, 1082, 1084, 1089, 1091),
}
"""From VideoDemographics.csv of the published set: 43 of the 91 speakers."""


class CREMAD(Corpus):
    """The WAV files, 7,442 clips; one, 1076_MTI_SAD_XX, is silent: train with ``--data.on_bad_clip skip``.

    The same clips as MP3 in the folder ``AudioMP3`` are left out, unless that folder is the root.
    """

    name = "CREMA-D"
    about = "acted English sentences by 91 actors from the USA"
    emotions = tuple(EMOTIONS.values())
    licence = "Open Database License 1.0; contents: Database Contents License 1.0"
    citation = (
        "Cao H, Cooper DG, Keutmann MK, Gur RC, Nenkova A, Verma R (2014) CREMA-D: Crowd-sourced Emotional "
        "Multimodal Actors Dataset. IEEE Transactions on Affective Computing 5(4), 377-390. "
        "https://github.com/CheyneyComputerScience/CREMA-D"
    )
    default_root = "data/cremad"
    counts: Mapping[str, int] = {
        **{"neutral": 1087, "happy": 1271, "sad": 1271},
        **{"angry": 1271, "fearful": 1271, "disgust": 1271},
    }

    def parse(self, stem: str) -> dict[str, object] | None:
        """The fields of a clip's name, such as ``1001_IEO_ANG_HI``."""
        match = NAME.fullmatch(stem)
        if match is None or not 1001 <= int(match[1]) <= 1091:
            return None
        return {
            "clip_id": stem,
            "emotion": EMOTIONS[match[3]],
            "speaker": match[1],
            "sex": "female" if int(match[1]) in FEMALE else "male",
            "statement": match[2],
            "intensity": LEVELS[match[4]],
        }

    def parse_path(self, path: Path) -> dict[str, object] | None:
        """Without the MP3 copies."""
        return None if "AudioMP3" in path.parts else self.parse(path.stem)

    def twin(self, clip_id: str) -> str | None:
        """The name without its level."""
        return clip_id.rpartition("_")[0]
