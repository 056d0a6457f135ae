import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from toolchain.onboard import cuda, nvidia
from toolchain.onboard.channel import RefusalError

from .fake_cuda import FakeCuda, FakeNvml


def fake_device(**failing: int) -> tuple[cuda.Device, FakeCuda]:
    library = FakeCuda(**failing)
    device = cuda.Device(library=library)
    library.calls.clear()
    return device, library


# -- no GPU ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a driver, even where the tests run on one that has it."""
    for module in (cuda, nvidia):
        monkeypatch.setattr(module, "_PLACES", ("libno-such-driver.so.1",))


@pytest.mark.usefixtures("nothing")
@pytest.mark.parametrize("ask", [nvidia.describe, nvidia.Gpu])
def test_without_a_driver_the_missing_library_is_named(ask: type[nvidia.Gpu]) -> None:
    with pytest.raises(RefusalError, match=r"no NVIDIA driver here: libcuda\.so\.1 is not found") as refusal:
        ask()
    assert refusal.value.kind == "provider"


def test_a_driver_without_a_gpu_is_a_refusal_with_its_words() -> None:
    with pytest.raises(RefusalError, match=r"no NVIDIA GPU 0 here: cuInit: .*CUDA error 100") as refusal:
        cuda.Device(library=FakeCuda(cuInit=100))
    assert refusal.value.kind == "provider"


# -- the driver, with its real signatures ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here to build the stand-in for the driver's libraries")
    library = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    source = Path(__file__).parent / "fake_driver.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library


@pytest.fixture
def installed(driver: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (cuda, nvidia):
        monkeypatch.setattr(module, "_PLACES", (str(driver),))
    return driver


@pytest.mark.usefixtures("installed")
def test_a_gpu_and_its_driver_are_described() -> None:
    assert nvidia.describe() == {
        "accelerator": "NVIDIA Stand-in, 143771 MiB, sm_90",
        "driver": "570.86.15, CUDA 12.8",
    }


@pytest.mark.usefixtures("installed")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(RefusalError, match=r"no NVIDIA GPU 3 here: .*invalid device ordinal") as refusal:
        nvidia.describe(3)
    assert refusal.value.kind == "provider"


@pytest.mark.usefixtures("installed")
def test_the_driver_may_find_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_GPU", "none")
    with pytest.raises(RefusalError, match="no CUDA-capable device is detected"):
        nvidia.describe()


@pytest.mark.usefixtures("installed")
def test_handles_and_addresses_above_4_gib_come_through_whole() -> None:
    device = cuda.Device()
    device.enter()
    content = np.arange(12, dtype=np.float32).reshape(3, 4)
    address = device.allocate(content.nbytes)
    assert address > 1 << 32
    device.upload(content, address)
    back = np.empty_like(content)
    device.download(address, back)
    assert (back == content).all()
    stream = device.stream()
    graph = device.capture(stream, lambda: None)
    device.launch(graph, stream)
    device.synchronize(stream)
    device.drop_graph(graph)
    device.free(address)
    device.drop_stream(stream)


@pytest.mark.usefixtures("installed")
def test_more_memory_than_there_is_is_refused_as_such() -> None:
    device = cuda.Device()
    with pytest.raises(RefusalError, match="out of memory") as refusal:
        device.allocate(1 << 31)
    assert refusal.value.kind == "memory"


@pytest.mark.usefixtures("installed")
def test_a_gpu_tells_its_heat_clock_and_energy() -> None:
    gpu = nvidia.Gpu()
    reading = gpu.read()
    assert gpu.watched
    assert (reading.temperature_c, reading.frequency_hz) == (61.0, 1755e6)
    assert reading.slowed == "hardware thermal slowdown, hardware slowdown"
    assert gpu.total_energy_j() == pytest.approx(5000000000.123)
    assert gpu.clock_facts() == {
        "maximum_hz": 1980e6,
        "application_hz": None,
        "power_limit_w": 700.0,
        "persistence": True,
        "limited": "hardware thermal slowdown, hardware slowdown",
    }


# -- the driver, call by call ----------------------------------------------------------------------------------------


def test_what_is_uploaded_has_arrived() -> None:
    device, library = fake_device()
    address = device.allocate(8)
    device.upload(np.ones(2, dtype=np.float32), address)
    assert library.calls == ["cuMemAlloc_v2", "cuMemcpyHtoD_v2", "cuCtxSynchronize"]


def test_a_context_is_had_once_and_entered_each_time() -> None:
    device, library = fake_device()
    device._context.value = None
    device.enter()
    device._context.value = 5
    device.enter()
    assert library.calls == ["cuDevicePrimaryCtxRetain", "cuCtxSetCurrent", "cuCtxSetCurrent"]


def test_a_graph_is_captured_without_being_run() -> None:
    device, library = fake_device()
    ran: list[int] = []
    graph = device.capture(device.stream(), lambda: library.put(lambda: ran.append(1)))
    assert library.calls == [
        "cuStreamCreate",
        "cuStreamBeginCapture_v2",
        "cuStreamEndCapture",
        "cuGraphInstantiateWithFlags",
        "cuGraphDestroy",
    ]
    assert not ran
    device.launch(graph, 0x51)
    device.launch(graph, 0x51)
    assert ran == [1, 1]


def test_a_capture_that_fails_is_ended_all_the_same() -> None:
    device, library = fake_device()

    def fail() -> None:
        raise RuntimeError("cannot be captured")

    with pytest.raises(RuntimeError, match="cannot be captured"):
        device.capture(0x51, fail)
    assert library.calls == ["cuStreamBeginCapture_v2", "cuStreamEndCapture"]


@pytest.mark.parametrize(
    ("function", "code", "kind", "said"),
    [
        ("cuMemAlloc_v2", 2, "memory", "out of memory"),
        ("cuStreamSynchronize", 700, "run", "an illegal memory access was encountered"),
        ("cuGraphInstantiateWithFlags", 901, "run", "unknown error"),
    ],
)
def test_an_error_is_a_refusal_in_the_drivers_words(function: str, code: int, kind: str, said: str) -> None:
    device, _ = fake_device(**{function: code})
    calls = {
        "cuMemAlloc_v2": lambda: device.allocate(1),
        "cuStreamSynchronize": lambda: device.synchronize(0x51),
        "cuGraphInstantiateWithFlags": lambda: device.capture(0x51, lambda: None),
    }
    with pytest.raises(RefusalError, match=rf"{function}: {said} \(CUDA error {code}\)") as refusal:
        calls[function]()
    assert refusal.value.kind == kind


def test_a_driver_that_lacks_a_function_is_too_old() -> None:
    class OldDriver(FakeCuda):
        def __getattr__(self, name: str) -> Callable[..., int]:
            if name == "cuGraphInstantiateWithFlags":
                raise AttributeError(name)
            return super().__getattr__(name)

    device = cuda.Device(library=OldDriver())
    with pytest.raises(RefusalError, match="too old: it has no cuGraphInstantiateWithFlags"):
        device.capture(0x51, lambda: None)


# -- NVML ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reasons", "slowed"),
    [
        (0x1, ""),  # idle
        (0x2 | 0x4 | 0x10 | 0x100, ""),  # as it is set up, or at its power limit
        (0x20, "software thermal slowdown"),
        (0x40, "hardware thermal slowdown"),
        (0x80 | 0x4, "hardware power brake"),
        (0x8, "hardware slowdown"),
    ],
)
def test_a_gpu_is_slowed_by_heat_or_a_weak_supply_not_by_its_power_limit(reasons: int, slowed: str) -> None:
    device, _ = fake_device()
    gpu = nvidia.Gpu(device=device, library=FakeNvml(CurrentClocksThrottleReasons=reasons, Temperature=70, ClockInfo=9))
    assert gpu.read().slowed == slowed
    assert gpu.read().temperature_c == 70.0


