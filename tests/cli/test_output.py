"""What a person or a program reads: JSON for any reader, and how long a resumed stage still takes."""

from __future__ import annotations

import pytest

from toolchain.cli import output
from toolchain.errors import MostoolError
from toolchain.progress import Progress


def test_json_is_ascii_for_readers_of_any_encoding(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_result({"word": "m\u00e5ne \udcff"}, [], [], as_json=True, quiet=False)
    output.print_failure(MostoolError("n\u00f8"), as_json=True)
    assert capsys.readouterr().out.isascii()


def test_what_was_done_before_says_nothing_about_the_pace(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((100.0, 110.0))
    monkeypatch.setattr(output.time, "monotonic", lambda: next(clock))
    with output.ProgressPrinter(quiet=False) as listener:
        listener(Progress("train", 900, 1000, ""))
        listener(Progress("train", 920, 1000, ""))
    first, second = capsys.readouterr().err.splitlines()
    assert "left" not in first
    assert second == "train: 920/1000, 10 s, 40 s left"


def test_a_spread_is_a_share_of_its_latency() -> None:
    assert output.spread(1.36e-7, 1.36e-4) == "± 0.10 %"
    assert output.spread(1e-3, 8e-3) == "± 12.50 %"
    assert output.spread(0.0, 0.0) == ""


def test_words_from_elsewhere_do_nothing_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    wild = "\x1b[2J\x07one\ntwo\x9b \udcff"
    output.print_failure(MostoolError(wild, why=wild, hint=wild), as_json=False)
    output.print_result(None, [wild], [], as_json=False, quiet=False)
    with output.ProgressPrinter(quiet=False) as listener:
        listener(Progress("profile", 1, 2, wild))
    told = "?[2J?one two? ?"
    lines = capsys.readouterr().err.splitlines()
    assert lines[:4] == [f"error: {told}", f"why: {told}", f"hint: {told}", f"warning: {told}"]
    assert lines[4].endswith(f" {told}")
    assert len(lines) == 5
