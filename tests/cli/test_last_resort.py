"""Faults nobody foresaw: told in one line, with an exit code, and as JSON where that was asked for."""

from __future__ import annotations

import runpy
from pathlib import Path

import click
import pytest
from made_project import call, refused

from toolchain.cli import values
from toolchain.pipeline import verify


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(verify, "verify", fail)


def test_a_bug_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, KeyError("two\nlines"))
    told = refused(call(tmp_path, "verify", "bundle"), 1, "error: internal error", "KeyError", "--debug")
    assert len(told.err.splitlines()) == 3
    failed = call(tmp_path, "verify", "bundle", "--json").error
    assert failed["code"] == 1
    assert "\n" not in failed["message"]
    told = call(tmp_path, "verify", "bundle", "--debug")
    assert told.code == 1
    assert "Traceback" in told.err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 9 GiB"),
    ],
    ids=["python", "linux", "windows", "cuda"],
)
def test_a_lack_of_memory_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    failing(monkeypatch, error)
    refused(call(tmp_path, "verify", "bundle"), 1, "error: out of memory", "smaller")


def test_a_seed_has_at_most_63_bits(tmp_path: Path) -> None:
    refused(call(tmp_path, "sample", "--seed", str(2**63)), 2, "--seed")
    refused(call(tmp_path, "sample", "--seed", str(2**63 - 1)), 2, "mostool train")


def test_units_need_no_click_that_knows_the_types_of_its_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.ParamType, "__class_getitem__", None, raising=False)
    with pytest.raises(TypeError):
        click.ParamType[float]
    assert runpy.run_path(values.__file__)["TIME"].convert("80ms", None, None) == pytest.approx(0.08)
