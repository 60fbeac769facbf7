"""Files of strangers execute nothing: checkpoints, addresses, archives, configurations, and whole run folders."""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
import shutil
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import emolight
from emolight.__main__ import main, run
from emolight.data.download import extract
from emolight.errors import EmolightError
from emolight.models.checkpoint import MARK, read_checkpoint, save_checkpoint
from emolight.run.cli import full_config
from emolight.run.folder import Run
from tests.small import CONFIGS, LIGHT, options

MARKER = "executed"
MFCC = str(CONFIGS / "mfcc.yaml")


class Hostile:
    """Makes the marker file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.marker, "w")


def plain_zip(content: dict[str, Any], hostile: Hostile, path: Path) -> None:
    """What PyTorch itself writes."""
    torch.save({**content, "extra": hostile}, path)


def legacy(content: dict[str, Any], hostile: Hostile, path: Path) -> None:
    """The format before PyTorch 1.6: pickles one after another."""
    torch.save({**content, "extra": hostile}, path, _use_new_zipfile_serialization=False)


def raw_pickle(content: dict[str, Any], hostile: Hostile, path: Path) -> None:
    """No format at all."""
    path.write_bytes(pickle.dumps(hostile))


def sealed(content: dict[str, Any], hostile: Hostile, path: Path) -> None:
    """With a right checksum, which is no secret; the pickle is among the settings."""
    settings = {**content["hyper_parameters"], "classes": hostile}
    save_checkpoint({**content, "hyper_parameters": settings}, path)


def sealed_script(content: dict[str, Any], hostile: Hostile, path: Path) -> None:
    """A right checkpoint with one more member, by which PyTorch takes it for a program."""
    add_member(content, "constants.pkl", hostile, path)


FORMS = (plain_zip, legacy, raw_pickle, sealed, sealed_script)


def add_member(content: dict[str, Any], name: str, hostile: Hostile, path: Path) -> None:
    """Hide a pickle as a further member of a right checkpoint, and seal it again."""
    stream = io.BytesIO()
    torch.save(content, stream)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr(f"{archive.namelist()[0].partition('/')[0]}/{name}", pickle.dumps(hostile))
    whole = bytearray(stream.getvalue())
    whole[-2:] = (len(MARK) + 64).to_bytes(2, "little")
    path.write_bytes(whole + MARK + hashlib.sha256(whole).hexdigest().encode())


@pytest.fixture(scope="module")
def fitted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished and tested run."""
    folder = tmp_path_factory.mktemp("fitted")
    with contextlib.chdir(folder):
        run(["fit", "--config", MFCC, *options(corpus, **LIGHT)])
        run(["test", "--ckpt_path", "lightning_logs/mfcc/version_0"])
    return folder / "lightning_logs" / "mfcc" / "version_0"


