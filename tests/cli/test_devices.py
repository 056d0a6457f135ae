"""The devices group and doctor, over a pretend ssh: what a person types who owns a board, and what is answered."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from devices.made_wheels import DIES, write_wheel
from fake_board import KEYS, FakeBoard, board
from made_project import Called, call, refused, require

from toolchain.cli.app import app
from toolchain.devices.facts import Facts, Module
from toolchain.onboard.sensors import cause
from toolchain.pipeline import devices as pipeline
from toolchain.pipeline import doctor
from toolchain.pipeline.adding import target_file
from toolchain.targets import Measure, Runtime, Ssh, Target, find_targets, read_target, shipped_folder

__all__ = ["board"]

ADD = ("devices", "add", "rpi", "--host", "board", "--python", sys.executable)
PI = "Raspberry Pi 4 Model B Rev 1.5"


def fingerprint(key: str) -> str:
    asked = subprocess.run(
        ["ssh-keygen", "-l", "-f", "/dev/stdin"],  # noqa: S607
        input=f"ssh-ed25519 {key}",
        capture_output=True,
        text=True,
        check=True,
    )
    return asked.stdout.split()[1]


@pytest.fixture
def added(board: FakeBoard, tmp_path: Path) -> Path:
    """A project with a board that is known, and lacks numpy and an engine; pip finds what is in wheels/."""
    lacking = tmp_path / "lacking"
    for name in ("numpy", "onnxruntime"):
        (lacking / name).mkdir(parents=True)
        (lacking / name / "__init__.py").write_text(f"raise ModuleNotFoundError('No module named {name}')\n")
    for name in ("numpy", "onnxruntime"):
        write_wheel(tmp_path / "wheels", name, "2.2.6" if name == "numpy" else "1.22.1")
    board.set(variables={"PYTHONPATH": str(lacking)})
    require(call(tmp_path, *ADD, "--accept-new-host-key"))
    return tmp_path


def only_wheels(project: Path) -> dict[str, str]:
    """Variables by which a pip finds nothing but what is in wheels/."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(project / "wheels"), "PIP_CONFIG_FILE": "/dev/null"}


def failed(called: Called, code: int) -> tuple[dict[str, Any], Any]:
    """The error and the data of a command that failed and was asked for JSON."""
    require(called, code)
    envelope = called.envelope
    assert envelope.keys() == {"schema", "ok", "error", "data", "warnings"}
    assert envelope["ok"] is False
    assert envelope["error"]["code"] == code
    return envelope["error"], envelope["data"]


def states(data: Any) -> dict[str, str]:
    return {check["name"]: check["state"] for check in data["checks"]}


# -- list --------------------------------------------------------------------------------------------------------------


def test_a_list_says_where_each_device_is(added: Path) -> None:
    listed = {one["id"]: one for one in call(added, "devices", "list", "--json").data}
    assert listed["cpu"]["where"] == "this machine"
    assert listed["rpi5"]["where"] == "not said yet"
    assert listed["rpi"]["where"] == "ssh board"
    assert listed["rpi"]["file"] == "targets/rpi.toml"
    assert "not said yet" in require(call(added, "devices", "list")).out


@pytest.mark.parametrize("name", ["rpi", "rpi4", "rpi5"])
@pytest.mark.parametrize("command", [("doctor", "--device"), ("devices", "setup"), ("devices", "test")], ids=" ".join)
def test_a_board_without_an_address_is_to_be_added(tmp_path: Path, name: str, command: tuple[str, ...]) -> None:
    refused(call(tmp_path, *command, name), 2, f"mostool devices add {name} --host HOST")


# -- add ---------------------------------------------------------------------------------------------------------------


@pytest.mark.fault("host-key-unknown")
def test_an_unknown_host_key_is_shown_and_nothing_is_written(board: FakeBoard, tmp_path: Path) -> None:
    own = fingerprint(KEYS[0])
    refused(call(tmp_path, *ADD), 4, f"it shows ED25519 {own}", f"--fingerprint {own}", "--accept-new-host-key")
    error, data = failed(call(tmp_path, *ADD, "--json"), 4)
    assert error["kind"] == "device"
    assert data == {"fingerprints": [own]}
    assert not (tmp_path / "targets").exists()


def test_a_host_nobody_knows_is_looked_for_in_what_was_typed(board: FakeBoard, tmp_path: Path) -> None:
    board.know(tmp_path)
    board.set(status=255, says="ssh: Could not resolve hostname board: Name or service not known\n")
    refused(call(tmp_path, *ADD), 4, "rpi (board) cannot be reached", "hint: check --host")


