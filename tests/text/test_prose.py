from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from toolchain.errors import UsageError
from toolchain.progress import Progress
from toolchain.text import Corpus, read_prose
from toolchain.text import prose as built_in
from toolchain.text.corpus import same_text_key
from toolchain.text.prose import FEWEST_SENTENCES, LABELS, MOST_SENTENCES


def _package(name: str, *docstrings: str) -> built_in._Package:
    return built_in._Package(name, docstrings, f"digest of {name}", 1)


def test_this_python_has_enough(prose: Corpus) -> None:
    assert 3000 <= len(prose.texts) <= MOST_SENTENCES
    assert prose.labels is not None
    counts = Counter(prose.labels)
    assert len(prose.label_names) == len(counts) == LABELS
    assert max(counts.values()) < 0.4 * len(prose.texts)
    assert list(prose.label_names) == sorted(prose.label_names)
    assert set(prose.label_names) <= sys.stdlib_module_names


def test_no_sentence_occurs_twice(prose: Corpus) -> None:
    assert len({same_text_key(text) for text in prose.texts}) == len(prose.texts)


def test_a_docstring_has_one_label(prose: Corpus) -> None:
    assert prose.groups is not None
    assert prose.labels is not None
    label_of: dict[int, int] = {}
    for group, label in zip(prose.groups, prose.labels, strict=True):
        assert label_of.setdefault(group, label) == label
    assert len(label_of) < len(prose.texts)
    assert set(prose.groups) == set(range(len(label_of)))


def test_nothing_of_this_machine_is_in_it(prose: Corpus) -> None:
    everything = repr(prose)
    for place in (sys.prefix, sys.base_prefix, str(Path.home()), "site-packages", "test."):
        assert place not in " ".join((*prose.files, *prose.notes, prose.title))
    assert sys.base_prefix not in everything
    assert set(prose.files) == {*prose.label_names, "other packages"}
    assert all(len(digest) == 64 for digest in prose.files.values())


def test_another_process_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    names = "asyncio unittest email multiprocessing xml importlib logging http urllib"  # Debian keeps tkinter apart
    code = (
        f"import sys; sys.stdlib_module_names = frozenset({names!r}.split())\n"
        "from toolchain.text import read_prose; print(read_prose().sha256)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    monkeypatch.setattr(built_in.sys, "stdlib_module_names", frozenset(names.split()))
    assert done.stdout.strip() == read_prose().sha256


def test_tests_and_faulty_files_are_not_read(tmp_path: Path) -> None:
    files = {
        "pkg/__init__.py": '"""The package says what it is."""',
        "pkg/b.py": 'class A:\n    """A class that does things."""\n    def f(self):\n        "A method of that."',
        "pkg/a.py": "# -*- coding: latin-1 -*-\n'''Caf\xe9 au lait for all of us.'''",
        "pkg/tests/t.py": '"""Never read this at all."""',
        "pkg/site-packages/s.py": '"""Never read this at all."""',
        "pkg/broken.py": '"""Never read this at all."""\nprint "old"',
        "pkg/nul.py": '"""Never read\0 this."""',
        "pkg/empty.py": "",
        "single.py": 'async def f():\n    """A module in one file."""',
        "pkg/folder.py/x.md": "a folder with the name of a source",
        "other.py": '"""Not asked for at all."""',
    }
    for name, source in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(source.encode("latin-1"))
    steps: list[Progress] = []
    packages = built_in._source_packages(tmp_path, ["absent", "pkg", "single"], steps.append)
    assert [(package.name, package.docstrings) for package in packages] == [
        (
            "pkg",
            (
                "The package says what it is.",
                "Café au lait for all of us.",
                "A class that does things.",
                "A method of that.",
            ),
        ),
        ("single", ("A module in one file.",)),
    ]
    assert [(step.done, step.total) for step in steps] == [(1, 3), (2, 3), (3, 3)]
    (tmp_path / "pkg" / "broken.py").write_text("1")
    assert built_in._source_packages(tmp_path, ["pkg"], steps.append)[0].sha256 != packages[0].sha256


def test_a_sentence_of_two_packages_is_left_out_of_both() -> None:
    found = built_in._distinct_sentences(
        [
            _package("one", "A sentence that both have.", "A sentence of one alone.", "A SENTENCE of one alone."),
            _package("two", "Another one of two alone.\n\nA sentence that\nboth have."),
        ]
    )
    assert [(sentence.text, sentence.label) for sentence in found] == [
        ("A sentence of one alone.", "one"),
        ("Another one of two alone.", "two"),
    ]


def test_the_draw_is_in_proportion() -> None:
    texts = [f"The reader finds {'x' * (1 + i % 80)}{'y' * (i // 80)} there." for i in range(8000)]
    packages = [_package("large", *texts[:6000]), _package("small", *texts[6000:])]
    corpus = built_in.prose_of(packages, [])
    assert corpus.labels is not None
    assert corpus.notes[-1] == "5000 of 8000 distinct sentences, from 2 packages"
    assert Counter(corpus.labels) == {0: 3750, 1: 1250}


def test_too_few_docstrings() -> None:
    with pytest.raises(UsageError, match="too few docstrings") as caught:
        built_in.prose_of([_package("one", "A sentence of one alone."), _package("two", "Another one of two.")], [])
    assert str(FEWEST_SENTENCES) in caught.value.why
    assert "--data" in caught.value.hint


def test_imported_modules_are_the_fallback(tmp_path: Path) -> None:
    """A Python whose sources are elsewhere (in a zip, say): run-time docstrings, in a process of their own."""
    code = (
        "import sysconfig, sys\n"
        f"sysconfig.get_path = lambda name: {str(tmp_path)!r}\n"
        "from toolchain.text import read_prose\n"
        "corpus = read_prose()\n"
        "assert 'imported modules' in corpus.notes[0], corpus.notes\n"
        "assert 'this' not in sys.modules and 'antigravity' not in sys.modules\n"
        "print(len(corpus.texts), len(corpus.label_names))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    count, labels = map(int, done.stdout.split())
    assert count >= FEWEST_SENTENCES
    assert labels == LABELS


def test_neither_sources_nor_docstrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built_in.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setattr(built_in.sys, "stdlib_module_names", frozenset({"json", "no_such_module"}))
    with pytest.raises(UsageError, match="too few docstrings"):
        read_prose()
