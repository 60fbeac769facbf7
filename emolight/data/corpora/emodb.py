"""EMO-DB, the Berlin Database of Emotional Speech: the grammar of its file names, and what was published.

Source: Burkhardt et al. 2005, Interspeech, 1517-1520. A name is speaker, sentence, emotion (the first letter of its
German word) and version: ``03a01Fa`` is speaker 03, sentence a01, *Freude*, version a.
"""

from emolight.data.corpus import Corpus

EMOTIONS = {"N": "neutral", "F": "happy", "T": "sad", "W": "angry", "A": "fearful", "E": "disgust", "L": "bored"}
MEN = ("03", "10", "11", "12", "15")
WOMEN = ("08", "09", "13", "14", "16")


class EMODB(Corpus):
    """The 535 clips of 2005; release 2.0 adds 281 that fewer than 80 % of the listeners recognised.

    Its second folder, of laryngograph signals, is left out.
    """

    name = "EMO-DB"
    about = "acted German sentences by 10 actors from Berlin"
    emotions = tuple(EMOTIONS.values())
    licence = "CC0 1.0 in the edition of audEERING; of other copies see the publisher"
    citation = (
        "Burkhardt F, Paeschke A, Rolfes M, Sendlmeier W, Weiss B (2005) A database of German emotional speech. "
        "Interspeech, 1517-1520. http://emodb.bilderbar.info"
    )
    grammar = (
        rf"(?P<speaker>{'|'.join(MEN + WOMEN)})(?P<statement>a0[12457]|b0[1239]|b10)"
        r"(?P<emotion>[WLEAFTN])(?P<repetition>[a-z]?)"
    )
    codes = {"emotion": EMOTIONS, "repetition": {"": "a"}}
    voices = {who: {"sex": "male" if who in MEN else "female"} for who in MEN + WOMEN}
    foreign_folder = "laryngo"
    default_protocol = "loso"
    default_root = "data/emodb"
    counts = dict(zip(emotions, (79, 71, 62, 127, 69, 46, 81), strict=True))
