"""CREMA-D: the grammar of its file names, and what was published.

Source: Cao et al. 2014, IEEE Transactions on Affective Computing 5(4), 377-390. A name is
``speaker_sentence_emotion_level``: ``1001_IEO_ANG_HI``. The label is the emotion that was acted, not what listeners
recognised.
"""

from emolight.data.corpus import Corpus

LEVELS = {"LO": "low", "MD": "medium", "HI": "high", "XX": "unspecified", "X": "unspecified"}
"""One published clip, 1040_ITH_SAD_X, has a single X."""
EMOTIONS = {"NEU": "neutral", "HAP": "happy", "SAD": "sad", "ANG": "angry", "FEA": "fearful", "DIS": "disgust"}
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
    grammar = (
        r"(?P<speaker>1(?!000)0[0-8][0-9]|109[01])_(?P<statement>IEO|TIE|IOM|IWW|TAI|MTI|IWL|ITH|DFA|ITS|TSI|WSI)"
        rf"_(?P<emotion>{'|'.join(EMOTIONS)})_(?P<intensity>{'|'.join(LEVELS)})"
    )
    codes = {"emotion": EMOTIONS, "intensity": LEVELS}
    voices = {str(who): {"sex": "female" if who in FEMALE else "male"} for who in range(1001, 1092)}
    foreign_folder = "AudioMP3"
    default_root = "data/cremad"
    counts = {**dict.fromkeys(emotions, 1271), "neutral": 1087}
