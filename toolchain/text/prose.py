"""The built-in text: sentences of the docstrings of Python's standard library, labelled by package.

Read where mostool runs, from the user's own Python: real English that needs no download. Sources are parsed, never
imported. See README.md for what is left out and why.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import pkgutil
import platform
import sys
import sysconfig
import types
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolchain.errors import UsageError
from toolchain.files import sha256_bytes
from toolchain.progress import Progress, ProgressListener, silent
from toolchain.text.corpus import Corpus, same_text_key
from toolchain.text.sentences import read_sentences

LABELS = 10
MOST_SENTENCES = 5000
FEWEST_SENTENCES = 1000
_SEED = 20240229
_HELD_OUT_SHARE = 0.15
_STAGE = "reading docstrings"
_REST = "other packages"

_NO_PROSE = {"antigravity", "this", "idlelib", "turtledemo", "test", "pydoc_data", "ensurepip"}
_NO_PROSE_BELOW = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "__main__"}


class _Package(NamedTuple):
    """The docstrings of one top-level package, and one digest over the files they were read from."""

    name: str
    docstrings: tuple[str, ...]
    sha256: str
    files: int


class _Sentence(NamedTuple):
    text: str
    label: str
    group: int


def read_prose(listener: ProgressListener = silent) -> Corpus:
    """The docstrings' sentences, labelled with the LABELS packages that have most of them.

    At most MOST_SENTENCES, drawn in proportion with a fixed seed; a sentence's group is its docstring. A sentence that
    occurs under two packages is left out of both, one that repeats under one package is kept once. The same Python
    gives the same corpus. Where the sources are not installed, the run-time docstrings are read instead and a note
    says so.

    Raises:
        UsageError: this Python holds fewer than FEWEST_SENTENCES sentences either way.
    """
    names = sorted(name for name in sys.stdlib_module_names if not name.startswith("_") and name not in _NO_PROSE)
    packages = _source_packages(Path(sysconfig.get_path("stdlib")), names, listener)
    notes = [f"docstrings of {sum(package.files for package in packages)} source files, parsed and not imported"]
    if len(_distinct_sentences(packages)) < FEWEST_SENTENCES:
        packages = _imported_packages(names, listener)
        notes = ["this Python comes without its sources: the docstrings were read from the imported modules"]
    return prose_of(packages, notes)


def prose_of(packages: Sequence[_Package], notes: Iterable[str]) -> Corpus:
    """The corpus of some packages' docstrings.

    Raises:
        UsageError: fewer than FEWEST_SENTENCES sentences.
    """
    sentences = _distinct_sentences(packages)
    counts: dict[str, int] = {}
    for sentence in sentences:
        counts[sentence.label] = counts.get(sentence.label, 0) + 1
    largest = sorted(counts, key=lambda name: (-counts[name], name))[:LABELS]
    kept = [sentence for sentence in sentences if sentence.label in largest]
    if len(kept) < FEWEST_SENTENCES or len(largest) < 2:
        raise UsageError(
            "this Python's standard library holds too few docstrings for the built-in text",
            why=f"{len(kept)} sentences, at least {FEWEST_SENTENCES} are needed",
            hint="give your own text with --data, or run mostool with a Python that has its docstrings (no -OO)",
        )
    drawn = _draw(kept, {name: counts[name] for name in largest})
    names = tuple(sorted(largest))
    groups = {group: number for number, group in enumerate(dict.fromkeys(sentence.group for sentence in drawn))}
    return Corpus(
        texts=tuple(sentence.text for sentence in drawn),
        labels=tuple(names.index(sentence.label) for sentence in drawn),
        label_names=names,
        groups=tuple(groups[sentence.group] for sentence in drawn),
        title=f"docstrings of the Python {platform.python_version()} standard library",
        files=_digests(packages, names),
        notes=(*notes, f"{len(drawn)} of {len(sentences)} distinct sentences, from {len(names)} packages"),
        held_out_share=_HELD_OUT_SHARE,
        held_out_limit=None,
    )


# -- sentences ---------------------------------------------------------------------------------------------------------


def _distinct_sentences(packages: Sequence[_Package]) -> list[_Sentence]:
    """Every sentence that occurs under one package alone, once."""
    first: dict[str, _Sentence] = {}
    shared: set[str] = set()
    group = 0
    for package in packages:
        for docstring in package.docstrings:
            group += 1
            for text in read_sentences(docstring):
                key = same_text_key(text)
                known = first.setdefault(key, _Sentence(text, package.name, group))
                if known.label != package.name:
                    shared.add(key)
    return [sentence for key, sentence in first.items() if key not in shared]


def _draw(sentences: list[_Sentence], counts: dict[str, int]) -> list[_Sentence]:
    """At most MOST_SENTENCES of them in their order, each package in proportion (largest remainders first)."""
    total = sum(counts.values())
    if total <= MOST_SENTENCES:
        return sentences
    shares = {name: count * MOST_SENTENCES / total for name, count in counts.items()}
    quota = {name: int(share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: (quota[name] - shares[name], name))
    for name in by_remainder[: MOST_SENTENCES - sum(quota.values())]:
        quota[name] += 1
    rng = np.random.default_rng(_SEED)
    chosen: set[int] = set()
    for name in sorted(counts):
        own = [number for number, sentence in enumerate(sentences) if sentence.label == name]
        chosen.update(int(number) for number in rng.choice(own, size=quota[name], replace=False))
    return [sentences[number] for number in sorted(chosen)]


def _digests(packages: Sequence[_Package], chosen: Sequence[str]) -> dict[str, str]:
    """One digest per chosen package, and one over all others: they were read too, and decided which were chosen."""
    rest = "".join(f"{package.name} {package.sha256}\n" for package in packages if package.name not in chosen)
    named = {package.name: package.sha256 for package in packages if package.name in chosen}
    return named | {_REST: sha256_bytes(rest.encode())}


# -- from sources ------------------------------------------------------------------------------------------------------


def _source_packages(folder: Path, names: Sequence[str], listener: ProgressListener) -> list[_Package]:
    packages = []
    for done, name in enumerate(names, start=1):
        files = 0
        docstrings: list[str] = []
        digest = hashlib.sha256()
        for path in _source_files(folder, name):
            try:
                source = path.read_bytes()
            except OSError:  # not ours to read: as if it were not installed
                continue
            files += 1
            digest.update(f"{path.relative_to(folder).as_posix()} {sha256_bytes(source)}\n".encode())
            docstrings.extend(_parse_docstrings(source))
        if files:
            packages.append(_Package(name, tuple(docstrings), digest.hexdigest(), files))
        listener(Progress(_STAGE, done, len(names), name))
    return packages


def _source_files(folder: Path, name: str) -> Iterator[Path]:
    """The sources of a top-level module or package without its tests, in a fixed order."""
    module, package = folder / f"{name}.py", folder / name
    candidates = [module] if module.is_file() else sorted(package.rglob("*.py")) if package.is_dir() else []
    for path in candidates:
        below = path.relative_to(folder).with_suffix("").parts
        if not _NO_PROSE_BELOW.intersection(below[1:]):
            yield path


def _parse_docstrings(source: bytes) -> Iterator[str]:
    """The docstrings of a source file, in order; none where it does not parse (templates, old syntax)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring


