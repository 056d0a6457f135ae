from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.errors import UsageError
from toolchain.files import sha256_bytes
from toolchain.text.corpus import collapse
from toolchain.text.parallel import ParallelCorpus, comparable, languages_of, read_parallel

from .conftest import result_or_refusal, sentences

ENGLISH = sentences(60)
GERMAN = [f"Satz {number}: der Fuchs mag den alten Hund ." for number in range(60)]


def _written(folder: Path, source: str, target: str, names: tuple[str, str] = ("train.en", "train.de")) -> list[Path]:
    paths = [folder / name for name in names]
    for path, text in zip(paths, (source, target), strict=True):
        data = text.encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return paths


def _lines(lines: list[str], end: str = "\n") -> str:
    return "".join(line + end for line in lines)


def _refused(paths: list[Path], *words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_parallel(paths)
    assert caught.value.hint
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("names", [("train.en", "train.de"), ("news.en-de.en.gz", "news.en-de.de.gz")])
def test_line_by_line(tmp_path: Path, names: tuple[str, str], end: str) -> None:
    paths = _written(tmp_path, _lines(ENGLISH, end), _lines(GERMAN, end).removesuffix(end), names)
    corpus = read_parallel(paths)
    assert corpus.sources == tuple(ENGLISH)
    assert corpus.targets == tuple(GERMAN)
    assert corpus.languages == ("en", "de")
    assert corpus.title == " and ".join(names)
    assert corpus.files == {path.name: sha256_bytes(path.read_bytes()) for path in paths}
    assert corpus.notes == ()


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    """str.splitlines would break at each of these, and every pair after it would be wrong."""
    odd = [f"A\u2028b\x0bc\x0cd\x1ce\x85f\u2029 g\rh  {number}\t. " for number in range(60)]
    corpus = read_parallel(_written(tmp_path, _lines(odd), _lines(GERMAN)))
    assert corpus.sources == tuple(f"A b c d e f g h {number} ." for number in range(60))
    assert corpus.targets == tuple(GERMAN)


def test_pairs_that_are_none_are_dropped_and_counted(tmp_path: Path) -> None:
    source = [*ENGLISH, "", "only here", " ", "short", "Yes", "x" * 91, "y" * 90]
    target = [*GERMAN, "nur hier", "\t", "", "z" * 60, "J" * 30, "w" * 10, "w" * 10]
    corpus = read_parallel(_written(tmp_path, _lines(source), _lines(target)))
    assert corpus.sources[60:] == ("Yes", "y" * 90)
    assert corpus.targets[60:] == ("J" * 30, "w" * 10)
    assert corpus.notes == (
        "3 pairs with an empty side left out",
        "2 pairs where one side is more than 9 times as long as the other left out",
    )


@pytest.mark.parametrize(
    ("names", "languages"),
    [
        ("train.en train.de", "en de"),
        ("train.EN train.DE", "source target"),
        ("train.en.gz train.de.GZ", "en de"),
        ("corpus.en-de.en corpus.en-de.de", "en de"),
        ("a.en.txt b.zh_Hans.txt.gz", "en zh_Hans"),
        ("a.pt-BR a.en", "pt-BR en"),
        ("train.src train.tgt", "source target"),
        ("source.txt target.txt", "source target"),
        ("en de", "source target"),
        (".en .de", "source target"),
        ("1.en 2.en", "source target"),
        ("train.en train.tgt", "source target"),
    ],
)
def test_languages_are_in_the_names(names: str, languages: str) -> None:
    source, target = names.split()
    assert languages_of(Path(source), Path("some.where") / target) == tuple(languages.split())


def test_files_that_are_not_parallel(tmp_path: Path) -> None:
    _refused(_written(tmp_path, _lines(ENGLISH), _lines(GERMAN[:-1])), "60 lines", "59", "not parallel")
    _refused(_written(tmp_path, _lines(ENGLISH) + "\n", _lines(GERMAN)), "61 lines", "60")


def test_what_cannot_be_read(tmp_path: Path) -> None:
    paths = _written(tmp_path, _lines(ENGLISH), _lines(GERMAN))
    _refused([], "0 were given")
    _refused(paths[:1], "1 were given")
    _refused([*paths, paths[0]], "3 were given")
    _refused([paths[0], paths[0]], "given twice")
    _refused([paths[0], tmp_path / "nowhere"], "there is no")
    _refused([paths[0], tmp_path], "folder")
    (tmp_path / "empty").write_text("\n\n")
    _refused([paths[0], tmp_path / "empty"], "is empty")
    (tmp_path / "latin").write_bytes(_lines(GERMAN).encode() + b"\xfc\n")
    _refused([paths[0], tmp_path / "latin"], "line 61", "not UTF-8")


def test_too_few_pairs(tmp_path: Path) -> None:
    source = ["" if number < 11 else text for number, text in enumerate(ENGLISH)]
    _refused(_written(tmp_path, _lines(source), _lines(GERMAN)), "49 pairs of lines", "50")
    assert len(read_parallel(_written(tmp_path, _lines(ENGLISH[:50]), _lines(GERMAN[:50]))).sources) == 50


def test_the_digest_knows_pairs_from_one_another() -> None:
    corpus = ParallelCorpus(("a", "b"), ("c", "d"), ("en", "de"), "made", {"made": "0" * 64})
    changes: list[dict[str, object]] = [
        {"sources": ("a", "x")},
        {"sources": ("ab", "")},
        {"sources": ("a", "b", "c"), "targets": ("d",)},
        {"targets": ("d", "c")},
        {"languages": ("de", "en")},
        {"files": {"made": "1" * 64}},
        {"files": {}},
        {"held_out_share": 0.2},
        {"held_out_limit": None},
    ]
    digests = {corpus.sha256, *(corpus._replace(**change).sha256 for change in changes)}  # type: ignore[arg-type]
    assert len(digests) == len(changes) + 1
    assert corpus._replace(title="other", notes=("said",)).sha256 == corpus.sha256


@given(source=st.binary(max_size=200), target=st.binary(max_size=200), copies=st.integers(0, 60))
def test_any_bytes_are_pairs_or_refused(
    tmp_path_factory: pytest.TempPathFactory, source: bytes, target: bytes, copies: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    paths = [folder / "a.en", folder / "a.de"]
    for path, data in zip(paths, (source, target), strict=True):
        path.write_bytes(data + b"\n" + b"the same\n" * copies)
    corpus = result_or_refusal(read_parallel, paths)
    if corpus is not None:
        assert len(corpus.sources) == len(corpus.targets) >= 50
        for pair in zip(corpus.sources, corpus.targets, strict=True):
            assert all(text == collapse(text) != "" for text in pair)
            assert comparable(*pair)


@pytest.mark.shared
def test_multi30k(shared: Path) -> None:
    corpus = read_parallel([shared / "multi30k" / "train.en.gz", shared / "multi30k" / "train.de.gz"])
    assert len(corpus.sources) == 28_998  # of 29,000: shared/data/multi30k/README.md
    assert corpus.languages == ("en", "de")
    assert corpus.sources[0] == "Two young, White males are outside near many bushes."
    assert corpus.targets[0] == "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche."
