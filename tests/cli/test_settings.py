"""A flag beats a variable beats ./mostool.toml beats the user's file beats the default, and all are read alike."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from made_project import Made, call, copied, refused, require, write_inputs

from toolchain.cli.app import app
from toolchain.cli.settings import settings_files


@pytest.fixture
def folder(made: Made, tmp_path: Path) -> Path:
    """The finished project without what these tests never look at."""
    return copied(made.root, tmp_path / "project")


def write(folder: Path, text: str | bytes) -> None:
    (folder / "mostool.toml").write_bytes(text.encode() if isinstance(text, str) else text)


def drawn(folder: Path, *arguments: str, **variables: str) -> int:
    """How many architectures `sample` prints."""
    return len(require(call(folder, "sample", *arguments, variables=variables)).out.splitlines())


def test_who_beats_whom(folder: Path, tmp_path: Path) -> None:
    assert drawn(folder) == 1
    user = tmp_path / "home" / "mostool"
    user.mkdir(parents=True)
    (user / "config.toml").write_text("[sample]\nn = 2\nseed = 7\n")
    home = {"XDG_CONFIG_HOME": str(tmp_path / "home")}
    assert drawn(folder, **home) == 2
    write(folder, "[sample]\nn = 3\n")
    assert drawn(folder, **home) == 3
    assert drawn(folder, **home, MOSTOOL_SAMPLE_N="4") == 4
    assert drawn(folder, "--n", "5", **home, MOSTOOL_SAMPLE_N="4") == 5
    rows = call(folder, "config", "--json", variables={**home, "MOSTOOL_SAMPLE_RUN": "words"}).data
    assert rows == [
        {"option": "sample.run", "value": "words", "origin": "MOSTOOL_SAMPLE_RUN"},
        {"option": "sample.n", "value": "3", "origin": "mostool.toml"},
        {"option": "sample.seed", "value": "7", "origin": str(user / "config.toml")},
    ]


def test_every_option_is_called_by_its_long_name() -> None:
    """Settings files and MOSTOOL_* variables use the names --help shows."""
    for command in leaves(app):
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.name is not None
                assert f"--{option.name.replace('_', '-')}" in option.opts, (command.name, option.opts)


def leaves(group: click.Group) -> list[click.Command]:
    found: list[click.Command] = []
    for command in group.commands.values():
        found += leaves(command) if isinstance(command, click.Group) else [command]
    return found


def test_config_says_what_holds_and_why(folder: Path) -> None:
    told = require(call(folder, "config"))
    assert "nothing is set" in told.out
    write(folder, '[search]\nlatency = "5ms"\n')
    told = require(call(folder, "config"))
    assert "search.latency" in told.out
    assert "mostool.toml" not in told.out
    told = require(call(folder, "config", "--origin", variables={"MOSTOOL_TRAIN_UPDATES": "7"}))
    rows = [line.split() for line in told.out.splitlines()[2:]]
    assert ["search.latency", "5ms", "mostool.toml"] in rows
    assert ["train.updates", "7", "MOSTOOL_TRAIN_UPDATES"] in rows
    assert ["search.searcher", "assisted", "default"] in rows
    assert len({row[0] for row in rows}) == len(rows)


def test_config_tells_every_option_and_who_says_so(folder: Path) -> None:
    write(folder, '[devices.add]\nlike = "rpi5"\n[search]\nlatency = ["5ms", "rpi=9ms"]\n')
    rows = call(folder, "config", "--origin", "--json", variables={"MOSTOOL_DEVICES_ADD_USER": "pi"}).data
    known = {f"{path.replace(' ', '.')}.{option.name}" for path, option in options(app)}
    assert {row["option"] for row in rows} == known
    said = {row["option"]: (row["value"], row["origin"]) for row in rows}
    assert said["devices.add.like"] == ("rpi5", "mostool.toml")
    assert said["devices.add.user"] == ("pi", "MOSTOOL_DEVICES_ADD_USER")
    assert said["search.latency"] == ("5ms, rpi=9ms", "mostool.toml")
    assert said["search.run"] == (None, "default")
    assert said["search.fresh"] == ("false", "default")
    assert said["search.evaluations"] == ("100", "default")
    told = require(call(folder, "config", "--origin", "search"))
    assert "(newest)" in told.out
    assert "train." not in told.out
    alone = call(folder, "config", "--origin", "devices", "add", "--json").data
    assert {row["option"].rpartition(".")[0] for row in alone} == {"devices.add"}
    group = call(folder, "config", "--origin", "devices", "--json").data
    assert {row["option"].split(".")[1] for row in group} == {"list", "show", "add", "setup", "test"}


def options(group: click.Group, within: str = "") -> list[tuple[str, click.Option]]:
    """Every option with the path of its command."""
    found: list[tuple[str, click.Option]] = []
    for name, command in group.commands.items():
        path = f"{within} {name}".strip()
        if isinstance(command, click.Group):
            found += options(command, path)
        found += [(path, one) for one in command.params if isinstance(one, click.Option)]
    return found


def test_what_config_does_not_know_is_named(folder: Path) -> None:
    refused(call(folder, "config", "serach"), 2, "'serach'", "did you mean search?")
    told = call(folder, "config", "--json", variables={"MOSTOOL_SEARCH_LATENCYY": "5ms"})
    assert told.envelope["warnings"] == ["nobody reads MOSTOOL_SEARCH_LATENCYY: did you mean MOSTOOL_SEARCH_LATENCY?"]


def test_a_command_of_a_group_has_a_table_of_its_own(folder: Path) -> None:
    write(folder, "[devices.list]\njson = true\n")
    assert call(folder, "devices", "list").envelope["ok"] is True
    require(call(folder, "devices", "show", "cpu"))


def test_a_budget_in_a_file_is_read_like_a_flag(folder: Path) -> None:
    write(folder, '[search]\nlatency = "900us"\nparams = 12000\nevaluations = 3\n')
    found = call(folder, "search", "--json").data
    assert {one["metric"]: one["limit"] for one in found["budgets"]} == {
        "latency_s": pytest.approx(900e-6),
        "parameters": 12000.0,
    }
    found = call(folder, "search", "--json", variables={"MOSTOOL_SEARCH_PARAMS": "11k"}).data
    assert {one["metric"]: one["limit"] for one in found["budgets"]}["parameters"] == 11e3
    write(folder, '[search]\nlatency = ["900us,1us"]\nmemory = ["quick=100MiB"]\nevaluations = 3\nremeasure = 0\n')
    found = call(folder, "search", "--json").data
    assert [(one["metric"], one["limit"], one["target"]) for one in found["budgets"]] == [
        ("latency_s", pytest.approx(900e-6), "quick"),
        ("peak_memory_bytes", 100 * 2**20, "quick"),
    ]
    assert len(found["picks"]) == 2


@pytest.mark.fault("config-key", "config-type", "config-nul", "config-50mb", "config-deep")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("[search]\nlatency = 5\n", "'5' is no time"),
        ("[search]\nlatency = 0.005\n", "'0.005' is no time"),
        ("[search]\nlatency = nan\n", "'nan' is no time"),
        ("[search]\nlatency = -1.0\n", "'-1.0' is no time"),
        ('[search]\nlatency = "0ms"\n', "must be above zero"),
        ('[search]\nlatency = ["5ms", "cpu=6"]\n', "'6' is no time"),
        ('[search]\nsize = ["5MiB"]\n', "an option has one value"),
        ("[search.latency]\nlimit = 5\n", "an option has one value"),
        ('[search]\nevaluations = "many"\n', "search.evaluations"),
        ("[search]\nevaluations = 1.5\n", "search.evaluations"),
        ("[search]\nevaluations = true\n", "search.evaluations"),
        ("[search]\nevaluations = 0\n", "search.evaluations"),
        ("[search]\nseed = 1979-05-27\n", "search.seed"),
        ("[train]\nfresh = 1\n", "true or false"),
        ('[train]\nfresh = "yes"\n', "true or false"),
        ("[train]\nlearning-rate = nan\n", "no finite number"),
        ('[train]\ntask = "translation"\n', "'classify', 'regress', 'mlm', 'translate'"),
        ('[train]\nfamily = "bert"\n', "unknown option of train: 'family'"),
        ("[serach]\n", "did you mean search?"),
        ("[search]\nlatencyy = 5\n", "did you mean latency?"),
        ("[search]\n_run = 5\n", "did you mean run?"),
        ("latency = 5\n", "'latency'"),
        ("search = 5\n", "write [search]"),
        ("[devices]\nlist = 5\n", "write [devices.list]"),
        ("[devices.lst]\n", "did you mean list?"),
        ("[devices.add]\nhots = 5\n", "did you mean host?"),
        ("[search\n", "is not valid TOML"),
        ("[search]\nlatency = \n", "is not valid TOML"),
        ("[search]\nseed = 1\nseed = 2\n", "is not valid TOML"),
        ("\0", "is not valid TOML"),
        (b"\xff\xfe[\0s\0", "is not valid TOML"),
        (b"[search]\n# caf\xe9\n", "is not valid TOML"),
        ("deep = " + "[" * 50_000, "is not valid TOML"),
        ("# " + "x" * (50 << 20), "too large to be a settings file"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_settings_that_cannot_be_are_refused_by_name(tmp_path: Path, settings: str | bytes, said: str) -> None:
    write(tmp_path, settings)
    told = refused(call(tmp_path, "search"), 2, said)
    assert "mostool.toml" in told.err
    assert call(tmp_path, "config", "--json").error["kind"] == "usage"


@pytest.mark.fault("config-empty", "config-bom")
@pytest.mark.parametrize("settings", [b"", b"\n", b"\xef\xbb\xbf[sample]\nn = 2\n", b"[sample]\r\nn = 2\r\n"])
def test_odd_settings_files_are_read(folder: Path, settings: bytes) -> None:
    write(folder, settings)
    assert drawn(folder) == (2 if b"n = 2" in settings else 1)


def test_a_repeatable_option_takes_a_list_or_one_value(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path / "project")
    write(inputs, '[train]\ndata = "no-such.tsv"\n')
    refused(call(inputs, "train"), 2, "there is no no-such.tsv")
    write(inputs, '[train]\ndata = ["data.tsv", "no-other.tsv"]\n')
    refused(call(inputs, "train"), 2, "there is no no-other.tsv")
    refused(call(inputs, "train", "--data", "a.tsv"), 2, "there is no a.tsv")


def test_json_can_be_asked_for_by_a_variable_or_a_file(tmp_path: Path) -> None:
    assert call(tmp_path, "sample", variables={"MOSTOOL_SAMPLE_JSON": "1"}).error["code"] == 2
    write(tmp_path, "[sample]\njson = true\n")
    assert call(tmp_path, "sample").error["code"] == 2
    refused(call(tmp_path, "search"), 2)


def test_a_variable_with_a_wrong_value_is_refused(tmp_path: Path) -> None:
    refused(call(tmp_path, "search", variables={"MOSTOOL_SEARCH_LATENCY": "5"}), 2, "'5' is no time")
    refused(call(tmp_path, "sample", variables={"MOSTOOL_SAMPLE_N": "none"}), 2, "--n")


def test_settings_do_not_keep_help_from_being_shown(tmp_path: Path) -> None:
    write(tmp_path, "[search\n")
    assert "Usage:" in require(call(tmp_path, "--help")).out
    assert require(call(tmp_path, "--version")).out.startswith("mostool")


def test_a_home_that_cannot_be_looked_into_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "[sample]\nn = 2\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", "n" * 5000)
    assert settings_files() == [Path("mostool.toml")]

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(Path, "home", nowhere)
    assert settings_files() == [Path("mostool.toml")]
