"""A board that goes wrong while it is measured: what is told, what is kept, and that the same command goes on."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from fake_board import KEYS
from made_project import call, refused, require

from faults.faulty_board import BEGUN, ROWS, Boarded, boarded, ended, made, one_thread
from toolchain.devices import link, remote
from toolchain.profiling import read_table
from toolchain.records import Failed, Timed

__all__ = ["boarded", "made", "one_thread"]

NOBODY, SOMEBODY = {"shell": "/bin/true"}, {"shell": "/bin/sh"}
"""Who meets a new connection on the board."""


def outcomes(boarded: Boarded) -> list[Timed | Failed]:
    return [row.outcome for row in read_table(boarded.table)[1]]


# -- its connection ----------------------------------------------------------------------------------------------------


@pytest.mark.fault("device-drops")
def test_a_connection_that_drops_is_found_again(boarded: Boarded) -> None:
    boarded.aim(minimum_s=0.6)
    before = boarded.lines()
    with boarded.profiling() as process:
        for _ in range(3):
            boarded.board.kill_connections()
            time.sleep(0.3)
        done = require(ended(process))
    assert (done.data["measured_now"], done.data["timed"]) == (ROWS - BEGUN, ROWS)
    assert any("was lost" in warning for warning in done.envelope["warnings"])
    boarded.keeps(before)


@pytest.mark.fault("device-drops")
def test_a_board_that_stays_away_is_exit_code_4_and_what_it_measured_is_heard_later(boarded: Boarded) -> None:
    boarded.aim(minimum_s=0.3, reconnect_s=0.2)
    before = boarded.lines()
    with boarded.profiling() as process:
        boarded.board.set(refuses=True)
        boarded.board.kill_connections()
        told = ended(process)
    require(told, 4)
    assert "Connection refused" in told.error["message"]
    assert "raspi-config" in told.error["hint"]
    (job,) = boarded.board.jobs()
    os.utime(job / "lease", (time.time() - 60,) * 2)  # a minute later
    boarded.board.set(refuses=False)
    boarded.mends(before)
    assert not job.exists()


@pytest.mark.fault("device-hangs")
def test_a_worker_that_hangs_is_ended_and_its_subnets_are_measured_all_the_same(boarded: Boarded) -> None:
    boarded.aim(minimum_s=0.3, call_timeout_s=1.5)
    before = boarded.lines()
    with boarded.profiling() as process:
        boarded.signal(signal.SIGSTOP, boarded.processes()[-1:])
        done = require(ended(process)).data
    assert (done["timed"], done["failed"]) == (ROWS, 0)
    boarded.keeps(before)


@pytest.mark.fault("device-hangs")
def test_a_device_that_hangs_altogether_is_no_subnets_fault(boarded: Boarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "BOOT_TIMEOUT_S", 1.0)
    monkeypatch.setattr(remote, "_ANSWERS_S", 1.0)
    boarded.aim(minimum_s=0.3, call_timeout_s=1.5, reconnect_s=0.2, group=1)
    before = boarded.lines()

    def freeze() -> None:
        boarded.await_said(b'"step":"rounds"')
        boarded.board.set(**NOBODY)
        boarded.signal(signal.SIGSTOP, boarded.processes())

    freezer = threading.Thread(target=freeze)
    freezer.start()
    told = boarded.profile()
    freezer.join()
    refused(told, 4, "rpi")
    assert boarded.keeps(before) == before
    boarded.signal(signal.SIGKILL, boarded.processes())
    boarded.board.set(**SOMEBODY)
    boarded.mends(before)


@pytest.mark.fault("device-reboots")
def test_a_board_that_is_restarted_measures_again_what_it_had_not_told(boarded: Boarded) -> None:
    boarded.system(boot="the first")
    boarded.aim(minimum_s=0.3)
    before = boarded.lines()
    with boarded.profiling() as process:
        boarded.system(boot="the second")
        boarded.signal(signal.SIGKILL, boarded.processes())
        done = require(ended(process)).data
    assert (done["measured_now"], done["timed"], done["failed"]) == (ROWS - BEGUN, ROWS, 0)
    boarded.keeps(before)


@pytest.mark.fault("host-key-unknown")
def test_a_host_key_nobody_has_seen_is_not_trusted(boarded: Boarded) -> None:
    known = boarded.project / "targets" / "known_hosts"
    line = known.read_text()
    known.unlink()
    refused(boarded.profile(), 4, "host key of rpi (board) is not known", "mostool devices add rpi --host board")
    assert not known.exists()
    assert not boarded.board.root.exists(), "nothing was started there"
    known.write_text(line)
    boarded.mends(boarded.lines())


@pytest.mark.fault("host-key-changed")
def test_a_host_key_that_has_changed_is_not_trusted(boarded: Boarded) -> None:
    known = boarded.project / "targets" / "known_hosts"
    line = known.read_text()
    boarded.board.set(key=KEYS[1])
    told = refused(boarded.profile(), 4, "host key of rpi (board) has changed", "devices add rpi", "--fingerprint")
    assert told.err.count("ED25519 SHA256:") == 2
    assert known.read_text() == line
    assert not boarded.board.root.exists(), "nothing was started there"


# -- its heat, its power, its clocks -----------------------------------------------------------------------------------


@pytest.mark.fault("throttling")
def test_a_board_that_throttles_for_a_while_is_waited_for(boarded: Boarded) -> None:
    boarded.firmware(0)
    boarded.aim(minimum_s=0.6)
    before = boarded.lines()
    with boarded.profiling() as process:
        boarded.firmware(0x40004)
        boarded.await_said(b'"step":"cool-down"', process)
        boarded.firmware(0x40000)
        done = require(ended(process))
    assert (done.data["measured_now"], done.data["timed"]) == (ROWS - BEGUN, ROWS)
    assert any("throttled or hot" in warning for warning in done.envelope["warnings"])
    boarded.keeps(before)


@pytest.mark.parametrize(
    ("bits", "said", "cure"),
    [
        pytest.param(0x4, "it is too hot", "fan", id="throttled", marks=pytest.mark.fault("throttling")),
        pytest.param(0x2, "holds the clock down", "fan", id="capped", marks=pytest.mark.fault("throttling")),
        pytest.param(
            0x1, "power supply is too weak", "cable", id="under-voltage", marks=pytest.mark.fault("under-voltage")
        ),
    ],
)
def test_a_board_that_stays_slow_is_not_measured(boarded: Boarded, bits: int, said: str, cure: str) -> None:
    before = boarded.lines()
    boarded.firmware(bits)
    told = refused(boarded.profile(), 4, "does not run at full speed", said, "--thermal sustained")
    assert cure in told.err.splitlines()[-1]
    assert boarded.keeps(before) == before
    boarded.firmware(0)
    boarded.mends(before)


@pytest.mark.fault("powersave")
def test_a_governor_that_keeps_the_clock_low_is_named(boarded: Boarded) -> None:
    before = boarded.lines()
    boarded.system(driver="cpufreq-dt", governor="powersave", clock="600000", highest="1800000")
    refused(boarded.profile(), 4, "clock at 600 of 1800 MHz", "governor", "cpupower frequency-set -g performance")
    doctor = require(call(boarded.project, "doctor", "--device", "rpi", "--json"))
    (check,) = (one for one in doctor.data["checks"] if one["name"] == "governor")
    assert check["state"] == "warning"
    assert check["found"].startswith("powersave")
    assert boarded.keeps(before) == before
    boarded.system(governor="performance", clock="1800000")
    boarded.mends(before)


CLOCK = """\
import os, random, time
plain, chance = time.time, random.Random(os.getpid())
time.time = lambda: plain() + chance.choice((-3e8, -86400.0, 0.0, 86400.0, 3e8))
"""


@pytest.mark.fault("clock-steps")
def test_a_clock_that_is_set_again_and_again_is_not_what_is_measured_with(
    boarded: Boarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = boarded.lines()
    boarded.program(CLOCK)
    plain, steps = time.time, iter(range(1 << 30))
    monkeypatch.setattr(time, "time", lambda: plain() + (-3e8, 0.0, 86400.0, 3e8)[next(steps) % 4])
    began = time.monotonic()
    for _ in range(4):
        told = boarded.profile("--json")
        if told.code == 0:
            break
        # A job whose end was not heard yet when the clock leapt by years is of long ago: forgotten, and made again.
        assert "run the same command again" in require(told, 4).error["hint"]
    done = require(told).data
    elapsed_s = time.monotonic() - began
    assert (done["timed"], done["failed"]) == (ROWS, 0)
    assert 0 < done["called_s"] < done["elapsed_s"] < elapsed_s
    for outcome in outcomes(boarded)[BEGUN:]:
        assert isinstance(outcome, Timed)
        assert all(0 < wall < elapsed_s for turn in outcome.rounds for wall in turn.wall_s)
    boarded.keeps(before)


# -- its runtime -------------------------------------------------------------------------------------------------------


@pytest.mark.fault("runtime-sigill")
def test_a_runtime_that_dies_when_it_is_imported_is_named(boarded: Boarded) -> None:
    before = boarded.lines()
    boarded.runtime(before="os.kill(os.getpid(), signal.SIGILL)")
    refused(boarded.profile(), 4, "SIGILL", "hint: mostool devices setup rpi")
    doctor = require(call(boarded.project, "doctor", "--device", "rpi", "--json"), 4).envelope["data"]
    (check,) = (one for one in doctor["checks"] if one["name"] == "onnxruntime")
    assert (check["state"], check["mend"]) == ("failure", "mostool devices setup rpi")
    assert boarded.keeps(before) == before
    boarded.heal()
    boarded.mends(before)


@pytest.mark.parametrize(
    ("how", "stage", "said"),
    [
        pytest.param(
            {"loading": "self.second and dies(signal.SIGSEGV)"},
            *("load", "killed by signal 11"),
            id="segv-when-tried",
            marks=pytest.mark.fault("subnet-sigsegv"),
        ),
        pytest.param(
            {"running": "self.second and os.getpid() == worker and len(calls) > 9 and dies(signal.SIGSEGV)"},
            *("worker", "SIGSEGV"),
            id="segv-when-measured",
            marks=pytest.mark.fault("subnet-sigsegv"),
        ),
        pytest.param(
            {"loading": "self.second and dies(signal.SIGKILL)"},
            *("memory", "out of memory"),
            id="killed-by-the-kernel",
            marks=pytest.mark.fault("subnet-memory"),
        ),
        pytest.param(
            {"loading": "self.second and bytearray(1 << 60)"},
            *("load", ""),
            id="allocation-refused",
            marks=pytest.mark.fault("subnet-memory"),
        ),
    ],
)
def test_a_subnet_that_ends_the_runtime_has_failed_and_the_others_are_measured(
    boarded: Boarded, how: dict[str, str], stage: str, said: str
) -> None:
    before = boarded.lines()
    boarded.runtime(**how)
    told = boarded.profile("--json")
    done = told.data
    assert (done["measured_now"], done["timed"], done["failed"]) == (ROWS - BEGUN, ROWS - 1, 1)
    assert any("could not be measured" in warning for warning in told.envelope["warnings"]), told
    (failed,) = (one for one in outcomes(boarded) if isinstance(one, Failed))
    assert failed.stage == stage
    assert said in failed.error
    boarded.keeps(before)
    assert boarded.profile("--json").data["measured_now"] == 0, "one that failed is not tried again unasked"
    boarded.heal()
    again = boarded.profile("--retry-failed", "--json").data
    assert (again["measured_now"], again["timed"], again["failed"]) == (1, ROWS, 0)


@pytest.mark.fault("opset")
def test_an_opset_above_the_runtimes_is_named(boarded: Boarded) -> None:
    before = boarded.lines()
    later = "import onnx; m = onnx.load_from_string(self.content); m.opset_import[0].version = 99"
    boarded.runtime(loading=f"{later}; self.content = m.SerializeToString()")
    refused(boarded.profile(), 4, "reference model fails on rpi", "is till opset ", "hint: mostool devices setup rpi")
    assert boarded.keeps(before) == before
    told = refused(
        call(boarded.project, "export", "--device", "rpi", "--out", "late"), 4, "is till opset ", "devices setup rpi"
    )
    assert "Traceback" not in told.err
    assert not (boarded.project / "late").exists()
    boarded.heal()
    boarded.mends(before)


@pytest.mark.fault("int8-wrong")
def test_int8_that_answers_wrongly_there_does_not_ship(boarded: Boarded) -> None:
    wrong = "found = [-one for one in found] if b'DynamicQuantizeLinear' in self.content else found"
    boarded.runtime(running=wrong)
    export = ("export", "--arch", "largest", "--device", "rpi", "--precision", "int8", "--out", "int8")
    refused(call(boarded.project, *export), 5, "on rpi: ")
    assert not (boarded.project / "int8").exists()
    boarded.heal()
    require(call(boarded.project, *export))
    boarded.runtime(running=wrong)
    refused(call(boarded.project, "verify", "int8", "--device", "rpi"), 5, "on rpi: ")
