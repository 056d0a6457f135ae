"""The example that ships is run as a stranger would: with the bundle and three libraries, and nothing of mostool."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

import toolchain.export
from toolchain.export import open_session, write_bundle
from toolchain.text import encode_texts, read_tokenizer
from toolchain.text.tokenizing import PAD

from .made_bundle import LONGEST, TEXTS, Ingredients

_GUARD = """
import runpy, sys

class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "toolchain", "onnx", "onnxscript", "safetensors", "msgspec", "sklearn"}:
            raise ImportError(f"{name} is not on a stranger's machine")

sys.meta_path.insert(0, Guard())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _bundle(tmp_path_factory.mktemp("classifier"), labels=3)


@pytest.fixture(scope="module")
def masked_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _bundle(tmp_path_factory.mktemp("masked"), labels=0)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _bundle(tmp_path_factory.mktemp("pairs"), labels=3, pairs=True)


def _bundle(folder: Path, labels: int, *, pairs: bool = False, numbers: bool = False) -> Path:
    made = Ingredients(folder, labels, pairs=pairs)
    manifest = msgspec.structs.replace(made.manifest, task="regress", labels=()) if numbers else made.manifest
    write_bundle(folder / "bundle", manifest, made.model, made.tokenizer, made.checks, made.examples)
    return folder / "bundle"


def run_example(bundle: Path, *texts: str) -> str:
    done = start_example(bundle, *texts)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def start_example(bundle: Path, *texts: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-c", _GUARD, str(bundle / "run_example.py"), *texts],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "LANG": "C"},
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=120,
    )


def logits_of(bundle: Path, text: str, second: str | None = None) -> np.ndarray:
    """What the model says of one text or pair alone, worked out here."""
    ids = encode_texts(read_tokenizer(bundle), [text], LONGEST, None if second is None else [second]).astype(np.int64)
    ids = ids[:, ids[0] != PAD]
    return open_session(bundle / "model.onnx", {}).run(None, {"input_ids": ids, "attention_mask": ids * 0 + 1})[0]


def scores(bundle: Path, text: str, second: str | None = None) -> np.ndarray:
    logits = logits_of(bundle, text, second)
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents[0] / exponents[0].sum(axis=-1, keepdims=True)


def answers_of(bundle: Path, *texts: str) -> list[dict[int, float]]:
    """What the example says of each item: its labels and their shares, likeliest first."""
    found = re.findall(r"^ +([\d.]+)% +label (\d)$", run_example(bundle, *texts), re.MULTILINE)
    shares = [(int(label), float(share) / 100) for share, label in found]
    return [dict(shares[start : start + 3]) for start in range(0, len(shares), 3)]


def test_given_texts_are_answered_as_the_model_answers_each(classifier: Path) -> None:
    """Several lengths in one batch, so most are padded, one longer than the model, one empty; no ASCII under LANG=C."""
    texts = ["the dog sees the sea .", "the fox", "the café, naïve — 猫", "the dog sees " * 50, ""]
    lines = run_example(classifier, *texts).splitlines()
    assert [line for line in lines if not line.startswith("  ")] == texts
    answers = answers_of(classifier, *texts)
    assert len(answers) == len(texts)
    for text, found in zip(texts, answers, strict=True):
        assert found == pytest.approx(dict(enumerate(scores(classifier, text))), abs=1e-3)
        assert list(found.values()) == sorted(found.values(), reverse=True)


def test_special_tokens_in_a_text_are_text(classifier: Path) -> None:
    (found,) = answers_of(classifier, "the [SEP] sees [PAD] the [MASK]")
    assert found == pytest.approx(dict(enumerate(scores(classifier, "the [SEP] sees [PAD] the [MASK]"))), abs=1e-3)


def test_pairs_are_taken_two_by_two(pairs: Path) -> None:
    """Each as the model reads it: both short, either or both longer than there is room for, one empty."""
    long = "the dog sees " * 20
    texts = [*TEXTS[:2], TEXTS[0], long, long, TEXTS[1], long, f"{long} fox", "", TEXTS[3]]
    lines = run_example(pairs, *texts).splitlines()
    assert [line for line in lines if not line.startswith("  ")] == texts
    for (first, second), found in zip(
        zip(texts[::2], texts[1::2], strict=True), answers_of(pairs, *texts), strict=True
    ):
        assert found == pytest.approx(dict(enumerate(scores(pairs, first, second))), abs=1e-3)
    lines = run_example(pairs).splitlines()
    assert [line for line in lines if not line.startswith("  ")] == [TEXTS[0], TEXTS[2], TEXTS[1], TEXTS[3]]


def test_half_a_pair_is_refused_in_words(pairs: Path) -> None:
    for texts in (TEXTS[:1], TEXTS[:3]):
        done = start_example(pairs, *texts)
        assert done.returncode == 1
        assert done.stderr.startswith("this model reads pairs of texts: python run_example.py")
        assert not done.stdout


def test_a_number_is_answered_with_a_number(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path, labels=1, numbers=True)
    lines = run_example(bundle, *TEXTS[:3]).splitlines()
    assert lines[::2] == TEXTS[:3]
    expected = [logits_of(bundle, text)[0, 0] for text in TEXTS[:3]]
    assert [float(line) for line in lines[1::2]] == pytest.approx(expected, rel=1e-3)


def test_given_none_it_runs_on_the_examples(classifier: Path) -> None:
    lines = run_example(classifier).splitlines()
    assert [line for line in lines if not line.startswith("  ")] == TEXTS[:2]


def test_masked_words_are_filled_in(masked_words: Path) -> None:
    assert re.search(r"\[MASK\] = \S+ \(\d+\.\d%\), \S+ \(\d+\.\d%\), \S+ \(", run_example(masked_words))
    lines = run_example(masked_words, "the [MASK] sees the [MASK] .", "no word is hidden").splitlines()
    assert [line.startswith("  [MASK] = ") for line in lines] == [False, True, True, False]


def test_what_the_guard_keeps_out_is_kept_out(tmp_path: Path) -> None:
    (tmp_path / "run_example.py").write_text("import torch")
    with pytest.raises(AssertionError, match="stranger"):
        run_example(tmp_path)


@pytest.mark.parametrize("script", ["run_example.py", "run_translation.py"])
def test_a_python_without_its_packages_is_told_what_it_needs(script: str) -> None:
    path = Path(toolchain.export.__path__[0]) / script
    done = subprocess.run([sys.executable, "-S", "-I", path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "No module named 'numpy'; it needs three packages: pip install numpy onnxruntime tokenizers\n"
