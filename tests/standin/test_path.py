"""The whole path on an arm64 userland behind a real sshd, as a user types it. Its timings are emulated: none counts.

Add, set up, look, profile, export, verify; then what goes wrong in mid-run: heat, a dead sshd, a dropped network,
another host key, a full disk, a missing runtime; and two boards at once.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from made_project import Called, Made, call, copied, journal_lines, measured_ids, refused, require, started

from standin.board import Board, why_not

pytestmark = [pytest.mark.standin, pytest.mark.timeout(600)]

MEASURE = """
[measure]
group = 4
warmup_s = 0.01
calls_per_turn = 2
minimum_rounds = 5
minimum_s = 0.02
maximum_s = 0.5
half_width = 0.05
cooling_poll_s = 0.2
cooling_s = 60.0
"""
ROWS = 9


class Gone(NamedTuple):
    """A project that has gone the path on a board, and what each command said."""

    root: Path
    table: Path
    said: dict[str, Called]


@pytest.fixture(scope="module")
def pi() -> Iterator[Board]:
    if reason := why_not():
        pytest.skip(reason)
    board = Board.up("path-a")
    yield board
    board.down()


@pytest.fixture(scope="module")
def path(pi: Board, made: Made, tmp_path_factory: pytest.TempPathFactory) -> Gone:
    """From a board that has nothing but python3 to a verified bundle. Look, do not touch."""
    root = copied(made.root, tmp_path_factory.mktemp("standin") / "project")
    said: dict[str, Called] = {}
    add = ("devices", "add", "rpi", "--like", "rpi4", "--host", pi.host, "--ssh-config", pi.ssh_config)
    known = _without_known_hosts(pi)
    said["add unknown"] = call(root, *add)
    fingerprint = next(word for word in said["add unknown"].err.split() if word.startswith("SHA256:")).strip(".,;")
    said["add"] = call(root, *add, "--fingerprint", fingerprint, "--json")
    known.restore()
    _hasty(root, "rpi")
    said["doctor before"] = call(root, "doctor", "--device", "rpi", "--json")
    said["profile before"] = call(root, "profile", "--device", "rpi", "--n", str(ROWS))
    said["setup"] = require(call(root, "devices", "setup", "rpi", "--from", "host"))
    said["doctor"] = call(root, "doctor", "--device", "rpi", "--json")
    said["test"] = call(root, "devices", "test", "rpi")
    said["profile"] = require(call(root, "profile", "--device", "rpi", "--n", str(ROWS), "--json"))
    (table,) = (root / "profiles" / "rpi").iterdir()
    search = ("search", "--device", "rpi", "--latency", "10s", "--evaluations", "10", "--remeasure", "0")  # slow enough
    said["search"] = require(call(root, *search))
    said["export"] = require(
        call(root, "export", "--format", "onnx", "--device", "rpi", "--out", "bundles/on-rpi", "--json")
    )
    said["verify"] = require(call(root, "verify", "bundles/on-rpi", "--device", "rpi"))
    return Gone(root, table, said)


class _KnownHosts(NamedTuple):
    path: Path
    content: bytes

    def restore(self) -> None:
        self.path.write_bytes(self.content)


def _without_known_hosts(pi: Board) -> _KnownHosts:
    """Let nobody know the board's key: the stand-in's own ssh settings already do."""
    (line,) = (line for line in pi.ssh_config.read_text().splitlines() if "UserKnownHostsFile" in line)
    path = Path(line.split()[-1])
    kept = _KnownHosts(path, path.read_bytes())
    path.write_bytes(b"")
    return kept


def _hasty(root: Path, device: str) -> None:
    """Measure as little as a test needs: an emulated board takes hundreds of times as long."""
    path = root / "targets" / f"{device}.toml"
    text = path.read_text()
    assert "[measure]" in text
    path.write_text(text.partition("[measure]")[0].rstrip() + "\n" + MEASURE)


@pytest.fixture
def project(path: Gone, tmp_path: Path) -> Path:
    """A copy of the project, with the board added and its table."""
    return copied(path.root, tmp_path / "project")


def _at_work(pi: Board, process: subprocess.Popen[bytes]) -> None:
    """Until a worker on the board is in the middle of its rounds."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        for said in (pi.home / ".cache" / "mostool" / "jobs").glob("*/out.jsonl"):
            if b'"step":"rounds"' in said.read_bytes():
                return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError("no rounds were seen")


