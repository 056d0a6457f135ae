from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toolchain.errors import UsageError
from toolchain.progress import Progress
from toolchain.text import Corpus, data_digest, split_corpus
from toolchain.text.hub import read_hub

from .conftest import sentences

ROWS = [{"sentence": text, "label": ("bad", "good")[i % 2]} for i, text in enumerate(sentences(160))]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The `datasets` library, kept from the network and from the user's cache."""
    found = pytest.importorskip("datasets", reason="datasets is not installed: pip install 'mostool[hf]'")
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            patch.setenv(name, "1")
            patch.setattr(found.config, name, True)
        for name in ("HF_DATASETS_CACHE", "HF_MODULES_CACHE"):
            patch.setenv(name, str(cache))
            patch.setattr(found.config, name, cache)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        yield found


Writer = Callable[..., str]


@pytest.fixture
def folder(library: Any, tmp_path: Path) -> Writer:
    """Writes splits as files of a folder, and gives its name."""

    def write(kind: str = "jsonl", **splits: list[dict[str, Any]]) -> str:
        place = tmp_path / "mine"
        place.mkdir(exist_ok=True)
        for name, rows in splits.items():
            data = library.Dataset.from_list(rows)
            path = place / f"{name}.{kind}"
            {"jsonl": data.to_json, "csv": data.to_csv, "parquet": data.to_parquet}[kind](str(path))
        return f"hf:{place}"

    return write


def _named(library: Any, monkeypatch: pytest.MonkeyPatch, known: dict[tuple[str, str | None], Any]) -> list[Any]:
    """Data sets that `load_dataset` knows by name and configuration; what it was asked for."""
    asked = []

    def load_dataset(path: str, name: str | None = None, **settings: Any) -> Any:
        assert not settings  # no code of a data set is ever allowed
        asked.append((path, name))
        if (path, name) not in known:
            raise library.exceptions.DatasetNotFoundError(f"Dataset '{path}' doesn't exist on the Hub")
        found = known[path, name]
        if isinstance(found, Exception):
            raise found
        return library.DatasetDict(found)

    monkeypatch.setattr(library, "load_dataset", load_dataset)
    return asked


def _classes(library: Any, names: list[str], labels: list[int], **columns: list[Any]) -> Any:
    features = {name: library.Value("string") for name in columns} | {"label": library.ClassLabel(names=names)}
    return library.Dataset.from_dict({**columns, "label": labels}, features=library.Features(features))


def _pairs(corpus: Corpus) -> list[tuple[str, str]]:
    return [(text, corpus.label_names[label]) for text, label in zip(corpus.texts, corpus.labels or (), strict=True)]


