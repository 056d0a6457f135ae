"""ONNX Runtime, with whichever execution provider is asked for; never with another one."""

from __future__ import annotations

import re
from typing import Any

from .channel import RefusalError, Request

_ON_GPU = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")
_PLACE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (?:/\S+:\d+ .*?\) (?=[A-Z]))?")
"""Where in its C++ an error was raised: longer than what it says."""
_SHAPE_WORK = {
    *("Shape", "Size", "Constant", "ConstantOfShape", "Range", "Gather", "Slice", "Concat", "Unsqueeze", "Squeeze"),
    *("Reshape", "Expand", "Cast", "Identity", "Add", "Sub", "Mul", "Div", "Mod", "Equal", "Where", "Min", "Max"),
    *("ReduceProd", "Floor", "Ceil", "Less", "Greater", "Not", "And", "Or", "Tile", "Transpose"),
}


def _onnxruntime() -> Any:
    """The package, or the RefusalError that it is not there."""
    try:
        import onnxruntime  # after the handshake: a device that lacks it must be able to say so

        onnxruntime.InferenceSession  # noqa: B018 - a folder of that name is a package too
    except (ImportError, AttributeError, OSError) as fault:
        raise RefusalError("engine", f"onnxruntime cannot be imported: {fault}") from fault
    return onnxruntime


def describe(request: Request) -> dict[str, str]:
    ort = _onnxruntime()
    provider = request["provider"]
    if provider not in ort.get_available_providers():
        have = ", ".join(ort.get_available_providers())
        raise RefusalError("provider", f"{provider} is not available; onnxruntime {ort.__version__} here has {have}")
    found = {"engine": "onnxruntime", "engine_version": ort.__version__, "provider": provider}
    if provider in _ON_GPU:
        from . import nvidia  # looked for where it is asked for

        found.update(nvidia.describe(nvidia.device_of(request)))
    return found


def errors() -> tuple[type[BaseException], ...]:
    """Its own classes share no base but Exception, so they are looked up."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError, TypeError, OSError, MemoryError)


def forks(request: Request) -> bool:
    return bool(request["provider"] == "CPUExecutionProvider")


def on_nvidia(request: Request) -> bool:
    return request["provider"] in _ON_GPU


def open_model(path: str, request: Request, inputs: dict[str, Any]) -> Any:
    ort = _onnxruntime()
    provider = request["provider"]
    options = ort.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    if provider in _ON_GPU:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # CUDA's libraries may be in packages of their own, where the loader does not look
    try:
        for name, value in request["options"].items():
            options.add_session_config_entry(name, value)
        session = ort.InferenceSession(path, options, providers=[(provider, request["provider_options"])])
    except errors() as fault:
        raise RefusalError("load", _PLACE.sub("", str(fault))) from fault
    if session.get_providers()[0] != provider:
        given = session.get_providers()[0]
        raise RefusalError("provider", f"{provider} was asked for, onnxruntime would run on {given}")
    if provider not in _ON_GPU:
        return _Runner(session, inputs)
    runner = _BoundRunner(ort, session, inputs, ("cuda", int(request["provider_options"].get("device_id", "0"))))
    runner.flags += _work_elsewhere(session, provider)
    return runner


class _Runner:
    """Inputs and outputs in the memory the provider shares with us."""

    def __init__(self, session: Any, inputs: dict[str, Any]) -> None:
        self.names: list[str] = [one.name for one in session.get_outputs()]
        self.flags: list[str] = []
        self._run, self._inputs = session.run, inputs
        self._outputs: list[Any] = []

    def run(self) -> None:
        self._outputs = self._run(None, self._inputs)

    def outputs(self) -> list[Any]:
        return self._outputs


class _BoundRunner:
    """Inputs and outputs on the GPU, in buffers that stay: no transfer is timed, and a CUDA graph may be replayed.

    How large the outputs are is known after the first run. Onnxruntime puts them on the GPU then, and there they stay:
    a graph, where `enable_cuda_graph` asks for one, is of fixed addresses. That run must be no part of it. The next one
    is: onnxruntime warms up, captures and replays within it, on the thread that calls, so all runs are on one thread.
    """

    def __init__(self, ort: Any, session: Any, inputs: dict[str, Any], place: tuple[str, int]) -> None:
        self.names: list[str] = [one.name for one in session.get_outputs()]
        self.flags: list[str] = []
        self._session, self._binding = session, session.io_binding()
        self._kept = [ort.OrtValue.ortvalue_from_numpy(array.copy(order="C"), *place) for array in inputs.values()]
        for name, value in zip(inputs, self._kept):
            self._binding.bind_ortvalue_input(name, value)
        for name in self.names:
            self._binding.bind_output(name, *place)
        self._binding.synchronize_inputs()
        self._first_run = ort.RunOptions()
        self._first_run.add_run_config_entry("gpu_graph_id", "-1")  # -1: capture nothing

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding, self._first_run)
        self._binding.synchronize_outputs()
        if self._first_run is not None:
            self._first_run = None
            self._keep_outputs()

    def outputs(self) -> list[Any]:
        return list(self._binding.copy_outputs_to_cpu())

    def _keep_outputs(self) -> None:
        for name, value in zip(self.names, self._binding.get_outputs()):
            self._binding.bind_ortvalue_output(name, value)
            self._kept.append(value)


def _work_elsewhere(session: Any, provider: str) -> list[str]:
    """A flag where onnxruntime left some of the model to the processor; what only computes shapes belongs there.

    Raises:
        RefusalError: `provider`: it left all of it.
    """
    tell = getattr(session, "get_provider_graph_assignment_info", None)  # older ones do not tell
    parts = [(part.ep_name, {node.op_type for node in part.get_nodes()}) for part in tell()] if tell else []
    if parts and all(name != provider for name, _ in parts):
        raise RefusalError("provider", f"{provider} was asked for, onnxruntime leaves the whole model to {parts[0][0]}")
    left = set().union(*(kinds for name, kinds in parts if name != provider)) - _SHAPE_WORK
    return ["partly-on-cpu"] if left else []