def test_another_host_key_than_the_expected_is_refused(board: FakeBoard, tmp_path: Path) -> None:
    own, other = map(fingerprint, KEYS)
    told = refused(call(tmp_path, *ADD, "--fingerprint", other), 4, own, other)
    assert "is not the device that was meant" in told.err
    assert not (tmp_path / "targets").exists()


def test_a_board_is_added_by_its_fingerprint(board: FakeBoard, tmp_path: Path) -> None:
    own = fingerprint(KEYS[0])
    data = call(tmp_path, *ADD, "--user", "pi", "--port", "2222", "--fingerprint", own, "--json").data
    assert (data["id"], data["file"], data["fingerprint"], data["host_key"]) == (
        *("rpi", "targets/rpi.toml", own),
        "stored",
    )
    assert (tmp_path / "targets" / "known_hosts").read_text() == f"board ssh-ed25519 {KEYS[0]}\n"
    target, shipped = read_target("rpi", tmp_path), read_target("rpi", tmp_path / "elsewhere")
    assert target.connection == Ssh(host="board", user="pi", port=2222, python=sys.executable)
    assert (target.runtime, target.measure, target.title) == (shipped.runtime, shipped.measure, shipped.title)


def test_a_file_that_is_there_is_changed_by_force_alone(added: Path) -> None:
    path = added / "targets" / "rpi.toml"
    path.write_text(path.read_text().replace("maximum_s = 30.0", "maximum_s = 40.0"))
    before = path.read_text()
    for arguments in ((), ("--user", "pi"), ("--like", "rpi4")):
        assert "--force" in refused(call(added, *ADD, *arguments), 2, "targets/rpi.toml already").err
        assert path.read_text() == before
    data = call(added, *ADD, "--user", "pi", "--force", "--json").data
    assert (data["fingerprint"], data["host_key"]) == (None, "known")
    target = read_target("rpi", added)
    assert target.measure.maximum_s == 40.0
    assert target.connection == Ssh(host="board", user="pi", python=sys.executable)
    require(call(added, *ADD, "--like", "rpi5", "--force"))
    assert read_target("rpi", added).measure.hot_c == 80.0
    path.write_text("no target")
    require(call(added, *ADD, "--force"))
    assert read_target("rpi", added).measure.maximum_s == 30.0


def test_a_new_host_key_is_accepted_where_that_is_said(added: Path) -> None:
    assert (added / "targets" / "known_hosts").read_text() == f"board ssh-ed25519 {KEYS[0]}\n"


def test_a_host_that_the_users_ssh_knows_needs_no_word(board: FakeBoard, tmp_path: Path) -> None:
    (board.folder / "known_hosts_of_the_user").write_text(f"board ssh-ed25519 {KEYS[0]}\n")
    told = require(call(tmp_path, *ADD))
    assert "your ssh knows" in told.out
    assert told.out.splitlines()[-1] == "next: mostool devices setup rpi"
    assert not (tmp_path / "targets" / "known_hosts").exists()


def test_a_fingerprint_is_compared_whoever_knows_the_key(added: Path, board: FakeBoard) -> None:
    own, other = map(fingerprint, KEYS)
    before = (added / "targets" / "rpi.toml").read_text()
    told = refused(call(added, *ADD, "--user", "pi", "--force", "--fingerprint", other), 4, own, other)
    assert "is not the device that was meant" in told.err
    assert (added / "targets" / "rpi.toml").read_text() == before
    data = call(added, *ADD, "--user", "pi", "--force", "--fingerprint", own, "--json").data
    assert (data["fingerprint"], data["host_key"]) == (None, "known")
    assert (added / "targets" / "known_hosts").read_text() == f"board ssh-ed25519 {KEYS[0]}\n"


@pytest.mark.fault("host-key-changed")
def test_a_host_key_that_changed_is_trusted_by_its_fingerprint_alone(added: Path, board: FakeBoard) -> None:
    board.set(key=KEYS[1])
    old, new = map(fingerprint, KEYS)
    before = (added / "targets" / "rpi.toml").read_text()
    for trust in ((), ("--accept-new-host-key",)):
        refused(call(added, *ADD, *trust), 4, "has changed", f"it shows ED25519 {new}, known is ED25519 {old}")
    refused(call(added, "devices", "test", "rpi"), 4, "has changed", "devices add rpi --host board --fingerprint")
    told = require(call(added, "devices", "add", "rpi", "--host", "board", "--fingerprint", new))
    assert "targets/rpi.toml stays as it is" in told.out
    assert (added / "targets" / "known_hosts").read_text() == f"board ssh-ed25519 {KEYS[1]}\n"
    assert (added / "targets" / "rpi.toml").read_text() == before


