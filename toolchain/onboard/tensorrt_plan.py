"""TensorRT plans: a network out of an ONNX file, compiled for a GPU, and kept so that it is compiled once.

The same code serves `tensorrt` (10 and 11) and `tensorrt_rtx`. Where they differ, what the module has decides:

- networks are strongly typed (the precision of each tensor is in the ONNX file) in tensorrt_rtx and in tensorrt 11; in
  tensorrt 10 they are so here too, unless the option `fp16` lets the builder choose.
- int8 comes from QuantizeLinear and DequantizeLinear in the file, never from a calibration. float32 is float32 in full:
  TF32, the engines' own default, is off unless asked for, since its answers are not those that an export is held to.
- tensorrt times its kernels while it builds, and keeps that in a timing cache; tensorrt_rtx compiles them where the
  plan is loaded, and keeps that in a runtime cache (tensorrt_engine.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import re
from typing import Any, NamedTuple

from .channel import LONGEST_ERROR, RefusalError, Request

_LARGEST_CACHE_BYTES = 4 << 30
_INSTALL = {
    "tensorrt": "pip install tensorrt (on a Jetson it comes with JetPack: apt install python3-libnvinfer)",
    "tensorrt_rtx": "pip install tensorrt-rtx",
}
_PROFILES = ("profile.min", "profile.max")
_OPTIONS = (*_PROFILES, "cuda_graph", "fp16", "tf32", "optimization_level", "compute_capability")

_MODEL_BEGINS = {
    *(0x08, 0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42),  # ir_version, which exporters write first, to opset_import
    *(0x72, 0xA2, 0xCA, 0xD2),  # metadata_props, training_info, functions, configuration
}
"""With these bytes a protobuf begins that is an ONNX model: each tells the number and the kind of a field it has."""

Shapes = dict[str, tuple[int, ...]]


def is_plan(content: bytes) -> bool:
    """Whether this is a plan, whatever TensorRT it is of, and no ONNX model. (They begin with `ftrt`, `vtrt`.)"""
    return bool(content) and content[0] not in _MODEL_BEGINS


class Settings(NamedTuple):
    """The options of a target for these engines.

    `lowest` and `highest` are the shapes a plan is good for, where they are not the measured one
    (`profile.min = "input_ids:1x1,attention_mask:1x1"`, as trtexec spells them).
    """

    lowest: Shapes
    highest: Shapes
    cuda_graph: bool
    fp16: bool
    tf32: bool
    level: int | None
    capability: str

    @property
    def named(self) -> str:
        """The compute capabilities of GPUs that need not be here, as `8.6,8.9`; empty where it is this one's."""
        names = [name.strip() for name in self.capability.split(",")]
        return "" if names in ([""], ["current"]) else ",".join(names)


def settings_of(request: Request) -> Settings:
    """What the request's options say.

    Raises:
        RefusalError: `request`: one of them is unknown or says nothing sensible.
    """
    options = request["options"]
    unknown = ", ".join(sorted(set(options) - set(_OPTIONS)))
    if unknown:
        raise RefusalError("request", f"{request['engine']} has no option {unknown}; it has {', '.join(_OPTIONS)}")
    level = options.get("optimization_level", "")
    if level not in ("", "0", "1", "2", "3", "4", "5"):
        raise RefusalError("request", f"optimization_level is 0 to 5, not {level!r}")
    return Settings(
        lowest=_shapes("profile.min", options),
        highest=_shapes("profile.max", options),
        cuda_graph=_switch("cuda_graph", options, "0"),
        fp16=_switch("fp16", options, "0"),
        tf32=_switch("tf32", options, "0"),
        level=int(level) if level else None,
        capability=options.get("compute_capability", ""),
    )


def _switch(name: str, options: dict[str, str], default: str) -> bool:
    value = options.get(name, default)
    if value not in ("0", "1"):
        raise RefusalError("request", f'{name} is "0" or "1", not {value!r}')
    return value == "1"


def _shapes(name: str, options: dict[str, str]) -> Shapes:
    found: Shapes = {}
    for part in filter(None, options.get(name, "").split(",")):
        tensor, _, sizes = part.strip().rpartition(":")
        if not tensor or not all(size.isdigit() for size in sizes.split("x")):
            raise RefusalError("request", f'{name} is a text such as "input_ids:1x8,mask:1x8", not {part!r}')
        found[tensor] = tuple(int(size) for size in sizes.split("x"))
    return found


