"""The grammars of the published corpora, on files with published names."""

from __future__ import annotations

from pathlib import Path

import pytest

from emolight.data.corpora import CREMAD, EMODB, NEMO, SAVEE, TESS, recognise
from emolight.data.corpora.cremad import FEMALE
from emolight.data.corpus import Corpus

EMOTIONS = {"neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised", "bored"}
REAL_NEMO = Path(__file__).resolve().parents[4] / "shared" / "nemo"

KNOWN: list[tuple[type[Corpus], str, dict[str, object]]] = [
    (EMODB, "wav/03a01Fa", {"emotion": "happy", "speaker": "03", "sex": "male", "statement": "a01"}),
    (EMODB, "wav/16b10Wb", {"emotion": "angry", "speaker": "16", "sex": "female", "repetition": "b"}),
    (EMODB, "wav/09a07La", {"emotion": "bored", "speaker": "09", "sex": "female"}),
    (EMODB, "wav/10b03Td", {"emotion": "sad", "speaker": "10", "sex": "male"}),
    (EMODB, "wav/13a04Ac", {"emotion": "fearful", "speaker": "13"}),
    (EMODB, "wav/14b02Ea", {"emotion": "disgust", "speaker": "14"}),
    (EMODB, "wav/08b09Nb", {"emotion": "neutral", "speaker": "08"}),
    (
        CREMAD,
        "AudioWAV/1001_IEO_ANG_HI",
        {"emotion": "angry", "speaker": "1001", "sex": "male", "intensity": "high"},
    ),
    (CREMAD, "AudioWAV/1091_WSI_NEU_XX", {"emotion": "neutral", "speaker": "1091", "sex": "female"}),
    (CREMAD, "AudioWAV/1040_ITH_SAD_X", {"emotion": "sad", "sex": "male", "intensity": "unspecified"}),
    (CREMAD, "AudioWAV/1002_DFA_FEA_XX", {"emotion": "fearful", "statement": "DFA"}),
    (TESS, "OAF_Fear/OAF_base_fear", {"emotion": "fearful", "speaker": "OAF", "sex": "female", "age": 64}),
    (TESS, "YAF_pleasant_surprised/YAF_food_ps", {"emotion": "surprised", "speaker": "YAF", "age": 26}),
    (TESS, "OAF_neutral/OA_bite_neutral", {"emotion": "neutral", "speaker": "OAF", "clip_id": "OA_bite_neutral"}),
    (SAVEE, "AudioData/DC/a01", {"emotion": "angry", "speaker": "DC", "clip_id": "DC_a01", "sex": "male"}),
    (SAVEE, "AudioData/KL/n30", {"emotion": "neutral", "speaker": "KL", "clip_id": "KL_n30"}),
    (SAVEE, "ALL/JK_sa15", {"emotion": "sad", "speaker": "JK", "clip_id": "JK_sa15"}),
    (SAVEE, "JE/su03", {"emotion": "surprised", "clip_id": "JE_su03"}),
    (NEMO, "samples/EB0_anger_1", {"emotion": "angry", "speaker": "EB0", "sex": "female", "age": 27}),
    (NEMO, "samples/WR0_surprised_90", {"emotion": "surprised", "speaker": "WR0", "sex": "male", "statement": "90"}),
]
FOREIGN = {
    EMODB: ["03a03Fa", "04a01Fa", "03a01Xa", "03a01F1", "laryngo/03a01Fa", "٠٣a01Fa"],
    CREMAD: [
        "1092_IEO_ANG_HI",
        "1000_IEO_ANG_HI",
        "1001_XXX_ANG_HI",
        "1001_IEO_CAL_HI",
        "AudioMP3/1001_IEO_ANG_HI",
    ],
    TESS: ["OAF_back", "XAF_back_sad", "OAF_back_calm"],
    SAVEE: ["a01", "XX/a01", "DC/a16", "DC/n31", "DC/b01", "DC/a00"],
    NEMO: ["EB0_anger_91", "EB0_calm_1", "XX0_anger_1", "EB0_anger_0"],
}


@pytest.mark.parametrize(("kind", "path", "fields"), KNOWN)
def test_a_published_name_is_read(kind: type[Corpus], path: str, fields: dict[str, object]) -> None:
    clip = kind().parse_path(Path(f"{path}.wav"))
    assert clip is not None
    assert fields.items() <= clip.items()
    assert isinstance(clip["speaker"], str)
    assert clip["clip_id"] == fields.get("clip_id", Path(path).stem)


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_names_are_not(kind: type[Corpus]) -> None:
    assert [name for name in FOREIGN[kind] if kind().parse_path(Path(f"{name}.wav")) is not None] == []


def test_no_name_is_of_two_corpora() -> None:
    for kind, path, _ in KNOWN:
        clip = kind().parse_path(Path(f"{path}.wav"))
        found = recognise(f"{clip['clip_id'] if clip else ''}.wav")
        assert found is not None
        assert found[0].name == kind.name


@pytest.mark.parametrize(("kind", "clips"), [(EMODB, 535), (CREMAD, 7442), (TESS, 2800), (SAVEE, 480), (NEMO, 4481)])
def test_what_was_published_adds_up(kind: type[Corpus], clips: int) -> None:
    corpus, expected = kind(), kind().expected()
    assert (sum(corpus.counts.values()) if expected is None else len(expected)) == clips
    assert set(corpus.counts) <= set(corpus.emotions) <= EMOTIONS
    assert corpus.licence
    assert corpus.citation


def test_cremads_mp3_copies_are_left_out_unless_they_are_the_root(tmp_path: Path) -> None:
    assert len(FEMALE) == 43
    for name in ("AudioWAV/1001_IEO_ANG_HI.wav", "AudioMP3/1001_IEO_ANG_HI.mp3"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(name.encode())
    assert list(CREMAD().table(tmp_path)["path"]) == ["AudioWAV/1001_IEO_ANG_HI.wav"]
    assert list(CREMAD().table(tmp_path / "AudioMP3")["path"]) == ["1001_IEO_ANG_HI.mp3"]


@pytest.mark.skipif(not REAL_NEMO.is_dir(), reason="a part of nEMO stands in ../shared/nemo only")
def test_names_and_table_of_the_real_nemo_agree() -> None:
    import pandas as pd

    given = pd.read_csv(REAL_NEMO / "nemo.csv", dtype=str).sort_values("file", ignore_index=True)
    table = NEMO().table(REAL_NEMO).sort_values("path", ignore_index=True)
    assert list(table["path"]) == list(given["file"])
    renamed = {"anger": "angry", "fear": "fearful", "happiness": "happy", "sadness": "sad"}
    assert list(table["emotion"]) == list(given["emotion"].replace(renamed))
    for column in ("speaker", "sex", "age"):
        assert list(table[column].astype(str)) == list(given[column])
    assert table["statement"].astype(int).max() <= 90
    texts = given["text"].groupby(table["statement"]).nunique()
    assert (texts == 1).all()  # the number in the name is the sentence