@pytest.fixture
def stranger(fitted: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder to spoil, and beside it a module that makes the marker when it is imported."""
    shutil.copytree(fitted, here / "run")
    (here / "evil.py").write_text(
        f"open({str(here / MARKER)!r}, 'w')\nclass Evil:\n    pass\ndef call(*_):\n    pass\n"
    )
    monkeypatch.syspath_prepend(here)
    sys.modules.pop("evil", None)
    return here / "run"


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command that ends with exit code 2, and executes nothing on the way."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr().err
    assert not Path(MARKER).exists()
    assert ended.value.code == 2, said
    assert 1 <= len(said.splitlines()) <= 3, said
    return said


LOADING: dict[str, Callable[[str, str], list[str]]] = {
    "test": lambda model, clip: ["test", "--ckpt_path", model],
    "test with a configuration": lambda model, clip: ["test", "--config", MFCC, "--ckpt_path", model],
    "validate": lambda model, clip: ["validate", f"--ckpt_path={model}"],
    "predict": lambda model, clip: ["predict", model, clip],
    "predict --explain": lambda model, clip: ["predict", model, clip, "--explain", "pictures"],
    "export": lambda model, clip: ["export", model],
    "robustness": lambda model, clip: ["robustness", model],
    "demo": lambda model, clip: ["demo", model],
}
"""The commands that take a checkpoint."""


@pytest.mark.parametrize("form", FORMS)
def test_the_checkpoints_would_execute_if_they_were_let(form: Any, fitted: Path, here: Path) -> None:
    content = read_checkpoint(fitted / "checkpoints" / "best.ckpt")
    form(content, Hostile(here / MARKER), here / "hostile.ckpt")
    if form is raw_pickle:
        pickle.loads((here / "hostile.ckpt").read_bytes())
    elif form is sealed_script:
        with zipfile.ZipFile(here / "hostile.ckpt") as archive:
            pickle.loads(archive.read(next(name for name in archive.namelist() if name.endswith("constants.pkl"))))
    else:
        torch.load(here / "hostile.ckpt", weights_only=False)
    assert (here / MARKER).exists()


@pytest.mark.parametrize("form", FORMS)
def test_no_command_executes_a_checkpoint(
    form: Any, stranger: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = read_checkpoint(stranger / "checkpoints" / "best.ckpt")
    for name in ("best", "last"):
        form(content, Hostile(Path(MARKER).resolve()), stranger / "checkpoints" / f"{name}.ckpt")
    model, clip = "run/checkpoints/best.ckpt", str(next(corpus.rglob("*.wav")))
    for words in LOADING.values():
        assert "best.ckpt" in refused(words(model, clip), capsys)
    assert "last.ckpt" in refused(["fit", "--resume", "run"], capsys)
    with pytest.raises(EmolightError, match=r"best\.ckpt"):
        emolight.load(model)
    assert not Path(MARKER).exists()


@pytest.mark.parametrize(
    "words",
    [
        ["report", "run"],
        ["compare", "run"],
        ["ensemble", "run", "other"],
    ],
    ids=lambda words: words[0],
)
def test_what_reads_a_run_folder_executes_none_of_its_checkpoints(
    words: list[str], stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = read_checkpoint(stranger / "checkpoints" / "best.ckpt")
    for name in ("best", "last"):
        sealed(content, Hostile(Path(MARKER).resolve()), stranger / "checkpoints" / f"{name}.ckpt")
    shutil.copytree(stranger, "other")
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr().err
    assert ended.value.code in (0, 2)
    assert "Traceback" not in said
    assert not Path(MARKER).exists()


def test_a_further_member_of_a_right_checkpoint_is_never_read(stranger: Path) -> None:
    path = stranger / "checkpoints" / "best.ckpt"
    add_member(read_checkpoint(path), "evil.pkl", Hostile(Path(MARKER).resolve()), path)
    emolight.load(path)
    assert not Path(MARKER).exists()


@pytest.fixture
def server(here: Path) -> Iterator[tuple[str, list[str]]]:
    """Serves a hostile pickle at every address; its address, and what was asked of it."""
    content = pickle.dumps(Hostile(here / MARKER))
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{one.server_port}", asked
        one.shutdown()


def test_no_checkpoint_is_fetched(
    server: tuple[str, list[str]], corpus: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, asked = server
    raw_pickle({}, Hostile(here / MARKER), here / "best.ckpt")
    clip = str(next(corpus.rglob("*.wav")))
    for address in (f"http://{place}/best.ckpt", f"https://{place}/best.ckpt", f"file://{here}/best.ckpt"):
        for words in LOADING.values():
            said = refused(words(address, clip), capsys)
            assert "is an address" in said
            assert "Fetch it yourself" in said
        with pytest.raises(EmolightError, match="is an address"):
            emolight.load(address)
        refused(["fit", "--resume", address], capsys)
        refused(["fit", "--config", address], capsys)
        refused(["fit", "--config", MFCC, *options(corpus), "--data.split_csv", address], capsys)
        refused(["predict", address.replace(".ckpt", ".onnx"), clip], capsys)
    assert asked == []


@pytest.mark.parametrize("name", ["../out.wav", "/tmp/out.wav", "a/../../out.wav", "..\\out.wav", "C:/out.wav"])
def test_archives_that_lead_out_are_refused_whole(name: str, here: Path) -> None:
    with zipfile.ZipFile("sounds.zip", "w") as archive:
        archive.writestr("Actor_01/good.wav", b"x")
        archive.writestr(name, b"x")
    with pytest.raises(EmolightError, match="leads out of its folder; nothing was unpacked"):
        extract(Path("sounds.zip"), here / "inside" / "sounds")
    assert sorted(path.name for path in here.rglob("*")) == ["sounds.zip"]


def test_a_tar_archive_is_not_unpacked_at_all(here: Path) -> None:
    with tarfile.open("sounds.zip", "w") as archive:
        archive.addfile(tarfile.TarInfo("../out.wav"))
    with pytest.raises(EmolightError, match="zip archive"):
        extract(Path("sounds.zip"), here / "inside" / "sounds")
    assert sorted(path.name for path in here.rglob("*")) == ["sounds.zip"]


TAGS = [
    "!!python/object/apply:os.system ['touch executed']",
    "!!python/object/new:os.system ['touch executed']",
    "!!python/object/apply:builtins.open [executed, w]",
    "!!python/name:evil.Evil",
    "!!python/module:evil",
    "!!python/object:evil.Evil {}",
]
POPEN = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", MARKER]}}
EVIL = {"class_path": "evil.Evil"}
TRAINERS: list[dict[str, Any]] = [
    {"callbacks": {"class_path": "os.system", "init_args": {"command": "touch executed"}}},
    {"callbacks": [POPEN]},
    {"callbacks": [EVIL]},
    {"callbacks": ["evil.Evil"]},
    {"callbacks": "evil.Evil"},
    {"callbacks": "{class_path: evil.Evil}"},
    {"callbacks+": EVIL},
    {"callbacks": {"class_path": "LambdaCallback", "init_args": {"on_fit_start": "evil.call"}}},
    {"callbacks": {"class_path": "lightning.pytorch.callbacks.model_checkpoint.os.system"}},
    {"logger": EVIL},
    {"logger": "evil.Evil"},
    {"plugins": [EVIL]},
    {"profiler": POPEN},
    {"strategy": EVIL},
    {"accelerator": "evil.Evil"},
    {"strategy": {"class_path": "SingleDeviceStrategy", "init_args": {"device": "cpu", "checkpoint_io": EVIL}}},
]


@pytest.mark.parametrize("tag", TAGS)
def test_no_tag_of_a_configuration_is_followed(tag: str, stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in (f"data: {tag}\n", f"trainer:\n  callbacks:\n  - {tag}\n"):
        Path("overlay.yaml").write_text(text)
        said = refused(["fit", "--config", MFCC, "--config", "overlay.yaml"], capsys)
        assert "overlay.yaml is not valid YAML" in said
    whole = (stranger / "config.yaml").read_text().replace("  callbacks: null\n", f"  callbacks: {tag}\n")
    assert tag in whole
    (stranger / "config.yaml").write_text(whole)
    for words in (["test", "--ckpt_path", "run"], ["fit", "--resume", "run"], ["robustness", "run"], ["report", "run"]):
        assert "config.yaml" in refused(words, capsys)
    for words in (["ensemble", "run", "run"], ["compare", "run"]):
        assert "run" in refused(words, capsys)


@pytest.mark.parametrize("trainer", TRAINERS, ids=str)
def test_no_class_from_elsewhere_is_imported(
    trainer: dict[str, Any], stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("overlay.yaml").write_text(yaml.safe_dump({"trainer": trainer}))
    refused(["fit", "--config", MFCC, "--config", "overlay.yaml"], capsys)
    spoil(stranger, trainer=trainer)
    # Nothing of the trainer is taken by `test`; by `--resume` plain values and a few callbacks, or it refuses.
    assert run(["test", "--ckpt_path", "run", "--trainer.fast_dev_run", "true"]) == 0
    with contextlib.suppress(EmolightError):
        run(["fit", "--resume", "run"])
    assert not Path(MARKER).exists()
    assert "evil" not in sys.modules


def spoil(folder: Path, **changed: dict[str, Any]) -> None:
    """Change settings in the configuration of a run."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for section, values in changed.items():
        config[section] |= values
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


WRITERS: dict[str, Any] = {
    "logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "out"}},
    "profiler": {
        "class_path": "lightning.pytorch.profilers.SimpleProfiler",
        "init_args": {"dirpath": "out", "filename": "profile"},
    },
    "default_root_dir": "out",
    "model_registry": "out",
}
CALLBACKS: list[dict[str, Any]] = [
    {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"dirpath": "out"}},
    {"class_path": "lightning.pytorch.callbacks.DeviceStatsMonitor"},
]
"""What a trainer's section could have written elsewhere, with nothing but Lightning's own classes."""