def module_of(request: Request) -> Any:
    """The package the request names as its engine.

    Raises:
        RefusalError: `engine`: it cannot be imported.
    """
    name = request["engine"]
    try:
        module = importlib.import_module(name)
        module.Builder  # noqa: B018 - a folder of that name is a package too
    except (ImportError, AttributeError, OSError) as fault:
        raise RefusalError("engine", f"{name} cannot be imported: {fault}; {_INSTALL[name]}") from fault
    if not hasattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        raise RefusalError("engine", f"{name} {module.__version__} is too old: it must be 10 or newer")
    return module


def compiles_when_loaded(trt: Any) -> bool:
    """Whether this is TensorRT-RTX."""
    return hasattr(trt, "IRuntimeCache")


def log_of(trt: Any) -> Any:
    """A logger for everything of TensorRT's; what went wrong is in its `errors`."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR) and len(self.errors) < 8:
                self.errors.append(message.strip())

        def reason(self) -> str:
            """The first thing that went wrong: the rest follows from it."""
            return (self.errors or ["it does not say why"])[0][:LONGEST_ERROR]

    return Log()


def kind_of(reason: str) -> str:
    """Whose fault a failure is, by TensorRT's words: the driver's, the memory's, or the model's."""
    if re.search(r"cudaError (35|46|100|101|803|804)\b", reason):  # too old for this TensorRT, or no such GPU
        return "provider"
    return "memory" if re.search(r"out ?of ?memory", reason, re.IGNORECASE) else "load"


def build_plan(content: bytes, request: Request, shapes: Shapes, timings: str = "") -> bytes:
    """Compile an ONNX model; tensorrt_rtx needs no GPU for it. `timings` is the file of a timing cache.

    `shapes` are those of the inputs that the plan is made to be fast at.

    Raises:
        RefusalError: `load`: the model cannot be had in this engine; `provider`: this engine does not build here.
    """
    trt, settings = module_of(request), settings_of(request)
    log = log_of(trt)
    try:
        builder = trt.Builder(log)
    except TypeError as fault:  # the bindings' way to say that a constructor gave nothing
        raise RefusalError("provider", f"{request['engine']} builds on a machine with its GPU: {fault}") from fault
    typed = not settings.fp16
    if settings.fp16 and not hasattr(trt.BuilderFlag, "FP16"):
        said = f"{request['engine']} {trt.__version__} takes the precision from the model"
        raise RefusalError("request", f"{said}: export it as fp16, and leave the option fp16 out")
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if typed else 0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(content):
        raise RefusalError("load", _parse_errors(parser, request["engine"]))
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    if _fill(profile, network, shapes, settings) and config.add_optimization_profile(profile) < 0:
        raise RefusalError("load", log.reason())
    _set_flags(trt, config, network, settings)
    cache = _timing_cache(trt, config, timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RefusalError(kind_of(log.reason()), f"{request['engine']} cannot build it: {log.reason()}")
    if cache is not None:
        keep(timings, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def _parse_errors(parser: Any, engine: str) -> str:
    """Which operators of the model the parser could not take, each with the first node it was met at."""
    said: dict[str, str] = {}
    for number in range(parser.num_errors):
        error = parser.get_error(number)
        operator = error.node_operator()
        where = f"{operator} (node {error.node_name()!r}): " if operator else ""
        said.setdefault(operator or error.desc(), f"{where}{error.desc()}")
    return f"{engine} cannot take {'; '.join(said.values()) or 'this model'}"[:LONGEST_ERROR]


def _fill(profile: Any, network: Any, shapes: Shapes, settings: Settings) -> bool:
    """Say in the profile which shapes the inputs may have; whether any of them may have more than one."""
    inputs = {network.get_input(number).name: network.get_input(number) for number in range(network.num_inputs)}
    strange = sorted(({*settings.lowest, *settings.highest} | set(shapes)) - set(inputs))
    if strange:
        raise RefusalError("load", f"no input {', '.join(strange)}: the model has {', '.join(inputs)}")
    varies = False
    for name, tensor in inputs.items():
        if tensor.is_shape_tensor:
            raise RefusalError("load", f"the values of input {name!r} decide a shape, which is not supported")
        if name not in shapes:
            raise RefusalError("load", f"input {name!r} was given no shape")
        best, declared = shapes[name], tuple(tensor.shape)
        low, high = settings.lowest.get(name, best), settings.highest.get(name, best)
        if any(not _fits(shape, declared) for shape in (low, best, high)):
            sizes = " to ".join("x".join(map(str, shape)) for shape in dict.fromkeys((low, best, high)))
            raise RefusalError("load", f"input {name!r} is {declared} in the model (-1: any), not {sizes}")
        if not all(least <= size <= most for least, size, most in zip(low, best, high)):
            raise RefusalError("request", f"input {name!r}: {best} is not within profile.min {low} and max {high}")
        if -1 in declared:
            profile.set_shape(name, low, best, high)
            varies = True
    return varies


def _fits(shape: tuple[int, ...], declared: tuple[int, ...]) -> bool:
    return len(shape) == len(declared) and all(want in (-1, size) for size, want in zip(shape, declared))


def _set_flags(trt: Any, config: Any, network: Any, settings: Settings) -> None:
    if not settings.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if settings.level is not None:
        config.builder_optimization_level = settings.level
    if settings.fp16:
        config.set_flag(trt.BuilderFlag.FP16)
        quantized = (trt.LayerType.QUANTIZE, trt.LayerType.DEQUANTIZE)
        if any(network.get_layer(number).type in quantized for number in range(network.num_layers)):
            config.set_flag(trt.BuilderFlag.INT8)  # without strong types it is what lets Q/DQ be int8
    if settings.capability:
        _set_capability(trt, config, settings.capability)


def _set_capability(trt: Any, config: Any, wanted: str) -> None:
    """Which GPUs to build for: `current`, or compute capabilities such as `8.6,8.9`."""
    if not compiles_when_loaded(trt):
        raise RefusalError("request", "tensorrt builds for the GPU it runs on: leave compute_capability out")
    names = ["CURRENT" if one == "current" else "SM" + one.strip().replace(".", "") for one in wanted.split(",")]
    known = [getattr(trt.ComputeCapability, name, None) for name in names]
    if None in known:
        numbers = sorted(int(name[2:]) for name in dir(trt.ComputeCapability) if name.startswith("SM"))
        have = ", ".join(f"{number // 10}.{number % 10}" for number in numbers)
        raise RefusalError("request", f"compute_capability {wanted!r}: tensorrt_rtx builds for {have}")
    if "CURRENT" in names and len(names) > 1:
        raise RefusalError("request", f"compute_capability {wanted!r}: `current` stands alone")
    config.num_compute_capabilities = len(known)
    for place, capability in enumerate(known):
        config.set_compute_capability(capability, place)


def _timing_cache(trt: Any, config: Any, path: str) -> Any:
    """The timing cache of that file, or a new one, given to the config; None where the engine makes no use of one."""
    if not path or compiles_when_loaded(trt):
        return None
    cache = config.create_timing_cache(kept(path))
    if cache is None or not config.set_timing_cache(cache, False):  # another GPU's or version's, or damaged
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


# -- what is kept ----------------------------------------------------------------------------------------------------


def cache_folder() -> str:
    root = os.environ.get("MOSTOOL_CACHE") or os.path.join("~", ".cache", "mostool")
    return os.path.join(os.path.expanduser(root), "tensorrt")


def cached_plan(content: bytes, request: Request, shapes: Shapes, device: str, fresh: bool = False) -> bytes:
    """A plan for the GPU called `device`, which must be this machine's; a `fresh` one is built whatever is kept."""
    trt = module_of(request)
    options = {"tf32": "0", **{name: value for name, value in request["options"].items() if name != "cuda_graph"}}
    if compiles_when_loaded(trt):
        options.setdefault("compute_capability", "current")
    engine = f"{request['engine']} {trt.__version__}"
    key = json.dumps([engine, device, options, sorted(shapes.items())], sort_keys=True).encode()
    path = os.path.join(cache_folder(), hashlib.sha256(key + b"\n" + content).hexdigest() + ".plan")
    plan = b"" if fresh else kept(path)
    if plan:
        with contextlib.suppress(OSError):
            os.utime(path)
        return plan
    timings = cache_file(f"{engine} {device}", "timings")
    plan = build_plan(content, {**request, "options": options}, shapes, timings)
    keep(path, plan)
    return plan


def cache_file(belongs_to: str, kind: str) -> str:
    """The cache file of a kind for an engine's version on a GPU: what is in it is good for nothing else."""
    name = hashlib.sha256(belongs_to.encode()).hexdigest()[:16]
    return os.path.join(cache_folder(), f"{name}.{kind}")


def kept(path: str) -> bytes:
    """The file's content; empty where there is none."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return b""


def keep(path: str, content: bytes) -> None:
    """Write the file whole or not at all, and drop the longest unused plans above 4 GiB. A full disk is no matter."""
    part = f"{path}.{os.getpid()}.part"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(part, "wb") as stream:
            stream.write(content)
        os.replace(part, path)
        _drop_oldest(os.path.dirname(path))
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(part)


def _drop_oldest(folder: str) -> None:
    plans = [entry for entry in os.scandir(folder) if entry.name.endswith(".plan")]
    plans.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
    total = 0
    for entry in plans:
        total += entry.stat().st_size
        if total > _LARGEST_CACHE_BYTES:
            os.unlink(entry.path)
