"""nEMO: the grammar of its file names, and what was published.

Source: Christop 2024, LREC-COLING, https://aclanthology.org/2024.lrec-main.1059. A name is
``speaker_emotion_sentence``: ``EB0_anger_1``.
"""

from emolight.data.corpus import Corpus

EMOTIONS = {
    **{"neutral": "neutral", "happiness": "happy", "sadness": "sad"},
    **{"anger": "angry", "fear": "fearful", "surprised": "surprised"},
}
WOMEN = {"EB0": 27, "IC0": 28, "KD0": 28, "MK0": 23}
MEN = {"KS0": 23, "MP0": 24, "SM0": 24, "TP0": 26, "WR0": 23}  # their ages, from the published table


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
    grammar = (
        rf"(?P<speaker>{'|'.join(WOMEN | MEN)})_(?P<emotion>{'|'.join(EMOTIONS)})_(?P<statement>[1-9]|[1-8][0-9]|90)"
    )
    codes = {"emotion": EMOTIONS}
    voices = {
        **{who: {"sex": "female", "age": age} for who, age in WOMEN.items()},
        **{who: {"sex": "male", "age": age} for who, age in MEN.items()},
    }
    default_root = "data/nemo"
    counts = dict(zip(emotions, (809, 749, 769, 749, 736, 669), strict=True))