def test_a_strangers_trainer_writes_nothing_outside_of_the_run(stranger: Path) -> None:
    before = {name for name in everything(Path()) if not name.startswith("run/")}
    for callback in CALLBACKS:
        spoil(stranger, trainer={"callbacks": [callback]})
        with pytest.raises(EmolightError, match="which is not taken over unasked"):
            run(["fit", "--resume", "run"])
    spoil(stranger, trainer={**WRITERS, "callbacks": CALLBACKS})
    for words in (["test", "--ckpt_path", "run"], ["validate", "--ckpt_path", "run"]):
        assert run(words) == 0
    spoil(stranger, trainer={"callbacks": None})
    assert run(["fit", "--resume", "run"]) == 0
    assert {name for name in everything(Path()) if not name.startswith("run/")} == before


def test_a_strangers_data_writes_nothing_outside_of_the_run(
    stranger: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Path("home").absolute()
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    before = {name for name in everything(Path()) if not name.startswith(("run/", "home/"))}
    spoil(stranger, data={"cache_dir": "out/cache", "splits_dir": "out/splits"})
    assert run(["test", "--ckpt_path", "run"]) == 0
    data = Run.open("run").data()  # of every other command
    assert (data.cache_dir, data.splits_dir) == (None, None)
    # A corpus that makes itself is not made on a stranger's word, neither in a new folder nor in an empty one.
    Path("empty").mkdir()
    for root in ("out/corpus", "empty", None):
        spoil(stranger, data={"root": root})
        for words in (["test", "--ckpt_path", "run"], ["fit", "--resume", "run"]):
            assert "Say where: --data.root DIR" in refused(words, capsys)
    for corpus in ("evil.Evil", {"class_path": "evil.Evil"}, ["RAVDESS", "evil.Evil"], 3, {"class_path": 3}, "out.csv"):
        spoil(stranger, data={"corpus": corpus})
        refused(["test", "--ckpt_path", "run"], capsys)
    assert {name for name in everything(Path()) if not name.startswith(("run/", "home/"))} == before | {"empty"}
    assert "evil" not in sys.modules


PARTS = ["evil.Evil", "evil.call", "os.system", "subprocess.Popen", {"class_path": "evil.Evil"}, POPEN]


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_a_strangers_model_imports_nothing(part: Any, stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("features", part), ("network", part), ("augment", [part])):
        spoil(stranger, model={name: value})
        refused(["test", "--ckpt_path", "run"], capsys)
        spoil(stranger, model={"features": "MFCC", "network": LIGHT["model.network"], "augment": None})
    checkpoint = stranger / "checkpoints" / "best.ckpt"
    content = read_checkpoint(checkpoint)
    spec = part if isinstance(part, dict) else {"class_path": part, "init_args": {}}
    settings = {**content["hyper_parameters"], "network": {"init_args": {}, **spec}}
    save_checkpoint({**content, "hyper_parameters": settings}, checkpoint)
    refused(["test", "--ckpt_path", "run"], capsys)
    with pytest.raises(EmolightError):
        emolight.load("run")
    assert not Path(MARKER).exists()
    assert "evil" not in sys.modules


def test_code_of_ones_own_is_asked_for_by_name(
    stranger: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = {"trainer": {"callbacks": {"class_path": "evil.Evil"}}}
    Path("mine.yaml").write_text(yaml.safe_dump(overlay))
    fit = ["fit", "--config", MFCC]
    in_yaml, typed = [*fit, "--config", "mine.yaml"], [*fit, "--trainer.callbacks=evil.Evil"]
    asked_for = ((in_yaml, "other, more", False), (in_yaml, "evil", True), (in_yaml, "", False), (typed, "", True))
    for words, asked, trusted in asked_for:
        Path(MARKER).unlink(missing_ok=True)
        sys.modules.pop("evil", None)
        monkeypatch.setenv("EMOLIGHT_IMPORTS", asked)
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
        assert Path(MARKER).exists() == trusted
        assert ("EMOLIGHT_IMPORTS=evil" in capsys.readouterr().err) != trusted
    sys.modules.pop("evil", None)


def test_what_was_typed_once_is_not_trusted_later(stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--config", MFCC, "--trainer.callbacks=nothing.Here"])
    assert "nothing" in capsys.readouterr().err
    Path("nothing.py").write_text(Path("evil.py").read_text())
    Path("mine.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": {"class_path": "nothing.Evil"}}}))
    assert "EMOLIGHT_IMPORTS=nothing" in refused(["fit", "--config", MFCC, "--config", "mine.yaml"], capsys)


