"""Every mistake a user can make: its exit code, one line what, one hint, and nothing half written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from made_project import CLASSIFY, TRAINING, Made, call, refused, require, sentences, write_inputs

from toolchain.errors import InfeasibleError
from toolchain.pipeline import train as pipeline

LABELLED = "".join(f"{text}\t{label}\n" for text, label in sentences(40))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project nothing has been done in; the tests here leave it so."""
    return write_inputs(tmp_path_factory.mktemp("inputs") / "project")


@pytest.mark.parametrize(("given", "noted"), [((), True), (("-q",), False), (("--data", "data.tsv"), False)])
def test_training_on_what_is_here_is_said_before_it_begins(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], noted: bool
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise InfeasibleError("stopped")

    monkeypatch.setattr(pipeline, "train_supernet", stop)
    told = require(call(inputs, "train", "--space", "tiny", *given), 3)
    assert told.err.startswith("note: no --data was given") == noted
    assert told.err.splitlines()[-2].endswith("stopped")


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "unknown", "near"),
    [
        (["serach"], "'serach'", "did you mean search?"),
        (["devices", "lst"], "'lst'", "did you mean list?"),
        (["search", "--latencyy", "5ms"], "'--latencyy'", "did you mean --latency?"),
        (["train", "--data", "data.tsv", "--family", "bert"], "--family", "the task decides the family"),
        (["train", "--task", "translate", "--family=translation"], "--family", "the task decides the family"),
        (["train", "--familly", "bert"], "'--familly'", "known: "),
        (["train", "--config", "laptop-clasify", "--dry-run"], "'laptop-clasify'", "did you mean laptop-classify?"),
        (["train", "--data", "data.tsv", "--space", "tinny"], "'tinny'", "did you mean tiny?"),
        (["profile", "--device", "quik"], "'quik'", "did you mean quick?"),
        (["search", "--device", "quik"], "'quik'", "did you mean quick?"),
        (["predict", "--device", "quik", "--n", "1"], "'quik'", "did you mean quick?"),
        (["export", "--device", "quik"], "'quik'", "did you mean quick?"),
        (["devices", "show", "quik"], "'quik'", "did you mean quick?"),
        (["search", "--searcher", "evolutoin"], "'evolutoin'", "did you mean evolution?"),
        (["train", "--mixture", "neurons"], "'neurons'", "did you mean neuron?"),
        (["train", "--task", "clasify"], "'clasify'", "did you mean classify?"),
        (["export", "--format", "onxx"], "'onxx'", "did you mean onnx?"),
        (["export", "--format", "zzz"], "'zzz'", "see mostool export --help"),
        (["evaluate", "--run", "word"], "word", "words"),
        (["evaluate", "--arch", "smalest"], "'smalest'", "smallest"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_unknown_name_is_answered_with_the_nearest(
    made: Made, arguments: list[str], unknown: str, near: str
) -> None:
    refused(call(made.root, *arguments), 2, unknown, near)
    failed = call(made.root, *arguments, "--json").error
    assert failed["kind"] == "usage"
    assert unknown in failed["message"]
    assert near in failed["message"] + failed["hint"]


@pytest.mark.parametrize(
    "arguments",
    [
        *(["search", "--latency", wrong] for wrong in ("5", "0ms", "-1ms", "nan", "inf", "nanms", "1e999s", "", "ms")),
        *(["search", "--latency", wrong] for wrong in ("5 minutes", "5ms5", "1,5ms", "5MiB", "\u0665ms", "5ms\0")),
        *(["search", "--size", wrong] for wrong in ("5", "0MiB", "5ms", "-5MiB", "1e-400B")),
        *(["search", "--params", wrong] for wrong in ("0", "-3", "1.5MM", "5ms", "1e400")),
        *(["search", "--evaluations", wrong] for wrong in ("0", "-1", "many", "1.5", "")),
        *(["train", "--learning-rate", wrong] for wrong in ("0", "-1", "nan", "inf", "fast")),
        *(["train", "--weight-decay", wrong] for wrong in ("-1", "nan", "inf")),
        *(["train", "--dropout", wrong] for wrong in ("1", "-0.1", "nan")),
        *(["train", option, "0"] for option in ("--updates", "--batch-size", "--accumulate", "--evaluate-every")),
        ["train", "--sequence-length", "7"],
        ["train", "--vocabulary-size", "63"],
        ["train", "--experts", "0"],
        *(
            ["train", "--mixture", "plain", *idle]
            for idle in (["--experts", "2"], ["--router-spread", "1"], ["--mix-attention"])
        ),
        ["train", "--seed", "-1"],
        ["train", "--task", "translate"],
        ["train", "stray"],
        ["train", "--data"],
        ["profile", "--n", "0"],
        ["profile", "--batch", "0"],
        ["profile", "--device", "quick", "--length", "0"],
        ["profile", "--device", "quick", "--length", "17"],
        ["export", "--length", "17"],
        ["export", "--format", "tensorflow"],
        ["predict"],
        ["sample", "--n", "0"],
        ["evaluate", "--source", "disk"],
        ["evaluate", "--run", "data.tsv"],
        ["evaluate", "--run", "nothing"],
    ],
    ids=" ".join,
)
def test_a_value_that_cannot_be_is_refused(made: Made, arguments: list[str]) -> None:
    refused(call(made.root, *arguments), 2)
    assert call(made.root, arguments[0], "--json", *arguments[1:]).error["kind"] == "usage"


def test_commands_before_their_time_say_what_comes_first(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path / "project")
    for command in ("profile", "search", "export", "evaluate", "sample", "predict", "report"):
        refused(call(inputs, command), 2, "mostool train")
    refused(call(inputs, "export", "--run", "nothing"), 2, "there is no run nothing", "none")


def test_a_winner_before_a_search(made: Made) -> None:
    refused(call(made.root, "export", "--run", "words"), 2, "no winner yet", "mostool search")
    refused(call(made.root, "evaluate", "--run", "words"), 2, "no winner yet", "mostool search")


# -- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.tsv", None, "there is no missing.tsv"),
        ("empty.tsv", b"", "is empty"),
        ("blank.tsv", b" \n\n", "is empty"),
        ("header.tsv", b"sentence\tlabel\n", "header.tsv"),
        ("columns.tsv", b"words\tkind\n" + LABELLED.encode(), "'words', 'kind'"),
        ("unequal.tsv", b"sentence\tlabel\n" + LABELLED.encode() + b"one\ttwo\tthree\n", "line 42"),
        ("nul.tsv", b"sentence\tlabel\n" + LABELLED.encode() + b"a\0b\tsea\n", "NUL byte"),
        ("latin.tsv", b"sentence\tlabel\n" + LABELLED.encode() + b"caf\xe9\tsea\n", "not UTF-8"),
        ("wide.tsv", ("sentence\tlabel\n" + LABELLED).encode("utf-16"), "not UTF-8"),
        ("one.tsv", b"sentence\tlabel\n" + b"".join(b"word %d\tsea\n" % n for n in range(40)), "one.tsv"),
        ("few.tsv", b"sentence\tlabel\na word\tsea\nanother\tforest\n", "few.tsv"),
        ("list.jsonl", b"[1, 2]\n", "line 1"),
        ("deep.jsonl", b"[" * 100_000 + b"\n", "line 1"),
        ("open.csv", b'sentence,label\n"never closed,sea\n', "open.csv"),
        ("packed.tsv.gz", b"not gzip", "not a whole gzip file"),
        ("book.pdf", b"%PDF", "is not a table mostool can read"),
        ("folder.tsv", "folder", "is a folder"),
        ("pipe.tsv", "pipe", "is not a plain file"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_bad_data_is_named(tmp_path: Path, name: str, content: bytes | str | None, said: str) -> None:
    inputs = write_inputs(tmp_path / "project")
    if content == "folder":
        (inputs / name).mkdir()
    elif content == "pipe":
        os.mkfifo(inputs / name)
    elif isinstance(content, bytes):
        (inputs / name).write_bytes(content)
    refused(call(inputs, "train", "--data", name, *TRAINING), 2, said)
    assert call(inputs, "train", "--data", name, *TRAINING, "--json").error["code"] == 2
    assert not (inputs / "runs").exists() or not list((inputs / "runs").glob("*/checkpoint.json"))


def test_masked_words_need_text(inputs: Path) -> None:
    refused(call(inputs, "train", "--task", "mlm", "--data", "targets"), 2, "holds no text")
    refused(call(inputs, "train", "--task", "mlm", "--data", "missing.txt"), 2, "there is no missing.txt")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--valid", "data.tsv"], "--valid goes with --data"),
        (["--text-column", "sentence"], "--text-column goes with --data"),
        (["--label-column", "label"], "--label-column goes with --data"),
        (["--task", "mlm", "--data", "text.txt", "--label-column", "x"], "--label-column goes with labelled data"),
        (["--task", "mlm", "--data", "text.txt", "--second-column", "x"], "--second-column goes with labelled data"),
        (["--second-column", "label"], "--second-column goes with --data"),
        (["--data", "data.tsv", "--label-column", "labell"], "'labell'"),
        (["--data", "data.tsv", "--data", "./data.tsv"], "given twice"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_of_the_data_that_do_not_fit_are_refused(inputs: Path, arguments: list[str], said: str) -> None:
    refused(call(inputs, "train", *arguments), 2, said)


# -- spaces and devices ----------------------------------------------------------------------------------------------

SPACE = Path("space.toml")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "embedding"', 'name = "embeding"', "did you mean embedding?"),
        ("width = 32", "widht = 32", "did you mean width?"),
        ("choices = [1, 2]", "choices = [2, 1]", "rising order"),
        ("choices = [8, 16, 32]", "choices = [8, 16, 64]", "exceeds the width 32"),
        ("width = 32", 'width = "wide"', "is not a valid space"),
        ('family = "bert"', 'family = "gpt"', "the families are bert, translation"),
        ('family = "bert"', 'family = "translation"', "--task translate goes with it"),
        ('name = "made"', 'name = "../made"', "letters, digits"),
        ('name = "made"', 'name = ""', "letters, digits"),
        ('name = "made"', 'name = "made', "is not a valid space"),
        ('name = "made"\n', "\0", "is not a valid space"),
        ('name = "made"\n', "deep = " + "[" * 20_000, "is not a valid space"),
        ('name = "made"\n', "# " + "x" * (50 << 20) + "\n", "too large"),
    ],
    ids=lambda value: value[:20],
)
def test_a_space_that_is_none_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    inputs = write_inputs(tmp_path / "project")
    text = (inputs / SPACE).read_text()
    assert old in text
    (inputs / SPACE).write_text(text.replace(old, new, 1))
    refused(call(inputs, *CLASSIFY), 2, said)
    assert not (inputs / "runs").exists()


def test_a_space_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path / "project")
    (inputs / SPACE).write_bytes(b"\xef\xbb\xbf" + (inputs / SPACE).read_bytes())
    require(call(inputs, *CLASSIFY, "--updates", "1"))


def test_a_file_that_is_no_space_or_is_not_there(inputs: Path) -> None:
    refused(call(inputs, "train", "--data", "data.tsv", "--space", "data.tsv"), 2, "is not a valid space")
    refused(call(inputs, "train", "--data", "data.tsv", "--space", "no/space.toml"), 2, "there is no file")
    refused(call(inputs, "train", "--data", "data.tsv", "--space", "targets"), 2, "targets")


def test_a_shipped_space_of_another_family_names_the_task_it_goes_with(inputs: Path) -> None:
    for task, space, fitting in (("mlm", "hat-wmt", "translate"), ("translate", "supershaper", "classify")):
        arguments = ("train", "--task", task, "--data", "text.txt", "--space", space)
        refused(call(inputs, *arguments), 2, f"{space} is a space of family", f"--task {fitting}")
    assert not (inputs / "runs").exists()


def test_a_device_file_that_is_wrong_is_named(project: Path) -> None:
    path = project / "targets" / "quick.toml"
    path.write_text(path.read_text().replace("group = 4", "groups = 4"))
    refused(call(project, "profile", "--device", "quick"), 2, "groups", "targets/README.md")
    path.write_text(path.read_text().replace("groups = 4", "") + '[runtime]\nprovider = "NoneExecutionProvider"')
    refused(call(project, "profile", "--device", "quick", "--n", "11"), 4, "NoneExecutionProvider")