def test_a_board_that_is_off_is_not_added(board: FakeBoard, tmp_path: Path) -> None:
    board.set(refuses=True)
    refused(call(tmp_path, *ADD, "--accept-new-host-key"), 4, "Connection refused", "raspi-config")
    assert not (tmp_path / "targets").exists()


def test_a_board_that_asks_for_a_password_is_added_with_a_warning(board: FakeBoard, tmp_path: Path) -> None:
    board.set(status=255, says="pi@board: Permission denied (publickey,password).\n")
    told = require(call(tmp_path, *ADD, "--accept-new-host-key"))
    assert "ssh-copy-id" in told.err
    assert read_target("rpi", tmp_path).connection.host == "board"  # type: ignore[union-attr]
    assert require(call(tmp_path, *ADD, "--force")).err.startswith("warning: rpi (board) cannot be reached")


def test_files_of_the_project_are_named_as_such(board: FakeBoard, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for path in (project / "key", tmp_path / "ssh_config"):
        path.write_text("")
    files = ("--identity", "./key", "--ssh-config", "../ssh_config")
    require(call(project, *ADD, "--like", "rpi5", "--accept-new-host-key", *files))
    found = tomllib.loads((project / "targets" / "rpi.toml").read_text())
    assert found["connection"]["identity"] == "key"
    assert found["connection"]["config"] == str(tmp_path / "ssh_config")
    assert found["title"] == "rpi: Raspberry Pi 5, ONNX Runtime, four threads"
    require(call(project, "doctor", "--device", "rpi"), 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["../rpi"], "no name for a device"),
        (["rpi", "--like", "rpi44"], "did you mean rpi4?"),
        (["rpi", "--fingerprint", "SHA256:x", "--accept-new-host-key"], "do not go together"),
        (["rpi", "--host", "pi@board", "--user", "pi"], "the user is given twice"),
        (["rpi", "--host", "-oProxyCommand=x"], "is no host"),
        (["rpi", "--host", "board; rm"], "is no host"),
        (["rpi", "--host", ""], "nobody has said yet where rpi is"),
        (["rpi", "--user", "p i"], "is no user"),
        (["rpi", "--identity", "none"], "there is no file none"),
        (["rpi", "--ssh-config", "none"], "there is no file none"),
        (["rpi", "--port", "0"], "port"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_added_is_refused(board: FakeBoard, tmp_path: Path, arguments: list[str], said: str) -> None:
    refused(call(tmp_path, *ADD[:2], "--host", "board", "--accept-new-host-key", *arguments), 2, said)
    assert not (tmp_path / "targets").exists()


def test_what_setup_does_not_install_is_looked_at_next(board: FakeBoard, tmp_path: Path) -> None:
    told = require(call(tmp_path, "devices", "add", "jetson", "--host", "board", "--accept-new-host-key"))
    assert told.out.splitlines()[-1] == "next: mostool doctor --device jetson"
    assert read_target("jetson", tmp_path).connection == Ssh(host="board")


def test_user_and_host_may_be_given_in_one(board: FakeBoard, tmp_path: Path) -> None:
    require(call(tmp_path, "devices", "add", "rpi4", "--host", "pi@board", "--accept-new-host-key"))
    assert read_target("rpi4", tmp_path).connection == Ssh(host="board", user="pi")


ODD = Target(
    id="odd",
    title='tab\t "quoted" \\ ü \x7f',
    runtime=Runtime(threads=3, cores=(1, 2), options={"a b": "1", "c.d": "x"}, provider_options={"e": "2"}),
    connection=Ssh(host="board", port=22, reconnect_s=5.5),
    measure=Measure(thermal="sustained", half_width=0.02, group=3),
)


@pytest.mark.parametrize(
    "target",
    [ODD, *(read_target(name, Path("nowhere")) for name in find_targets(Path("nowhere")))],
    ids=lambda target: target.id,
)
def test_a_written_target_reads_as_it_was(target: Target, tmp_path: Path) -> None:
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / f"{target.id}.toml").write_text(target_file(target))
    assert read_target(target.id, tmp_path) == target


# -- setup -------------------------------------------------------------------------------------------------------------


def test_a_board_is_set_up_and_then_healthy(added: Path) -> None:
    before, data = failed(call(added, "doctor", "--device", "rpi", "--json"), 4)
    assert before["hint"] == "mostool devices setup rpi"
    assert states(data)["numpy"] == states(data)["onnxruntime"] == "failure"
    assert states(data)["provider"] == "not known"
    done = call(added, "devices", "setup", "rpi", "--wheels", "wheels", "--json").data
    versions = {"numpy": "2.2.6", "onnxruntime": "1.22.1"}
    assert done == {"device": "rpi", "changed": True, "origin": "folder", "versions": versions, "died": []}
    again = require(call(added, "devices", "setup", "rpi"))
    assert again.out.splitlines()[0] == "rpi has numpy 2.2.6 and onnxruntime 1.22.1 already"
    after = call(added, "doctor", "--device", "rpi", "--json").data
    assert after["device"] == "rpi"
    assert states(after)["onnxruntime"] == states(after)["provider"] == "ok"


def test_a_fetched_runtime_says_where_it_came_from(added: Path, board: FakeBoard) -> None:
    require(call(added, "devices", "setup", "rpi", "--from", "board", variables=only_wheels(added)))
    board.set(variables={**board.state["variables"], "PIP_FIND_LINKS": "/nowhere"})
    told = require(call(added, "devices", "setup", "rpi", "--version", "1.22.1", variables=only_wheels(added)))
    assert "already" in told.out
    write_wheel(added / "wheels", "onnxruntime", "1.23.0", DIES)
    write_wheel(added / "wheels", "onnxruntime", "1.21.0")
    told = require(call(added, "devices", "setup", "rpi", "--version", "1.21.0", variables=only_wheels(added)))
    assert told.out.startswith("rpi has numpy 2.2.6 and onnxruntime 1.21.0 now, from here\n")
    assert "rpi's own pip could not" in told.err
    told = require(call(added, "devices", "setup", "rpi", "--wheels", "wheels"))
    assert "warning: onnxruntime 1.23.0 dies of an instruction" in told.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cpu"], "cpu is this machine"),
        (["jetson"], "JetPack"),
        (["gpu"], "gpu is this machine"),
        (["rpi", "--from", "board", "--wheels", "wheels"], "leave out --from board"),
        (["rpi", "--wheels", "none"], "there is no folder none"),
        (["rpj"], "did you mean rpi?"),
        (["rpi", "--from", "heaven"], "heaven"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_set_up_is_refused(added: Path, arguments: list[str], said: str) -> None:
    refused_late = call(added, "devices", "setup", *arguments)
    require(refused_late, 2)
    assert said in refused_late.err
    assert "hint: " in refused_late.err


def test_a_provider_that_is_not_the_processor_needs_the_vendors_wheels(added: Path) -> None:
    path = added / "targets" / "rpi.toml"
    path.write_text(path.read_text().replace("[runtime]\n", '[runtime]\nprovider = "CUDAExecutionProvider"\n', 1))
    refused(call(added, "devices", "setup", "rpi"), 2, "CUDAExecutionProvider", "--wheels FOLDER")


# -- test --------------------------------------------------------------------------------------------------------------


def test_a_device_that_works_is_said_to_work(added: Path, board: FakeBoard) -> None:
    board.set(variables={})
    told = require(call(added, "devices", "test", "rpi"))
    lines = told.out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        *("ok  connection", "ok  environment", "ok  answer", "ok  noise"),
        *("rpi", "next"),
    ]
    assert lines[-2:] == ["rpi: works", "next: mostool profile --device rpi"]
    assert list((board.root / "blobs").iterdir()) == []
    steps = call(added, "devices", "test", "cpu", "--json").data
    assert [step["name"] for step in steps] == ["connection", "environment", "answer", "noise"]
    assert all(step["seconds"] >= 0 for step in steps)


def test_a_device_that_lacks_its_engine_says_how_far_it_got(added: Path) -> None:
    told = require(call(added, "devices", "test", "rpi"), 4)
    assert told.out == "ok  connection: ssh board\n"
    assert told.err.splitlines()[-1] == "hint: mostool devices setup rpi"
    error, steps = failed(call(added, "devices", "test", "rpi", "--json"), 4)
    assert "rpi lacks onnxruntime" in error["message"]
    assert [step["name"] for step in steps] == ["connection"]


def test_a_gpu_that_is_not_there_is_named(tmp_path: Path) -> None:
    error, steps = failed(call(tmp_path, "devices", "test", "gpu", "--json"), 4)
    assert "CUDAExecutionProvider" in error["message"]
    assert [step["name"] for step in steps] == ["connection"]


def test_a_device_that_computes_something_else_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_largest_difference", lambda *_: float("nan"))
    told = require(call(tmp_path, "devices", "test", "cpu"), 4)
    assert "error: cpu computes something else" in told.err


# -- doctor ------------------------------------------------------------------------------------------------------------


def test_a_doctor_prints_its_checks_and_then_the_error(added: Path) -> None:
    told = require(call(added, "doctor", "--device", "rpi"), 4)
    assert re.search(r"^ok +python +3", told.out, re.MULTILINE)
    assert re.search(r"^failure +numpy .*\n +-> mostool devices setup rpi$", told.out, re.MULTILINE)
    assert [line.split(":")[0] for line in told.err.splitlines()[-3:]] == ["error", "why", "hint"]
    assert re.search(r"error: rpi is not ready: 2 of \d\d checks failed", told.err)
    quiet = require(call(added, "doctor", "--device", "rpi", "-q"), 4)
    assert not quiet.out
    assert quiet.err.startswith("error: ")


def test_a_board_that_is_out_of_reach_has_failed_one_check(added: Path, board: FakeBoard) -> None:
    board.set(refuses=True)
    error, data = failed(call(added, "doctor", "--device", "rpi", "--json"), 4)
    assert states(data) == {"ssh": "failure"}
    assert "raspi-config" in error["hint"]
    board.set(refuses=False, status=127, says="sh: 1: python3: not found\n")
    error, data = failed(call(added, "doctor", "--device", "rpi", "--json"), 4)
    assert states(data) == {"ssh": "ok", "agent": "failure"}


def sysroot(folder: Path, board: FakeBoard, **files: str) -> None:
    """Let a board say of itself what these files under /proc and /sys say."""
    paths = {"model": "proc/device-tree/model", "throttled": "sys/devices/platform/soc/soc:firmware/get_throttled"}
    for name, text in files.items():
        path = folder / paths[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    board.set(variables={"MOSTOOL_SYSROOT": str(folder)})


def test_a_board_that_is_throttled_is_not_ready(added: Path, board: FakeBoard) -> None:
    sysroot(added / "root", board, model=PI, throttled="50001")
    error, data = failed(call(added, "doctor", "--device", "rpi", "--json"), 4)
    assert "now: under-voltage" in error["message"]
    assert error["hint"] == cause("under-voltage")[1], "what a measurement says of it too"
    assert [check["state"] for check in data["checks"] if check["name"] == "throttling"] == ["failure", "warning"]
    assert {check["name"]: check["found"] for check in data["checks"]}["board"] == PI


def test_a_boards_own_words_do_nothing_to_a_terminal(added: Path, board: FakeBoard) -> None:
    sysroot(added / "root", board, model="Raspberry\x1b[2J\x07 Pi\x9b")
    told = require(call(added, "doctor", "--device", "rpi"))
    assert "Raspberry?[2J? Pi?" in told.out


def test_nor_do_they_where_they_are_the_reason_of_a_failure(added: Path, board: FakeBoard) -> None:
    board.set(status=1, says="\x1b]0;owned\x07\x1b[2J\n")
    told = refused(call(added, "devices", "test", "rpi"), 4, "why: status 1: ?]0;owned??[2J")
    assert "\x1b" not in told.err


def test_a_doctor_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = call(tmp_path, "doctor", "--json").data
    assert data["device"] is None
    assert {"python", "torch", "onnxruntime", "mostool[tensorrt]", "gpu", "ssh", "disk"} <= states(data).keys()
    assert states(call(tmp_path, "doctor", "--device", "cpu", "--json").data)["provider"] == "ok"
    looked = doctor.facts_here

    def broken(*asked: Any) -> Facts:
        facts = looked((), asked[1])
        return msgspec.structs.replace(facts, modules={"torch": Module(error="it is gone")})

    monkeypatch.setattr(doctor, "facts_here", broken)
    error, data = failed(call(tmp_path, "doctor", "--json"), 1)
    assert error["message"].startswith("this machine is not ready: 1 of ")
    assert states(data)["torch"] == "failure"


def test_an_accelerator_is_asked_of_a_worker(tmp_path: Path) -> None:
    _, data = failed(call(tmp_path, "doctor", "--device", "gpu", "--json"), 4)
    (provider,) = (check for check in data["checks"] if check["name"] == "provider")
    assert "cannot use CUDAExecutionProvider" in provider["found"]


# -- what is written about it ------------------------------------------------------------------------------------------


def test_the_commands_of_the_targets_readme_parse() -> None:
    text = (shipped_folder("targets") / "README.md").read_text()
    blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("mostool ")]
    assert len(lines) >= 4
    for line in lines:
        words = shlex.split(line)[1:]
        command: click.Command = app
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        parent = click.Context(app, info_name="mostool", **app.context_settings)
        with command.make_context(command.name, words, parent=parent) as context:
            assert context.args == []
