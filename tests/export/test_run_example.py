"""The example that ships is run as a stranger would: with the bundle and three libraries, and nothing of mostool."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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


def _bundle(folder: Path, labels: int) -> Path:
    made = Ingredients(folder, labels)
    write_bundle(folder / "bundle", made.manifest, made.model, made.tokenizer, made.checks, made.examples)
    return folder / "bundle"


def run_example(bundle: Path, *texts: str) -> str:
    done = subprocess.run(
        [sys.executable, "-I", "-c", _GUARD, str(bundle / "run_example.py"), *texts],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "LANG": "C"},
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def scores(bundle: Path, text: str) -> np.ndarray:
    """What the model says of one text alone, worked out here."""
    ids = encode_texts(read_tokenizer(bundle), [text], LONGEST).astype(np.int64)
    ids = ids[:, ids[0] != PAD]
    logits = open_session(bundle / "model.onnx", {}).run(None, {"input_ids": ids, "attention_mask": ids * 0 + 1})[0]
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents[0] / exponents[0].sum(axis=-1, keepdims=True)


def test_given_texts_are_answered_as_the_model_answers_each(classifier: Path) -> None:
    """Several lengths in one batch, so most are padded, one longer than the model, one empty; no ASCII under LANG=C."""
    texts = ["the dog sees the sea .", "the fox", "the café, naïve — 猫", "the dog sees " * 50, ""]
    lines = run_example(classifier, *texts).splitlines()
    assert [line for line in lines if not line.startswith("  ")] == texts
    answers = re.findall(r"^ +([\d.]+)% +label (\d)$", "\n".join(lines), re.MULTILINE)
    assert len(answers) == 15
    for row, text in enumerate(texts):
        expected = scores(classifier, text)
        found = {int(label): float(share) / 100 for share, label in answers[3 * row : 3 * row + 3]}
        assert found == pytest.approx(dict(enumerate(expected)), abs=1e-3)
        assert list(found.values()) == sorted(found.values(), reverse=True)


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