def _ended(process: subprocess.Popen[bytes]) -> Called:
    out, err = process.communicate(timeout=300)
    return Called(process.returncode, out.decode(), err.decode())


MORE = ROWS + 4
PROFILE = ("profile", "--device", "rpi", "--n", str(MORE), "--json")


# -- the path --------------------------------------------------------------------------------------------------------


def test_a_board_is_added_once_its_key_is_vouched_for(path: Gone) -> None:
    refused(path.said["add unknown"], 4, "SHA256:", "--fingerprint")
    assert path.said["add"].code == 0
    assert (path.root / "targets" / "known_hosts").is_file()
    assert call(path.root, "devices", "show", "rpi", "--json").data["connection"]["kind"] == "ssh"


def test_a_missing_runtime_is_named_and_mended(path: Gone) -> None:
    before = path.said["doctor before"]
    assert before.code == 4
    failing = {one["name"]: one for one in before.envelope["data"]["checks"] if one["state"] == "failure"}
    assert "onnxruntime" in failing
    assert "devices setup rpi" in failing["onnxruntime"]["mend"]
    refused(path.said["profile before"], 4, "lacks onnxruntime", "mostool devices setup rpi")
    after = path.said["doctor"]
    assert after.code == 0, after
    states = {one["name"]: one["state"] for one in after.data["checks"]}
    assert states["onnxruntime"] == states["numpy"] == "ok"
    assert path.said["test"].code == 0, path.said["test"]


def test_the_table_is_whole_and_says_that_it_is_emulated(path: Gone) -> None:
    data = path.said["profile"].data
    assert (data["measured_now"], data["timed"], data["failed"]) == (ROWS, ROWS, 0)
    assert data["source"] == "emulated"
    environment = data["environment"]
    assert environment["machine"] == "aarch64"
    assert environment["cpu"] == "Cortex-A72"
    assert environment["board"].startswith("Raspberry Pi 4")
    assert "qemu" in environment["emulator"]
    assert data["noise_floor"]["copies"] == 4
    assert any("emulated" in warning for warning in path.said["profile"].envelope["warnings"])
    assert len(set(measured_ids(path.table))) == len(journal_lines(path.table)) == ROWS
    again = call(path.root, "profile", "--device", "rpi", "--n", str(ROWS), "--json")
    assert again.data["measured_now"] == 0


def test_no_emulated_number_goes_without_the_word(path: Gone) -> None:
    assert "emulated" in path.said["search"].out
    exported = path.said["export"].data["manifest"]
    assert exported["environment"]["emulator"]
    assert [one["source"] for one in exported["budgets"] if one["budget"]["metric"] == "latency_s"] == ["emulated"]
    assert exported["device_parity_max_abs_error"] < 1e-4
    assert "emulated" in path.said["verify"].out
    predicted = call(path.root, "predict", "--device", "rpi", "--arch", "smallest", "--json").data["predictions"]
    assert predicted[0]["source"] == "emulated"


def test_an_emulated_table_is_never_taken_where_a_real_one_is(path: Gone) -> None:
    """The board was profiled last, and yet."""
    assert call(path.root, "predict", "--arch", "smallest", "--json").data["device"] == "quick"


