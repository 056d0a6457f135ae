"""A CUDA driver and NVML in Python, for the order of the calls and for errors that no real one gives at will.

They answer to any function's name, and do what the few that matter would do. fake_driver.c has the real signatures.
"""

import ctypes
from collections.abc import Callable
from typing import Any


class FakeCuda:
    """libcuda: its memory is this process's. `failing` are the codes that functions answer with."""

    def __init__(self, **failing: int) -> None:
        self.failing = failing
        self.calls: list[str] = []
        self.memory: dict[int, Any] = {}
        self.graph: list[Callable[[], None]] = []
        self._capturing: list[Callable[[], None]] | None = None
        self._acts: dict[str, Callable[..., None]] = {
            "cuDeviceGetName": lambda text, _length, _device: _set(text, b"NVIDIA Fake"),
            "cuDeviceGetPCIBusId": lambda text, _length, _device: _set(text, b"0000:01:00.0"),
            "cuGetErrorString": self._error_string,
            "cuMemAlloc_v2": self._allocate,
            "cuMemFree_v2": self.memory.pop,
            "cuMemcpyHtoD_v2": ctypes.memmove,
            "cuMemcpyDtoH_v2": ctypes.memmove,
            "cuStreamCreate": lambda stream, _flags: _set(stream, 0x51),
            "cuStreamBeginCapture_v2": self._begin,
            "cuStreamEndCapture": self._end,
            "cuGraphInstantiateWithFlags": lambda executable, _graph, _flags: _set(executable, 0x62),
            "cuGraphLaunch": self._launch,
        }

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def answer(*arguments: Any) -> int:
            self.calls.append(name)
            if name in self._acts and name not in self.failing:
                self._acts[name](*arguments)
            return self.failing.get(name, 0)

        return answer

    def put(self, work: Callable[[], None]) -> None:
        """What an engine puts into a stream: done at once, or kept while the stream is captured."""
        if self._capturing is None:
            work()
        else:
            self._capturing.append(work)

    def _error_string(self, code: int, text: Any) -> None:
        _set(text, {2: b"out of memory", 700: b"an illegal memory access was encountered"}.get(code))

    def _allocate(self, address: Any, size: int) -> None:
        buffer = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(buffer)] = buffer
        _set(address, ctypes.addressof(buffer))

    def _begin(self, _stream: int, _mode: int) -> None:
        self._capturing = []

    def _end(self, _stream: int, graph: Any) -> None:
        self.graph, self._capturing = self._capturing or [], None
        _set(graph, 0x61)

    def _launch(self, _executable: int, _stream: int) -> None:
        for work in self.graph:
            work()


class FakeNvml:
    """NVML: `nvmlDeviceGetX` answers with the number X, or that it is not supported. `code`: of the GPU's handle."""

    def __init__(self, code: int = 0, **numbers: int) -> None:
        self.code, self.numbers = code, numbers

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("nvmlDeviceGet"):
            raise AttributeError(name)
        return lambda *arguments: self._answer(name.removeprefix("nvmlDeviceGet"), *arguments)

    def _answer(self, asked: str, *arguments: Any) -> int:
        if asked == "HandleByPciBusId_v2":
            return self.code if arguments[0] == b"0000:01:00.0" else 6
        if asked not in self.numbers:
            return 3
        _set(arguments[-1], self.numbers[asked])
        return 0


def _set(reference: Any, value: Any) -> None:
    """Give a C variable a value, whether it was passed itself or by a ctypes reference."""
    getattr(reference, "_obj", reference).value = value
