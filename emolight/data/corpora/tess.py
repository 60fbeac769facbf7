"""TESS, the Toronto emotional speech set: the grammar of its file names, and what was published.

Source: Pichora-Fuller and Dupuis 2020, Scholars Portal Dataverse, doi:10.5683/SP2/E8H2MF. A name is
``speaker_word_emotion``: ``OAF_back_angry`` says "Say the word back". Two speakers only: no split can train on one,
choose the epoch by a second and test on a third, so that results on TESS alone say little about other voices.
"""

from emolight.data.corpus import Corpus

EMOTIONS = {
    **{"neutral": "neutral", "happy": "happy", "sad": "sad", "angry": "angry"},
    **{"fear": "fearful", "disgust": "disgust", "ps": "surprised"},
}


class TESS(Corpus):
    """200 words, 7 emotions, an older (OAF) and a younger (YAF) woman: 2,800 clips."""

    name = "TESS"
    about = "acted English sentences, 'Say the word ...', by 2 women from Toronto"
    emotions = tuple(EMOTIONS.values())
    licence = "CC BY-NC-ND 4.0 (see the publisher)"
    citation = (
        "Pichora-Fuller MK, Dupuis K (2020) Toronto emotional speech set (TESS). Scholars Portal Dataverse. "
        "https://doi.org/10.5683/SP2/E8H2MF"
    )
    grammar = rf"(?P<speaker>OAF?|YAF)_(?P<text>[a-z]+)_(?P<emotion>{'|'.join(EMOTIONS)})"
    codes = {"emotion": EMOTIONS, "speaker": {"OA": "OAF"}}  # one published clip, OA_bite_neutral, lacks the F
    voices = {"OAF": {"sex": "female", "age": 64}, "YAF": {"sex": "female", "age": 26}}
    groups = ("speaker",)
    default_protocol = "random"
    default_root = "data/tess"
    counts = dict.fromkeys(emotions, 400)