# -- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_throttled_board_is_waited_for_and_measured_again(pi: Board, project: Path) -> None:
    with started(project, *PROFILE) as process:
        _at_work(pi, process)
        pi.inject(throttled=0x50005, temperature_c=84.9)
        time.sleep(3)
        assert process.poll() is None
        pi.inject(throttled=0x50000, temperature_c=48.3)
        done = require(_ended(process))
    try:
        assert (done.data["measured_now"], done.data["timed"]) == (4, MORE)
        (table,) = (project / "profiles" / "rpi").iterdir()
        rows = [json.loads(line)["record"]["outcome"]["conditions"] for line in journal_lines(table)]
        assert max(row["rounds_discarded"] for row in rows) >= 1
        assert max(row["cooled_s"] for row in rows) > 1
        assert any("discarded" in warning for warning in done.envelope["warnings"])
    finally:
        pi.inject(throttled=0)


@pytest.mark.parametrize("way", ["sshd", "network"])
def test_a_board_that_goes_away_in_mid_run_is_found_again(pi: Board, project: Path, way: str) -> None:
    with started(project, *PROFILE) as process:
        _at_work(pi, process)
        if way == "sshd":
            pi.kill_sshd()
            time.sleep(2)
            pi.start_sshd()
        else:
            pi.kill_connections()
        done = require(_ended(process))
    assert (done.data["measured_now"], done.data["timed"], done.data["failed"]) == (4, MORE, 0)
    assert any("connection to rpi was lost" in warning for warning in done.envelope["warnings"])
    (table,) = (project / "profiles" / "rpi").iterdir()
    assert len(set(measured_ids(table))) == len(journal_lines(table)) == MORE


def test_another_host_key_stops_everything(pi: Board, project: Path) -> None:
    pi.change_host_key()
    try:
        told = refused(call(project, *PROFILE[:-1]), 4, "host key of rpi", "has changed", "SHA256:")
        assert told.err.count("SHA256:") >= 2
    finally:
        pi.restore_host_key()
    assert require(call(project, "profile", "--device", "rpi", "--n", str(ROWS), "--json")).data["measured_now"] == 0


def test_a_full_disk_on_the_board_is_told_and_what_was_measured_is_kept(pi: Board, project: Path) -> None:
    (table,) = (project / "profiles" / "rpi").iterdir()
    before = journal_lines(table)
    pi.fill_disk()
    try:
        refused(call(project, "profile", "--device", "rpi", "--n", "11"), 4, "has no room")
    finally:
        pi.free_disk()
    assert journal_lines(table)[: len(before)] == before
    assert require(call(project, "profile", "--device", "rpi", "--n", "11", "--json")).data["timed"] == 11


def test_another_board_under_the_old_name_is_refused(pi: Board, project: Path) -> None:
    other = Board.up("path-b", model="5")
    try:
        add = ("--host", other.host, "--ssh-config", other.ssh_config, "--accept-new-host-key")
        require(call(project, "devices", "add", "rpi", "--like", "rpi5", *add, "--force"))
        _hasty(project, "rpi")
        require(call(project, "devices", "setup", "rpi", "--from", "host"))
        told = refused(call(project, "profile", "--device", "rpi", "--n", "12"), 4, "another kind", "--fresh")
        assert "Cortex-A72" in told.err
        assert "Cortex-A76" in told.err
        # and both at once, each under a name of its own
        add = ("--host", pi.host, "--ssh-config", pi.ssh_config, "--accept-new-host-key")
        require(call(project, "devices", "add", "rpi-a", "--like", "rpi4", *add))
        add_other = ("--host", other.host, "--ssh-config", other.ssh_config, "--accept-new-host-key")
        require(call(project, "devices", "add", "rpi-b", "--like", "rpi5", *add_other))
        for device in ("rpi-a", "rpi-b"):
            _hasty(project, device)
        both = call(project, "profile", "--device", "rpi-a", "--device", "rpi-b", "--n", "4", "--json")
        data: Any = require(both).data
        assert [(one["device"], one["timed"]) for one in data] == [("rpi-a", 4), ("rpi-b", 4)]
        assert [one["environment"]["cpu"] for one in data] == ["Cortex-A72", "Cortex-A76"]
    finally:
        other.down()
        shutil.rmtree(project, ignore_errors=True)