# -- from the running interpreter --------------------------------------------------------------------------------------


def _imported_packages(names: Sequence[str], listener: ProgressListener) -> list[_Package]:
    """The same from `__doc__` of imported modules: all there is where Python comes without its sources."""
    packages = []
    for done, name in enumerate(names, start=1):
        modules = list(_import_modules(name))
        docstrings = tuple(dict.fromkeys(text for module in modules for text in _module_docstrings(module)))
        if docstrings:
            packages.append(_Package(name, docstrings, sha256_bytes("\0".join(docstrings).encode()), len(modules)))
        listener(Progress(_STAGE, done, len(names), name))
    return packages


def _import_modules(name: str) -> Iterator[types.ModuleType]:
    """A module and the modules below it, as far as they can be imported on this machine."""
    if name.rpartition(".")[2] in _NO_PROSE_BELOW:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module = importlib.import_module(name)
        except (ImportError, AttributeError, OSError, RuntimeError, ValueError):  # made for another system
            return
    yield module
    for below in sorted(found.name for found in pkgutil.iter_modules(getattr(module, "__path__", []))):
        yield from _import_modules(f"{name}.{below}")


def _module_docstrings(module: types.ModuleType) -> Iterator[str]:
    """The docstrings of a module, its own classes and functions, and their methods, in order of name."""
    owners: list[object] = [module]
    for owner in owners:
        docstring = vars(owner).get("__doc__")
        if isinstance(docstring, str):
            yield inspect.cleandoc(docstring)
        for _, member in sorted(vars(owner).items()):
            if inspect.isclass(member) and member.__module__ == module.__name__ and member not in owners:
                owners.append(member)
            elif inspect.isroutine(member) and getattr(member, "__module__", module.__name__) == module.__name__:
                text = getattr(member, "__doc__", None)
                if isinstance(text, str):
                    yield inspect.cleandoc(text)
