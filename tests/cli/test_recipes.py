"""--config and --dry-run: options from a file or a recipe that ships, and what a training would take."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from made_project import call, refused, require, write_inputs

from toolchain.cli.app import app
from toolchain.cli.recipes import find_recipes

RECIPES = find_recipes()
FIGURES = {
    "subnets",
    "shared_parameters",
    "largest_parameters",
    "smallest_parameters",
    "state_bytes",
    "activation_bytes",
    "tokens_per_update",
    "flops_per_update",
    "update_s",
    "device",
}


def settings(folder: Path, *arguments: str, variables: dict[str, str] | None = None) -> dict[str, Any]:
    """What `train` would be called with in `folder`."""
    seen: dict[str, Any] = {}
    command = app.commands["train"]
    kept = command.callback
    command.callback = lambda **options: seen.update(options)
    try:
        require(call(folder, "train", *arguments, variables=variables))
    finally:
        command.callback = kept
    return seen


def estimated(folder: Path, *arguments: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = call(folder, "train", *arguments, "--dry-run", "--json").data
    return found


# -- the recipes that ship -------------------------------------------------------------------------------------------


def test_there_are_recipes_for_a_laptop_and_for_the_papers() -> None:
    assert RECIPES.keys() >= {
        *(f"laptop-{task}" for task in ("classify", "mlm", "translate")),
        *("bert-base", "wmt14-hat", "iwslt14-hat"),
    }


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_told_by_its_first_lines_and_every_key_of_it_arrives(tmp_path: Path, name: str) -> None:
    text = RECIPES[name].read_text()
    assert text.startswith("# ")
    assert f"mostool train --config {name} --data " in text
    (shown,) = (line for line in text.splitlines() if line.startswith("#   mostool train "))
    command = app.commands["train"]
    with command.make_context("train", shown.split()[3:], parent=click.Context(app)):
        pass
    values, given, defaults = tomllib.loads(text), settings(tmp_path, "--config", name), settings(tmp_path)
    for key, value in values.items():
        assert given[key.replace("-", "_")] == value, key
    others = given.keys() - {key.replace("-", "_") for key in values} - {"config"}
    assert {key: given[key] for key in others} == {key: defaults[key] for key in others}


@pytest.mark.parametrize("name", RECIPES)
def test_a_dry_run_says_what_a_recipe_takes_and_starts_nothing(tmp_path: Path, name: str) -> None:
    """Without data, without writing, and within seconds however large it is."""
    recipe = tomllib.loads(RECIPES[name].read_text())
    found = estimated(tmp_path, "--config", name)
    assert found.keys() == FIGURES
    assert found["smallest_parameters"] < found["largest_parameters"] <= found["shared_parameters"]
    assert found["state_bytes"] == 16 * found["shared_parameters"]
    length, parts = recipe["sequence-length"], recipe.get("accumulate", 1)
    rows = recipe["batch-tokens"] // length if recipe["task"] == "translate" else recipe["batch-size"]
    assert found["tokens_per_update"] == rows * length * parts
    assert found["flops_per_update"] > 0
    assert found["update_s"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_in_words(tmp_path: Path) -> None:
    told = require(call(tmp_path, "train", "--config", "laptop-translate", "--space", "tiny", "--dry-run"))
    starts = [line.partition(":")[0] for line in told.out.splitlines()]
    assert starts == ["parameters", "subnets", "memory", "tokens", "time", "nothing was started"]
    assert told.err == ""
    for words in ("counted", "estimated", "MiB", "vocabulary of 4,000", "at most 2,048 an update, 6,144,000 in all"):
        assert words in told.out
    assert require(call(tmp_path, "train", "--config", "laptop-translate", "--dry-run", "-q")).out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_counts_the_space_that_is_meant(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path / "project")
    small = ("--space", "space.toml", "--vocabulary-size", "200", "--sequence-length", "16")
    whole, alone = estimated(inputs, *small), estimated(inputs, *small, "--only", "smallest")
    assert alone["subnets"] == 1
    assert alone["shared_parameters"] == alone["largest_parameters"] == whole["smallest_parameters"]
    assert alone["flops_per_update"] < whole["flops_per_update"] / 3
    plain = estimated(inputs, *small, "--mixture", "plain")
    assert plain["shared_parameters"] < whole["shared_parameters"]
    assert plain["largest_parameters"] == whole["largest_parameters"] <= plain["shared_parameters"]
    twice = estimated(inputs, *small, "--batch-size", "128")
    assert 1.8 < twice["activation_bytes"] / whole["activation_bytes"] < 2.2
    assert not (inputs / "runs").exists()


# -- who beats whom --------------------------------------------------------------------------------------------------


def test_a_flag_beats_a_variable_beats_the_recipe_beats_settings_files(tmp_path: Path) -> None:
    (tmp_path / "mostool.toml").write_text("[train]\nupdates = 7\nseed = 3\ndropout = 0.4\nquiet = true\n")
    given = settings(tmp_path, "--config", "laptop-translate")
    assert (given["updates"], given["seed"], given["dropout"], given["task"]) == (3000, 3, 0.1, "translate")
    given = settings(tmp_path, "--config", "laptop-translate", variables={"MOSTOOL_TRAIN_UPDATES": "8"})
    assert given["updates"] == 8
    for order in (("--updates", "9", "--config", "laptop-mlm"), ("--config", "laptop-mlm", "--updates", "9")):
        given = settings(tmp_path, *order, variables={"MOSTOOL_TRAIN_UPDATES": "8"})
        assert (given["updates"], given["task"]) == (9, "mlm")
    assert settings(tmp_path)["updates"] == 7


def test_a_recipe_can_be_named_by_a_settings_file_or_a_variable(tmp_path: Path) -> None:
    assert settings(tmp_path, variables={"MOSTOOL_TRAIN_CONFIG": "laptop-mlm"})["task"] == "mlm"
    (tmp_path / "mostool.toml").write_text('[train]\nconfig = "laptop-mlm"\nupdates = 7\n')
    given = settings(tmp_path)
    assert (given["task"], given["updates"]) == ("mlm", 4000)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('task = "mlm"\nmix_attention = true\ndata = ["a.txt", "b.txt"]\nupdates = 12\n')
    given = settings(tmp_path, "--config", "mine.toml")
    assert (given["task"], given["mix_attention"], given["updates"]) == ("mlm", True, 12)
    assert given["data"] == (Path("a.txt"), Path("b.txt"))
    assert settings(tmp_path, "--config", "mine.toml", "--data", "c.txt", "d.txt")["data"] == (
        Path("c.txt"),
        Path("d.txt"),
    )
    inputs = write_inputs(tmp_path / "project")
    (inputs / "mine.toml").write_text(
        'data = "data.tsv"\nspace = "space.toml"\nupdates = 1\njson = true\n'
        "vocabulary-size = 200\nsequence-length = 16\n"
    )
    assert call(inputs, "train", "--config", "mine.toml").data["updates"] == 1


# -- what is no recipe -----------------------------------------------------------------------------------------------


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    told = refused(call(tmp_path, "train", "--config", "laptop-translat", "--dry-run"), 2, "'laptop-translat'")
    assert "did you mean laptop-translate?" in told.err
    refused(call(tmp_path, "train", "--config", "nothing like it"), 2, "known: bert-base, ")
    refused(call(tmp_path, "train", "--config", "mine.toml"), 2, "there is no file mine.toml", "laptop-mlm")
    refused(call(tmp_path, "train", "--config", "no/laptop-mlm"), 2, "there is no file no/laptop-mlm")
    for given in (".", "", "/"):
        refused(call(tmp_path, "train", "--config", given), 2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"updates = \n", "is not valid TOML"),
        (b"\xff\xfe", "is not valid TOML"),
        (b"updates = 1\nupdates = 2\n", "is not valid TOML"),
        (b"deep = " + b"[" * 50_000, "is not valid TOML"),
        (b"# " + b"x" * (2 << 20), "too large"),
        (b"updats = 1\n", "did you mean updates?"),
        (b"updates = 0\n", "train.updates"),
        (b"updates = true\n", "a text or a number"),
        (b'updates = "many"\n', "train.updates"),
        (b'fresh = "yes"\n', "true or false"),
        (b'task = "translation"\n', "'translate'"),
        (b"learning-rate = nan\n", "no finite number"),
        (b"updates = [1, 2]\n", "an option has one value"),
        (b"[train]\nupdates = 1\n", "'train'"),
        (b'config = "laptop-mlm"\n', "names another file of options"),
        (b'family = "bert"\n', "'family'"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_a_file_that_cannot_be_read_as_options_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "mine.toml").write_bytes(content)
    told = refused(call(tmp_path, "train", "--config", "mine.toml", "--dry-run"), 2, said)
    assert "mine.toml" in told.err
    assert call(tmp_path, "train", "--config", "mine.toml", "--dry-run", "--json").error["code"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]