def _refused(name: str, *words: str, **asked: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_hub(name, **asked)
    error = caught.value
    assert error.hint
    for word in words:
        assert word in f"{error.what} {error.why} {error.hint}"
    return error


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the library leaves csv files open
@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_folder_of_files(folder: Writer, kind: str) -> None:
    steps: list[Progress] = []
    corpus, held_out = read_hub(folder(kind, train=ROWS[:100], validation=ROWS[100:]), listener=steps.append)
    assert held_out is not None
    assert _pairs(corpus) + _pairs(held_out) == [(row["sentence"], row["label"]) for row in ROWS]
    assert (corpus.title, held_out.title) == ("hf:mine, train", "hf:mine, validation")
    assert [list(one.files) for one in (corpus, held_out)] == [[corpus.title], [held_out.title]]
    assert corpus.notes == held_out.notes == ()
    assert [step.done for step in steps] == [0, 1]
    split_corpus(corpus, seed=0, held_out=held_out)


def test_what_is_read_decides_the_digest(folder: Writer) -> None:
    def digest(rows: list[dict[str, Any]]) -> str:
        corpus, _ = read_hub(folder(train=rows))
        return data_digest(corpus, task="classify", sequence_length=16, vocabulary_size=300, seed=0)

    first = digest(ROWS[:100])
    assert digest(ROWS[:100]) == first != digest(ROWS[:99])


def test_pairs_and_values(folder: Writer) -> None:
    rows = [
        {"sentence1": row["sentence"], "sentence2": f"b {i}", "label": i / 4, "idx": i} for i, row in enumerate(ROWS)
    ]
    corpus, held_out = read_hub(folder("parquet", train=rows[:100], validation=rows[100:]), numeric=True)
    assert held_out is not None
    assert (corpus.seconds or ()) + (held_out.seconds or ()) == tuple(f"b {i}" for i in range(160))
    assert (corpus.values or ()) + (held_out.values or ()) == tuple(i / 4 for i in range(160))
    assert corpus.labels is None


def test_columns_can_be_named(folder: Writer) -> None:
    name = folder(train=[{"a": row["sentence"], "b": f"b {i}", "c": i % 3} for i, row in enumerate(ROWS)])
    _refused(name, "hf:mine, train", "'a', 'b', 'c'", "--text-column")
    _refused(name, "no column 'd'", text_column="a", label_column="c", second_column="d")
    corpus, held_out = read_hub(name, "a", "c", "b")
    assert held_out is None
    assert corpus.seconds == tuple(f"b {i}" for i in range(160))
    assert corpus.label_names == ("0", "1", "2")


def test_class_numbers_become_names_in_their_order(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names, texts = ["not_equivalent", "equivalent"], sentences(100)
    train = _classes(library, names, [0, 1] * 50, sentence1=texts, sentence2=texts)
    other = _classes(library, names, [1, 0] * 50, sentence1=texts[::-1], sentence2=texts)
    hidden = _classes(library, names, [-1] * 100, sentence1=texts, sentence2=texts)
    splits = {"train": train, "validation": other, "test": hidden}
    asked = _named(library, monkeypatch, {("nyu-mll/glue", "mrpc"): splits})
    corpus, held_out = read_hub("hf:glue/mrpc")
    assert asked == [("nyu-mll/glue", "mrpc")]
    assert held_out is not None
    assert corpus.label_names == held_out.label_names == ("not_equivalent", "equivalent")
    assert corpus.labels == (0, 1) * 50
    assert held_out.labels == (1, 0) * 50
    assert (corpus.title, held_out.title) == ("hf:glue/mrpc, train", "hf:glue/mrpc, validation")
    _refused("hf:glue/mrpc", "row 1:", "'not_equivalent'", "finite number", numeric=True)


@pytest.mark.parametrize(
    ("name", "place", "asked"),
    [
        ("hf:imdb", ("imdb", None), [("imdb", None)]),
        ("hf:who/what", ("who/what", None), [("who/what", None)]),
        ("hf:what/part", ("what", "part"), [("what/part", None), ("what", "part")]),
        ("hf:who/what/part", ("who/what", "part"), [("who/what", "part")]),
        ("who/what", ("who/what", None), [("who/what", None)]),
    ],
)
def test_names(
    library: Any, monkeypatch: pytest.MonkeyPatch, name: str, place: tuple[str, str | None], asked: list[Any]
) -> None:
    seen = _named(library, monkeypatch, {place: {"train": library.Dataset.from_list(ROWS)}})
    corpus, held_out = read_hub(name)
    assert seen == asked
    assert held_out is None
    assert len(corpus.texts) == 160


def test_what_is_held_out(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names, texts = ["a", "b"], sentences(120)

    def split(labels: list[int]) -> Any:
        return _classes(library, names, labels, text=texts[: len(labels)])

    labelled, few, hidden = split([0, 1] * 40), split([0, 1] * 10), split([-1] * 90)
    for splits, expected, notes in (
        ({"validation": labelled, "test": labelled}, "validation", ()),
        ({"validation_matched": labelled, "validation_mismatched": labelled}, "validation_matched", ()),
        ({"test": labelled}, "test", ()),
        ({"test": hidden}, None, ("hf:who/what, test: left aside, 0 of its rows have text and label",)),
        ({"validation": few}, None, ("hf:who/what, validation: left aside, 20 of its rows have text and label",)),
        (
            {"validation": few, "test": labelled},
            "test",
            ("hf:who/what, validation: left aside, 20 of its rows have text and label",),
        ),
        (
            {"test": labelled.remove_columns("label")},
            None,
            ("hf:who/what, test: left aside, 0 of its rows have text and label",),
        ),
        ({"unsupervised": hidden}, None, ()),
    ):
        _named(library, monkeypatch, {("who/what", None): {"train": labelled, **splits}})
        corpus, held_out = read_hub("hf:who/what")
        assert (held_out and held_out.title) == (expected and f"hf:who/what, {expected}")
        assert corpus.notes == notes


def test_rows_that_lack_a_part_are_dropped_and_counted(folder: Writer) -> None:
    lacking = [{"sentence": None, "label": "bad"}, {"sentence": " ", "label": "bad"}, {"sentence": "a", "label": None}]
    corpus, _ = read_hub(folder(train=ROWS + lacking))
    assert len(corpus.texts) == 160
    assert corpus.notes == ("hf:mine, train: 3 rows without text or label left out",)


def test_data_that_cannot_be_learned_from(folder: Writer) -> None:
    _refused(folder(train=ROWS[:40]), "too little text", "40 rows")
    _refused(folder(train=[row | {"label": "good"} for row in ROWS]), "only one label", "hf:mine, train")
    _refused(folder(train=[{"sentence": ["a", "b"], "label": 1}] * 60), "row 1:", "'sentence'", "list")
    _refused(folder(train=ROWS), "row 1:", "'bad'", numeric=True)


def test_values_that_are_no_finite_numbers(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [row | {"label": i / 2} for i, row in enumerate(ROWS)]
    for value in (float("inf"), float("nan"), 1e39):
        data = library.Dataset.from_list([*values, {"sentence": "a", "label": value}])
        _named(library, monkeypatch, {("who/what", None): {"train": data}})
        _refused("hf:who/what", "row 161:", f"'{value}'", numeric=True)


def test_splits_without_train(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = library.Dataset.from_list(ROWS)
    _named(library, monkeypatch, {("who/what", None): {"one": data, "test": data}, ("only", None): {"one": data}})
    _refused("hf:who/what", "no train split", "one, test")
    assert read_hub("hf:only")[0].title == "hf:only, one"


@pytest.mark.parametrize("name", ["hf:", "hf:a b", "hf:a/b/c/d", "hf:a//b", "hf:a\0b", "hf:" + "a/" * 3000, "hf:-x"])
def test_names_that_are_none(library: Any, name: str) -> None:
    _refused(name, "is not the name of a data set")


@pytest.mark.parametrize("name", ["hf:/no/where", "hf:./nowhere", "hf:~nobody/x", "hf:../nowhere"])
def test_folders_that_are_not_there(library: Any, name: str) -> None:
    _refused(name, "there is no folder")


@pytest.mark.parametrize("name", ["hf:csv", "hf:json", "hf:text"])
def test_a_format_is_no_name(library: Any, name: str) -> None:
    """`load_dataset("csv")` would read the files of the working directory."""
    _refused(name, "is a format of files")


@pytest.mark.parametrize("name", ["hf:imdb", "hf:glue/mrpc", "hf:who/what", "hf:who/what/part"])
def test_no_network(library: Any, name: str) -> None:
    _refused(name, f"{name} cannot be fetched", "network")


def test_data_sets_that_are_not_there_or_not_readable(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _named(library, monkeypatch, {("glue", None): ValueError("Config name is missing.\nPick one: ['cola', 'mrpc']")})
    _refused("hf:who/what", "there is no data set hf:who/what", "doesn't exist")
    _refused("hf:glue", "cannot be read", "Config name is missing. Pick one: ['cola', 'mrpc']", "hf:glue/mrpc")


def test_folders_that_cannot_be_read(folder: Writer, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    _refused(f"hf:{tmp_path / 'empty'}", "hf:empty cannot be read")
    name = folder(train=ROWS)
    (tmp_path / "mine" / "train.jsonl").write_text(json.dumps(ROWS[0]) + "\n{")
    _refused(name, "hf:mine cannot be read")


def test_code_that_comes_with_the_data_is_not_run(library: Any, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.py").write_text(f"open({str(mark)!r}, 'w')")
    _refused(f"hf:{tmp_path / 'mine'}", "cannot be read")
    assert not mark.exists()


def test_the_library_is_missing_or_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    _refused("hf:imdb", "datasets library", "pip install 'mostool[hf]'")
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(__version__="3.6.0"))
    _refused("hf:imdb", "datasets 3.6.0 is too old", "pip install 'mostool[hf]'")
