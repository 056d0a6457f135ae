"""How the system's ssh is called, asked of a real one with -G; and what its complaints are taken for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from fake_board import KEYS, FakeBoard, board

from toolchain.devices import ssh as system_ssh
from toolchain.devices.link import LOADER_LINE, Link
from toolchain.errors import DeviceError, UsageError
from toolchain.progress import silent_tell
from toolchain.targets import Ssh, Target

__all__ = ["board"]

TARGET = Target(id="rpi", title="a board", connection=Ssh(host="board"))
BEHIND = "kex_exchange_identification: Connection closed by remote host\n"
FAILED = "Host key verification failed.\n"
UNKNOWN = "No ED25519 host key is known for {} and you have requested strict checking.\nHost key verification failed.\n"


def told(project: Path, reach: Ssh) -> dict[str, str]:
    """What a real ssh makes of the arguments it is given."""
    arguments = system_ssh.command(TARGET, reach, project, ["true"])
    asked = subprocess.run([arguments[0], "-G", *arguments[1:]], capture_output=True, text=True, check=True)
    found: dict[str, str] = {}
    for line in asked.stdout.splitlines():
        name, _, value = line.partition(" ")
        found.setdefault(name, value)
    return found


def configured(folder: Path, text: str) -> Ssh:
    path = folder / "ssh_config"
    path.write_text(text)
    return Ssh(host="board", config=str(path))


# -- how it is called --------------------------------------------------------------------------------------------------


def test_what_the_users_ssh_shares_or_runs_is_not_ours(tmp_path: Path) -> None:
    reach = configured(
        tmp_path,
        "ControlMaster auto\nControlPath /tmp/shared-%C\nControlPersist yes\nRemoteCommand tmux\n"
        "StdinNull yes\nForkAfterAuthentication yes\nSessionType none\n",
    )
    found = told(tmp_path, reach)
    assert found["controlmaster"] == "false"
    assert "controlpath" not in found
    assert "remotecommand" not in found
    assert (found["stdinnull"], found["forkafterauthentication"], found["sessiontype"]) == ("no", "no", "default")


@pytest.mark.parametrize(
    ("says", "newer"),
    [("OpenSSH_8.4p1 Debian-5+deb11u3, OpenSSL 1.1.1w", False), ("OpenSSH_for_Windows_9.5p1", True), ("what?", False)],
)
def test_an_older_ssh_is_not_given_what_it_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, newer: bool
) -> None:
    (tmp_path / "ssh").write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    arguments = system_ssh.command(TARGET, Ssh(host="board"), tmp_path, ["true"])
    assert ("StdinNull=no" in arguments) is newer
    assert "ControlMaster=no" in arguments


@pytest.mark.parametrize("name", ["o'brien", 'a"b', "100%done", "%h", "a b", "back\\slash", "#x", "$x", "~", "a  b"])
def test_a_project_may_have_any_name(tmp_path: Path, name: str) -> None:
    project = tmp_path / name
    project.mkdir()
    (project / "key").touch()
    theirs = tmp_path / name / "theirs"
    quoted = '"' + str(theirs).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'
    reach = configured(tmp_path, f"UserKnownHostsFile {quoted} /nowhere/second\n")
    reach = msgspec.structs.replace(reach, identity="key")
    own = str(project / "targets" / "known_hosts")
    assert system_ssh.trusted_files(TARGET, reach, project) == [own, str(theirs), "/nowhere/second"]
    found = told(project, reach)
    assert found["userknownhostsfile"] == f"{own} {theirs} /nowhere/second"
    assert found["identityfile"].replace("%%", "%") == str(project / "key")


@pytest.mark.parametrize("name", ["${x}", "a\nb"])
def test_a_project_that_ssh_cannot_be_told_of_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="ssh cannot be told of") as caught:
        system_ssh.command(TARGET, Ssh(host="board"), tmp_path / name, ["true"])
    assert "rename" in caught.value.hint


def test_no_ssh_may_ask_on_a_terminal() -> None:
    script = "import os; print(os.getsid(0) == os.getpid(), os.environ['SSH_ASKPASS_REQUIRE'])"
    assert system_ssh._run([sys.executable, "-c", script]).stdout == "True never\n"


def test_what_an_ssh_started_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_ssh, "_ASKED_S", 0.3)
    began = time.monotonic()
    asked = system_ssh._run(["/bin/sh", "-c", "sleep 20 & sleep 20"])
    assert time.monotonic() - began < 10
    assert (asked.returncode, asked.stderr) == (255, "/bin/sh: timed out after 0.3 s")


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
@pytest.mark.parametrize("program", ["~/bin dir/it's", "~/$(false)", "plain"])
def test_a_program_below_the_home_folder_is_found_there(tmp_path: Path, shell: str, program: str) -> None:
    remote = system_ssh.command(TARGET, Ssh(host="board"), tmp_path, ["echo", "~/a b"])[-1]
    assert remote == "echo '~/a b'", "what is no program is text"
    path = tmp_path / program.removeprefix("~/")
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\necho it ran: $1\n")
    path.chmod(0o755)
    remote = system_ssh.command(TARGET, Ssh(host="board"), tmp_path, [program, "one"])[-1]
    variables = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:/bin:/usr/bin"}
    ran = subprocess.run([shell, "-c", remote], env=variables, capture_output=True, text=True, check=True)
    assert ran.stdout == "it ran: one\n"


# -- what it complains of ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "config", "jump", "typed"),
    [
        (FAILED + BEHIND, "proxyjump gate", "gate", "gate"),
        (UNKNOWN.format("10.0.0.1") + BEHIND, "proxyjump gate", "gate", "gate"),
        (UNKNOWN.format("[gate]:2222") + BEHIND, "proxyjump pi@gate:2222", "pi@gate:2222", "-p 2222 pi@gate"),
        (UNKNOWN.format("inner") + BEHIND, "proxyjump gate,inner", "inner", "inner"),
        (FAILED + BEHIND, "proxyjump pi@gate,inner", "pi@gate,inner", "board"),
        (UNKNOWN.format("[board]:22022") + BEHIND, "port 2022", "[board]:22022", "-p 22022 board"),
        (UNKNOWN.format("board"), "proxyjump gate", "", ""),
        (UNKNOWN.format("BOARD"), "", "", ""),
        (UNKNOWN.format("[board]:2022"), "port 2022", "", ""),
        (UNKNOWN.format("kitchen"), "hostkeyalias kitchen\nproxyjump gate", "", ""),
        (FAILED, "", "", ""),
    ],
)
def test_an_unknown_key_on_the_way_is_not_taken_for_the_devices(
    board: FakeBoard, tmp_path: Path, said: str, config: str, jump: str, typed: str
) -> None:
    board.know(tmp_path)
    board.set(config=config, status=255, says=said)
    reach = Ssh(host="board")
    error = system_ssh.complaint(TARGET, reach, tmp_path, said)
    assert "host key" in error.what
    if jump:
        assert f"the host key of {jump} is not known" in error.what
        assert error.hint == f"settle it by hand: ssh {typed}"
        with pytest.raises(DeviceError, match="is not known, and rpi"):
            system_ssh.try_login(TARGET, reach, tmp_path)
    else:
        assert "devices add rpi" in error.hint
        assert system_ssh.try_login(TARGET, reach, tmp_path).key == "unknown"


def test_a_changed_key_on_the_way_is_not_taken_for_the_devices(board: FakeBoard, tmp_path: Path) -> None:
    said = (
        "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key for gate has changed and you have requested\n"
    )
    error = system_ssh.complaint(TARGET, Ssh(host="board"), tmp_path, said)
    assert error.what == "the host key of gate has changed, and rpi (board) is behind it"


def test_a_key_with_a_passphrase_is_thought_of(board: FakeBoard, tmp_path: Path) -> None:
    error = system_ssh.complaint(TARGET, Ssh(host="board"), tmp_path, "pi@board: Permission denied (publickey).\n")
    assert "ssh-copy-id" in error.hint
    assert "ssh-add" in error.hint


# -- what it is told to run --------------------------------------------------------------------------------------------


def test_a_key_that_is_stored_under_a_name_with_quotes_is_known(board: FakeBoard, tmp_path: Path) -> None:
    project = tmp_path / 'a "b" 100%'
    keys = system_ssh.offered_keys(TARGET, Ssh(host="board"), project)
    system_ssh.trust(project, keys)
    assert [key.line for key in keys] == [f"board ssh-ed25519 {KEYS[0]}"]
    assert system_ssh.try_login(TARGET, Ssh(host="board"), project).key == "known"


def reach_of(board: FakeBoard, project: Path, python: str = sys.executable, folder: str = "~/.cache/mostool") -> Link:
    board.know(project)
    reach = Ssh(host="board", python=python, folder=folder)
    return Link(msgspec.structs.replace(TARGET, connection=reach), reach, project, silent_tell)


def test_the_loader_is_one_line_for_any_shell() -> None:
    assert not set("'!\n\\`$") & set(LOADER_LINE)


def test_a_banner_without_a_lines_end_hides_nothing(board: FakeBoard, tmp_path: Path) -> None:
    board.set(banner="Welcome\n\nYou have mail")
    for _ in range(2):  # the agent is sent, and then there
        reach_of(board, tmp_path).close()


@pytest.mark.skipif(shutil.which("tcsh") is None, reason="no tcsh here")
def test_an_agent_starts_from_a_csh(board: FakeBoard, tmp_path: Path) -> None:
    board.set(shell=shutil.which("tcsh"))
    reach_of(board, tmp_path, folder="~/a b/it's").close()
    assert list((board.folder / "a b" / "it's").glob("agent-*.pyz"))


def test_a_python_below_the_home_folder_starts_the_agent(board: FakeBoard, tmp_path: Path) -> None:
    program = board.folder / "my venv" / "python"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    program.chmod(0o755)
    reach_of(board, tmp_path, python="~/my venv/python").close()
    with pytest.raises(DeviceError, match="has no ~/none/python3"):
        reach_of(board, tmp_path, python="~/none/python3")


@pytest.mark.parametrize(("status", "told"), [(1, "status 1: it said nothing"), (255, "without a word"), (127, "")])
def test_an_ssh_that_says_blanks_alone_is_explained(board: FakeBoard, tmp_path: Path, status: int, told: str) -> None:
    board.set(status=status, says=" \n\n")
    with pytest.raises(DeviceError) as caught:
        reach_of(board, tmp_path)
    assert told in caught.value.why
    assert caught.value.hint


def test_a_folder_that_cannot_be_written_is_told_in_words(board: FakeBoard, tmp_path: Path) -> None:
    (board.folder / "file").touch()
    with pytest.raises(DeviceError, match="cannot keep the agent") as caught:
        reach_of(board, tmp_path, folder="~/file/below")
    assert caught.value.why == f"Not a directory: {board.folder}/file/below"
