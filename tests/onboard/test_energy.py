import stat
import threading
import time
from pathlib import Path

import pytest

from toolchain.onboard.energy import Counter, Meter, Sampled, find_meter, measure_energy, rails_w, under

PI_5 = """\
 3V7_WL_SW_A current(0)=0.10000000A
   3V3_SYS_A current(1)=0.20000000A
   1V8_SYS_A current(2)=0.50000000A
 3V7_WL_SW_V volt(8)=3.70000000V
   3V3_SYS_V volt(9)=3.30000000V
   1V8_SYS_V volt(10)=1.80000000V
     EXT5V_V volt(24)=5.14000000V
"""
PI_4 = 'error=1 error_msg="Command not registered"\n'


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without sensors."""
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setenv("MOSTOOL_SYSROOT", str(root))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return root


def put(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")
    return folder


def vcgencmd(tmp_path: Path, text: str) -> None:
    command = put(tmp_path / "bin", vcgencmd=f"#!/bin/sh\n/bin/cat <<'END'\n{text}END\n") / "vcgencmd"
    command.chmod(command.stat().st_mode | stat.S_IXUSR)


def joules(meter: Meter) -> float | None:
    window = meter.end()
    return None if window is None else window.joules


def no_wait(seconds: float) -> None:
    """In place of a sleep: nothing happens while the machine idles."""


# -- counters --------------------------------------------------------------------------------------------------------


def package(root: Path, number: int, microjoules: int, span: int = 10_000_000) -> Path:
    zone = root / "sys/class/powercap" / f"intel-rapl:{number}"
    return put(zone, name=f"package-{number}", energy_uj=microjoules, max_energy_range_uj=span)


def test_the_processor_packages_are_counted_once_each(bare: Path) -> None:
    zones = [package(bare, 0, 1_000_000), package(bare, 1, 2_000_000)]
    put(bare / "sys/class/powercap/intel-rapl:0:0", name="core", energy_uj=7, max_energy_range_uj=9)
    put(bare / "sys/class/powercap/intel-rapl:2", name="psys", energy_uj=7, max_energy_range_uj=9)
    put(bare / "sys/class/powercap/intel-rapl-mmio:0", name="package-0", energy_uj=7, max_energy_range_uj=9)
    meter = find_meter()
    assert meter is not None
    assert meter.name == "rapl"
    assert "packages alone" in meter.limits
    meter.begin()
    put(zones[0], energy_uj=1_500_000)
    put(zones[1], energy_uj=2_250_000)
    assert joules(meter) == pytest.approx(0.75)


def test_a_counter_that_starts_again_from_0_goes_on_counting(bare: Path) -> None:
    zone = package(bare, 0, 9_999_000)
    meter = find_meter()
    assert meter is not None
    meter.begin()
    put(zone, energy_uj=4_000)
    assert joules(meter) == pytest.approx(0.005)


def test_a_calls_energy_is_what_the_busy_window_took_more(bare: Path) -> None:
    zone = package(bare, 0, 0, span=10**12)
    spent = [0]

    def draw(microjoules: int) -> None:
        spent[0] += microjoules
        put(zone, energy_uj=spent[0])

    def rest(seconds: float) -> None:
        time.sleep(seconds)
        draw(int(seconds * 2e6))  # 2 W

    def call() -> None:
        rest(0.005)
        draw(300_000)

    meter = find_meter()
    assert meter is not None
    found = measure_energy(call, 0.2, meter, rest)
    assert found is not None
    assert found["sensor"] == "rapl"
    assert found["calls"] > 5
    assert found["idle_w"] == pytest.approx(2, rel=0.1)
    assert found["joules_per_call"] == pytest.approx(0.3, rel=0.1)
    assert found["window_s"] >= 0.2


def test_what_cannot_be_told_from_nothing_costs_nothing_and_never_less() -> None:
    joules = iter([0.0, 5.0, 5.0, 9.0])
    found = measure_energy(lambda: time.sleep(0.01), 0.05, Counter("meter", "", lambda: next(joules)), time.sleep)
    assert found is not None
    assert found["joules_per_call"] == 0.0


def test_a_sensor_that_falls_silent_gives_no_number() -> None:
    readings = iter([1.0, 2.0, 3.0, None])
    assert measure_energy(lambda: None, 0.01, Counter("meter", "", lambda: next(readings)), no_wait) is None


def test_a_counter_that_only_root_may_read_is_none(bare: Path) -> None:
    put(bare / "sys/class/powercap/intel-rapl:0", name="package-0", max_energy_range_uj=9)
    assert find_meter() is None


# -- power, sampled --------------------------------------------------------------------------------------------------


def test_samples_are_joined_by_lines() -> None:
    assert under([(0.0, 2.0), (1.0, 2.0), (3.0, 4.0)]) == pytest.approx((2 + 6, 3))
    assert under([(0.0, 2.0)]) is None


def test_power_is_sampled_while_the_calls_run() -> None:
    busy = threading.Event()
    meter = Sampled("meter", "", lambda: 5.0 if busy.is_set() else 2.0, period_s=0.002)

    def call() -> None:
        busy.set()
        time.sleep(0.01)

    found = measure_energy(call, 0.3, meter)
    assert found is not None
    assert found["idle_w"] == pytest.approx(2.0)
    assert found["busy_w"] == pytest.approx(5.0, rel=0.1)
    assert found["joules_per_call"] == pytest.approx(3 * found["window_s"] / found["calls"], rel=0.1)


def test_a_power_sensor_that_stops_answering_gives_no_number() -> None:
    meter = Sampled("meter", "", lambda: None)
    assert measure_energy(lambda: None, 0.01, meter, no_wait) is None


@pytest.mark.parametrize(
    ("files", "name", "watts"),
    [
        ({"name": "ina226", "power1_input": 4_250_000}, "ina226", 4.25),
        ({"name": "ina219", "in1_input": 5100, "curr1_input": 800}, "ina219", 4.08),
        (
            {"name": "ina3221", "in1_label": "VDD_CPU_GPU_CV", "in1_input": 19000, "curr1_input": 100}
            | {"in2_label": "VDD_IN", "in2_input": 19000, "curr2_input": 500},
            "ina3221 VDD_IN",
            9.5,
        ),
    ],
)
def test_a_boards_power_sensor_is_found(bare: Path, files: dict[str, object], name: str, watts: float) -> None:
    put(bare / "sys/class/hwmon/hwmon0", name="coretemp", temp1_input=40000)
    put(bare / "sys/class/hwmon/hwmon1", **files)
    meter = find_meter()
    assert meter is not None
    assert meter.name == name
    meter.begin()
    time.sleep(0.1)
    window = meter.end()
    assert window is not None
    assert window.watts == pytest.approx(watts)
    assert window.seconds >= 0.1


def test_of_a_three_channel_sensor_only_a_rail_that_is_all_counts(bare: Path) -> None:
    put(bare / "sys/class/hwmon/hwmon0", name="ina3221", in1_label="VDD_CPU", in1_input=1, curr1_input=1)
    assert find_meter() is None


def test_a_pi_5s_rails_are_added_up() -> None:
    assert rails_w(PI_5) == pytest.approx(0.1 * 3.7 + 0.2 * 3.3 + 0.5 * 1.8)


@pytest.mark.parametrize(
    "text", ["", PI_4, "\n\n", "3V3_SYS_A current(1)=0.06A\n", "VDD_A current(1)=A\nVDD_V volt(1)=V\n"]
)
def test_what_is_no_list_of_rails_is_no_power(text: str) -> None:
    assert rails_w(text) is None


def test_a_pi_5_is_asked_by_vcgencmd(tmp_path: Path) -> None:
    vcgencmd(tmp_path, PI_5)
    meter = find_meter()
    assert meter is not None
    assert meter.name == "pmic"
    assert "no USB" in meter.limits
    meter.begin()
    window = meter.end()
    assert window is not None
    assert window.watts == pytest.approx(0.1 * 3.7 + 0.2 * 3.3 + 0.5 * 1.8)


def test_a_pi_4_has_no_sensor(tmp_path: Path) -> None:
    vcgencmd(tmp_path, PI_4)
    assert find_meter() is None


def test_a_machine_without_sensors_has_no_meter() -> None:
    assert find_meter() is None


# -- a GPU -----------------------------------------------------------------------------------------------------------


def test_a_gpus_own_counter_comes_before_all(bare: Path) -> None:
    package(bare, 0, 0)
    meter = find_meter(lambda: 12.0)
    assert meter is not None
    assert meter.name == "nvml"


def test_a_processors_energy_is_never_taken_for_a_gpus(bare: Path, tmp_path: Path) -> None:
    package(bare, 0, 0)
    vcgencmd(tmp_path, PI_5)
    assert find_meter(lambda: None) is None
    put(bare / "sys/class/hwmon/hwmon3", name="ina3221", in1_label="VDD_IN", in1_input=19000, curr1_input=500)
    meter = find_meter(lambda: None)
    assert meter is not None
    assert meter.name == "ina3221 VDD_IN"
