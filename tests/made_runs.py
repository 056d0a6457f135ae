"""Trained runs to judge subnets of: a few seconds each, with as many held-out texts as a search looks at."""

from __future__ import annotations

import functools
import random
from pathlib import Path

import pytest
from made_project import TRAINING, call, require, sentences, write_inputs

from toolchain.pipeline.runs import Run
from toolchain.space import Architecture

_PAIRS = 200
_HARDLY = ("--updates", "8", "--evaluate-every", "8", "--warmup-updates", "2")
"""What is asked of these runs is not whether they have learnt."""

_TRANSLATION_SPACE = """\
name = "made"
family = "translation"

[fixed]
width = 32
attention = 32
"""
_TRANSLATION_AXES = {
    "encoder_embedding": ([16, 32], None),
    "decoder_embedding": ([32], None),
    "encoder_depth": ([1], None),
    "decoder_depth": ([1], None),
    "encoder_ffn": ([32, 64], "encoder_depth"),
    "encoder_heads": ([2, 4], "encoder_depth"),
    "decoder_ffn": ([32, 64], "decoder_depth"),
    "decoder_heads": ([4], "decoder_depth"),
    "cross_heads": ([4], "decoder_depth"),
    "cross_layers": ([1], "decoder_depth"),
}


def make_run(root: Path, task: str) -> Path:
    """The folder of a trained run of a task."""
    write_inputs(root)
    given = {"classify": _write_labelled, "regress": _write_numbers, "translate": _write_pairs, "mlm": _write_text}
    require(call(root, "train", "--task", task, *given[task](root), "--out", "runs/made"))
    return root / "runs" / "made"


def _write_labelled(root: Path) -> tuple[str, ...]:
    items = sentences(1000, seed=5)
    (root / "held-out.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in [("sentence", "label"), *items]))
    return "--data", "data.tsv", "--valid", "held-out.tsv", *TRAINING, "--updates", "60", "--evaluate-every", "60"


def _write_numbers(root: Path) -> tuple[str, ...]:
    rows = [(text, str(len(text) / 7)) for text, _ in sentences(300)]
    (root / "numbers.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in [("sentence", "length"), *rows]))
    return "--data", "numbers.tsv", "--text-column", "sentence", "--label-column", "length", *TRAINING, *_HARDLY


def _write_text(root: Path) -> tuple[str, ...]:
    for name, count, seed in (("text.txt", 300, 0), ("held-out.txt", 600, 5)):
        (root / name).write_text("\n\n".join(f"{text}." for text, _ in sentences(count, seed)) + "\n")
    return "--data", "text.txt", "--valid", "held-out.txt", *TRAINING, *_HARDLY


def _write_pairs(root: Path) -> tuple[str, ...]:
    axes = [
        f'[[axes]]\nname = "{name}"\nchoices = {choices}\n' + (f'per = "{per}"\n' if per else "")
        for name, (choices, per) in _TRANSLATION_AXES.items()
    ]
    (root / "space.toml").write_text("\n".join([_TRANSLATION_SPACE, *axes]))
    rng = random.Random(0)  # noqa: S311 - words, not secrets
    words = [f"{one}{two}" for one in "bdfgkl" for two in "aeiou"]
    for name, count in (("text", _PAIRS), ("held-out", 2 * _PAIRS)):
        lines = [" ".join(rng.choices(words, k=rng.randint(2, 6))) for _ in range(count)]
        (root / f"{name}.xa").write_text("".join(f"{line}\n" for line in lines))
        (root / f"{name}.xb").write_text("".join(f"{line.upper()}\n" for line in lines))
    sizes = ("--space", "space.toml", "--batch-size", "16", "--sequence-length", "24", "--vocabulary-size", "320")
    held_out = ("--valid", "held-out.xa", "--valid", "held-out.xb")
    return "--data", "text.xa", "text.xb", *held_out, *sizes, *_HARDLY


@functools.cache
def _made(base: Path, task: str) -> Path:
    return make_run(base / f"judged-{task}", task)


class Runs:
    """Runs by their task, each made once a session. Look, do not touch: `own` gives one to write to."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def folder(self, task: str) -> Path:
        return _made(self._base, task)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.getbasetemp())


def drawn(run: Run, count: int, seed: int = 0) -> list[Architecture]:
    """Distinct architectures: the largest, the smallest and random ones."""
    import numpy as np  # noqa: PLC0415

    rng, space = np.random.default_rng(seed), run.info.space
    found = {one.id: one for one in (space.largest(), space.smallest())}
    while len(found) < count:
        one = space.sample(rng)
        found[one.id] = one
    return list(found.values())[:count]