def test_a_cross_validation_does_not_execute_the_base_that_it_finds(
    stranger: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = Path("lightning_logs/mfcc/crossval_emobox6/base.yaml")
    base.parent.mkdir(parents=True)
    for text in (f"data: {TAGS[0]}\n", f"data: {TAGS[3]}\n", "data: 3\n", "", "[\n"):
        base.write_text(text)
        assert "base.yaml" in refused(["crossval", "--config", MFCC, *options(corpus)], capsys)
        assert base.read_text() == text


def test_a_split_is_only_read(stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in (
        b"!!python/object/apply:os.system ['touch executed']\n",
        pickle.dumps(Hostile(Path(MARKER))),
    ):
        (stranger / "split.csv").write_bytes(content)
        assert "split.csv" in refused(["test", "--ckpt_path", "run/checkpoints/best.ckpt"], capsys)


def test_every_file_of_a_run_loads_without_executing_anything(fitted: Path) -> None:
    kinds = {path.suffix for path in fitted.rglob("*") if path.is_file() and "tfevents" not in path.name}
    assert kinds <= {".ckpt", ".yaml", ".csv", ".json", ".md", ".png", ".tsv", ".pbtxt", ".lock"}
    found = list(fitted.rglob("*.ckpt"))
    assert sorted(path.name for path in found) == ["best.ckpt", "last.ckpt"]
    for path in found:
        assert torch.load(path, weights_only=True).keys() >= {"state_dict", "hyper_parameters"}
    for path in fitted.rglob("*.yaml"):
        assert yaml.safe_load(path.read_text(encoding="utf-8"))
    assert full_config(["--config", MFCC])["data"]["fold"] is None
