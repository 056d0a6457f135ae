"""The CUDA driver through ctypes: what GPU this is, and memory, streams and graphs on it.

The driver's own library rather than the CUDA runtime (libcudart): it is there wherever a GPU can be used, while the
wheels of TensorRT-RTX have the runtime inside and bring no libcudart. The two share their contexts and streams.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

from .channel import RefusalError

_PLACES = ("libcuda.so.1", "/usr/local/nvidia/lib64/libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1")
_OUT_OF_MEMORY = 2
_CAPTURE_OF_THIS_THREAD = 1
_OWN_STREAM = 1
"""A stream that does not wait for the default one."""
_MAJOR, _MINOR = 75, 76
"""The device attributes that make up its compute capability."""
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceTotalMem_v2": (POINTER(c_size_t), c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDeviceGetPCIBusId": (c_char_p, c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuCtxSetCurrent": (c_void_p,),
    "cuCtxSynchronize": (),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemcpyHtoD_v2": (c_uint64, c_void_p, c_size_t),
    "cuMemcpyDtoH_v2": (c_void_p, c_uint64, c_size_t),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_uint64),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGraphDestroy": (c_void_p,),
}


def open_library(places: tuple[str, ...], signatures: dict[str, tuple[Any, ...]]) -> Any:
    """The first of these libraries that is there, its functions declared; None where none is."""
    for place in places:
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(place)
            for name, arguments in signatures.items():
                with contextlib.suppress(AttributeError):  # an old driver lacks it; who needs it will say so
                    getattr(library, name).argtypes = arguments
            return library
    return None


class Device:
    """One GPU, numbered as CUDA numbers them. `library` is libcuda, or something with its functions.

    Raises:
        RefusalError: `provider`: there is no driver, or no such GPU; later `memory` or `run`, where a call fails.
    """

    def __init__(self, number: int = 0, library: Any = None) -> None:
        self._library = library if library is not None else open_library(_PLACES, _SIGNATURES)
        if self._library is None:
            raise RefusalError("provider", "no NVIDIA driver here: libcuda.so.1 is not found")
        self._context = c_void_p()
        try:
            self._call("cuInit", 0)
            device = c_int()
            self._call("cuDeviceGet", byref(device), number)
            self._device = device.value
            self.name = self._text("cuDeviceGetName")
            self.bus = self._text("cuDeviceGetPCIBusId")
            memory, version = c_size_t(), c_int()
            self._call("cuDeviceTotalMem_v2", byref(memory), self._device)
            self._call("cuDriverGetVersion", byref(version))
            self.memory_bytes = memory.value
            self.version = f"{version.value // 1000}.{version.value % 1000 // 10}"
            self.capability = (self._attribute(_MAJOR), self._attribute(_MINOR))
        except RefusalError as refusal:
            raise RefusalError("provider", f"no NVIDIA GPU {number} here: {refusal}") from refusal

    def __str__(self) -> str:
        major, minor = self.capability
        return f"{self.name}, {self.memory_bytes >> 20} MiB, sm_{major}{minor}"

    def enter(self) -> None:
        """Make this the GPU that the calling thread, and an engine called from it, works on."""
        if not self._context:
            self._call("cuDevicePrimaryCtxRetain", byref(self._context), self._device)
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        """The address of `size` bytes."""
        address = c_uint64()
        self._call("cuMemAlloc_v2", byref(address), max(size, 1))
        return address.value

    def upload(self, array: Any, address: int) -> None:
        """Copy a contiguous numpy array there; it has arrived when this returns."""
        self._call("cuMemcpyHtoD_v2", address, array.ctypes.data, array.nbytes)
        self._call("cuCtxSynchronize")

    def download(self, address: int, array: Any) -> None:
        """Fill a contiguous numpy array from there."""
        self._call("cuMemcpyDtoH_v2", array.ctypes.data, address, array.nbytes)

    def stream(self) -> int:
        """A stream of its own."""
        stream = c_void_p()
        self._call("cuStreamCreate", byref(stream), _OWN_STREAM)
        return stream.value or 0

    def synchronize(self, stream: int) -> None:
        """Wait until all that was put into the stream is done."""
        self._call("cuStreamSynchronize", stream)

    def capture(self, stream: int, enqueue: Callable[[], None]) -> int:
        """A graph of what `enqueue` puts into the stream, ready for `launch`; nothing of it runs now."""
        graph, executable = c_void_p(), c_void_p()
        self._call("cuStreamBeginCapture_v2", stream, _CAPTURE_OF_THIS_THREAD)
        try:
            enqueue()
        except BaseException:
            self._library.cuStreamEndCapture(stream, byref(graph))  # or the stream stays unusable
            raise
        self._call("cuStreamEndCapture", stream, byref(graph))
        self._call("cuGraphInstantiateWithFlags", byref(executable), graph, 0)
        self._call("cuGraphDestroy", graph)
        return executable.value or 0

    def launch(self, graph: int, stream: int) -> None:
        self._call("cuGraphLaunch", graph, stream)

    # What fails while something is given back (the driver may be gone already) has no consequence.

    def free(self, address: int) -> None:
        self._library.cuMemFree_v2(address)

    def drop_stream(self, stream: int) -> None:
        self._library.cuStreamDestroy_v2(stream)

    def drop_graph(self, graph: int) -> None:
        self._library.cuGraphExecDestroy(graph)

    def _text(self, function: str) -> str:
        text = ctypes.create_string_buffer(256)
        self._call(function, text, len(text), self._device)
        return text.value.decode("utf-8", "replace")

    def _attribute(self, number: int) -> int:
        value = c_int()
        self._call("cuDeviceGetAttribute", byref(value), number, self._device)
        return value.value

    def _call(self, function: str, *arguments: Any) -> None:
        try:
            code = getattr(self._library, function)(*arguments)
        except AttributeError as fault:
            raise RefusalError("provider", f"the NVIDIA driver is too old: it has no {function}") from fault
        if code:
            text = c_char_p()
            self._library.cuGetErrorString(code, byref(text))
            said = (text.value or b"unknown error").decode("utf-8", "replace")
            kind = "memory" if code == _OUT_OF_MEMORY else "run"
            raise RefusalError(kind, f"{function}: {said} (CUDA error {code})")
