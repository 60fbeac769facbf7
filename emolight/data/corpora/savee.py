"""SAVEE, Surrey Audio-Visual Expressed Emotion: the grammar of its file names, and what was published.

Source: Haq and Jackson 2010, in *Machine Audition*, IGI Global, 398-423. A name is emotion and sentence, in the
speaker's folder: ``DC/sa03.wav``. Other copies have the speaker in the name: ``DC_sa03.wav``.
"""

from pathlib import Path

from emolight.data.corpus import Corpus

EMOTIONS = {
    **{"n": "neutral", "h": "happy", "sa": "sad", "a": "angry"},
    **{"f": "fearful", "d": "disgust", "su": "surprised"},
}


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
    grammar = (
        rf"(?P<speaker>DC|JE|JK|KL)_(?P<emotion>{'|'.join(EMOTIONS)})(?:0[1-9]|1[0-5]|(?<=_n)(?:1[6-9]|2[0-9]|30))"
    )
    codes = {"emotion": EMOTIONS}
    voices = {who: {"sex": "male"} for who in ("DC", "JE", "JK", "KL")}
    groups = ("speaker",)
    default_protocol = "loso"
    default_root = "data/savee"
    counts = {**dict.fromkeys(emotions, 60), "neutral": 120}

    def parse_path(self, path: Path) -> dict[str, object] | None:
        """The folder may be the speaker."""
        return self.parse(path.stem) or self.parse(f"{path.parent.name}_{path.stem}")