def test_a_power_limit_is_told_for_the_record() -> None:
    device, _ = fake_device()
    gpu = nvidia.Gpu(device=device, library=FakeNvml(CurrentClocksThrottleReasons=0x4, PersistenceMode=0))
    facts = gpu.clock_facts()
    assert facts["limited"] == "software power cap"
    assert facts["persistence"] is False


def test_a_sensor_that_a_gpu_has_not_says_nothing() -> None:
    device, _ = fake_device()
    gpu = nvidia.Gpu(device=device, library=FakeNvml())
    assert gpu.watched
    assert gpu.read() == (None, None, None, None, "")
    assert gpu.total_energy_j() is None


def test_a_gpu_that_nvml_does_not_know_is_not_watched() -> None:
    device, _ = fake_device()
    gpu = nvidia.Gpu(device=device, library=FakeNvml(code=6, Temperature=70))
    assert not gpu.watched
    assert gpu.read().temperature_c is None


def test_a_jetsons_driver_is_known_by_its_board_software(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "nv_tegra_release").write_text(
        "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n"
    )
    monkeypatch.setenv("MOSTOOL_SYSROOT", str(tmp_path))
    assert nvidia._driver_version(None) == "L4T 36.4.3"


@pytest.mark.parametrize(("options", "number"), [({}, 0), ({"device_id": "2"}, 2)])
def test_a_request_says_which_gpu(options: dict[str, str], number: int) -> None:
    assert nvidia.device_of({"provider_options": options}) == number


def test_a_gpu_by_another_name_than_a_number_is_refused() -> None:
    with pytest.raises(RefusalError, match="device_id must be a number"):
        nvidia.device_of({"provider_options": {"device_id": "first"}})
