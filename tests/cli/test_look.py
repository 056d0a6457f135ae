"""verify: of several bundles, of the newest, and of what is none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from made_project import Made, call, refused, require


@pytest.fixture
def two(made: Made, tmp_path: Path) -> Path:
    """A folder with nothing but bundles/first and, newer, bundles/second."""
    for number, name in enumerate(("first", "second")):
        shutil.copytree(made.bundle, tmp_path / "bundles" / name)
        os.utime(tmp_path / "bundles" / name / "manifest.json", (1e9 + number, 1e9 + number))
    return tmp_path


def test_several_bundles_are_checked_in_turn(two: Path) -> None:
    names = ("bundles/first", "bundles/second")
    first, second = require(call(two, "verify", *names, "--no-speed")).out.split("\n\n")
    assert first.endswith("bundles/first: verified")
    assert second.endswith("bundles/second: verified\n")
    several = call(two, "verify", *names, "--no-speed", "--json").data
    assert [one["bundle"] for one in several] == [*names]
    assert several[0] == call(two, "verify", names[0], "--no-speed", "--json").data


def test_without_a_name_it_is_the_newest(two: Path) -> None:
    lines = require(call(two, "verify", "--no-speed")).out.splitlines()
    assert lines[0] == "the newest bundle in bundles/:"
    assert lines[-1] == "bundles/second: verified"
    (two / "bundles" / "second").rename(two / "bundles" / "second.old")  # moved aside
    assert call(two, "verify", "--no-speed", "--json").data["bundle"] == "bundles/first"
    shutil.rmtree(two / "bundles")
    refused(call(two, "verify"), 2, "there is no bundle in bundles", "mostool export")


def test_the_first_that_fails_ends_it(two: Path) -> None:
    names = ("bundles/first", "bundles/none", "bundles/second")
    told = require(call(two, "verify", *names, "--no-speed"), 2)
    assert told.out.endswith("bundles/first: verified\n")
    assert "bundles/none is not a bundle" in told.err
    told = require(call(two, "verify", *names, "--no-speed", "--json"), 2)
    assert told.envelope["error"]["code"] == 2
    assert [one["bundle"] for one in told.envelope["data"]] == ["bundles/first"]


def test_what_is_no_bundle_is_refused_before_anything_is_said(tmp_path: Path) -> None:
    assert refused(call(tmp_path, "verify", "bundles/nope"), 2, "is not a bundle").err.startswith("error: ")
