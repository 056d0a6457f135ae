"""The stand-in itself: what tests of devices rely on. Skipped, with the reason, where no board can be had."""

import shlex
import subprocess
import time
from collections.abc import Iterator

import pytest

from standin.board import Board, StandinError, why_not

pytestmark = [pytest.mark.standin, pytest.mark.timeout(300)]
REFUSED = 255  # ssh's own status: nothing was run


@pytest.fixture(scope="module")
def board() -> Iterator[Board]:
    if reason := why_not():
        pytest.skip(reason)
    board = Board.up("smoke")
    yield board
    board.down()


def told(board: Board, *command: str) -> str:
    done = board.run(*command)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def python(board: Board, program: str) -> str:
    return told(board, "python3", "-c", program)


def start(board: Board, *command: str) -> "subprocess.Popen[str]":
    """A command that goes on while something happens to the board; it has said its first line."""
    ssh = ["ssh", "-F", str(board.ssh_config), board.host, *command]
    running = subprocess.Popen(ssh, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline() == "begun\n"
    return running


def test_it_is_a_64_bit_arm_machine_of_its_own(board: Board) -> None:
    assert told(board, "uname", "-m") == "aarch64"
    assert python(board, "import struct; print(struct.calcsize('P'))") == "8"
    assert told(board, "hostname") == board.name
    assert told(board, "id", "--user", "--name") == board.user
    processes = told(board, "ps", "-e", "-o", "args").splitlines()
    assert not any("pytest" in process for process in processes)


def test_it_looks_like_a_raspberry_pi(board: Board) -> None:
    shown = told(board, "cat", "/proc/cpuinfo", "/sys/firmware/devicetree/base/model")
    assert shown.count("Raspberry Pi 4 Model B Rev 1.5") == 2
    assert shown.count("0xd08") == 4
    assert f"Serial\t: {board.serial}" in shown
    assert board.run("test", "-w", "/sys/class/thermal/thermal_zone0/temp").returncode == 1


def test_it_has_no_onnxruntime_unless_asked_for(board: Board) -> None:
    assert "No module named 'onnxruntime'" in board.run("python3", "-c", "import onnxruntime").stderr


def test_its_sensors_say_what_is_injected(board: Board) -> None:
    board.inject(throttled=0x50005, temperature_c=84.9, frequency_khz=600_000, governor="powersave")
    assert told(board, "vcgencmd", "get_throttled") == "throttled=0x50005"
    assert told(board, "vcgencmd", "measure_temp") == "temp=84.9'C"
    assert told(board, "vcgencmd", "measure_clock", "arm") == "frequency(48)=600000000"
    assert told(board, "cat", "/sys/devices/system/cpu/cpu3/cpufreq/scaling_governor") == "powersave"
    board.inject(throttled=0)
    assert told(board, "vcgencmd", "get_throttled") == "throttled=0x0"


def test_a_changed_host_key_is_refused_and_the_known_one_taken_again(board: Board) -> None:
    board.change_host_key()
    refused = board.run("true")
    board.restore_host_key()
    assert refused.returncode == REFUSED
    assert "Host key verification failed" in refused.stderr
    assert board.run("true").returncode == 0


def test_a_power_cut_ends_what_runs_and_keeps_the_files(board: Board) -> None:
    boot = told(board, "cat", "/proc/sys/kernel/random/boot_id")
    with start(board, "echo begun; setsid sleep 77 & sleep 77") as running:
        told(board, "touch", "kept")
        board.kill_sshd()
        assert running.wait(timeout=10) == REFUSED
    assert board.run("true").returncode == REFUSED
    board.start_sshd()
    assert "sleep 77" not in told(board, "ps", "-e", "-o", "args")
    assert (board.home / "kept").exists()
    assert told(board, "cat", "/proc/sys/kernel/random/boot_id") != boot


def test_dropped_connections_leave_the_board_running(board: Board) -> None:
    boot = told(board, "cat", "/proc/sys/kernel/random/boot_id")
    with start(board, "echo begun; sleep 2; touch finished") as running:
        board.kill_connections()
        assert running.wait(timeout=10) == REFUSED
    assert told(board, "cat", "/proc/sys/kernel/random/boot_id") == boot
    ends = time.monotonic() + 20
    while not (board.home / "finished").exists():
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_a_frozen_connection_says_nothing_until_it_thaws(board: Board) -> None:
    with start(board, "echo begun; sleep 1; echo late") as running:
        board.freeze_connections()
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(timeout=2)
        board.thaw_connections()
        assert running.wait(timeout=20) == 0


def test_a_full_disk_fails_a_write_even_to_an_open_file(board: Board) -> None:
    program = """
import pathlib, time
stream = open("data", "wb", buffering=0)
print("begun", flush=True)
while not pathlib.Path("go").exists():
    time.sleep(0.05)
for _ in range(50):
    stream.write(bytes(8192))
"""
    (board.home / "go").unlink(missing_ok=True)
    with start(board, f"exec python3 -c {shlex.quote(program)}") as running, board.fill_disk(free_kib=64):
        (board.home / "go").touch()
        _, said = running.communicate(timeout=30)
        assert running.returncode == 1
        assert "No space left on device" in said
        assert told(board, "df", "--output=avail", ".").split()[-1] == "0"
    assert board.run("dd", "if=/dev/zero", "of=data", "bs=1M", "count=1").returncode == 0


def test_two_boards_are_two_machines(board: Board) -> None:
    other = Board.up("smoke-b", model="5")
    try:
        assert told(other, "cat", "/sys/firmware/devicetree/base/serial-number") == other.serial + "\0"
        assert other.serial != board.serial
        assert other.port != board.port
        board.inject(throttled=0x1)
        assert told(other, "vcgencmd", "get_throttled") == "throttled=0x0"
        told(other, "touch", "mine")
        assert not (board.home / "mine").exists()
        again = Board.up(other.name)  # as after a test run that was killed: nobody took it down
        assert not (again.home / "mine").exists()
        assert Board.find(other.name) == again
        assert board.run("true").returncode == 0
    finally:
        other.down()
    assert not other.home.is_mount()
    assert other.run("true").returncode == REFUSED


@pytest.mark.parametrize(("name", "model"), [("../pi", "4"), ("Pi", "4"), ("", "4"), ("pi", "3")])
def test_a_bad_name_or_model_is_refused(name: str, model: str) -> None:
    with pytest.raises(StandinError, match="a board has a name"):
        Board.up(name, model)
