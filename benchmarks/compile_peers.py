"""Who compile.py lets run an encoder: mostool's files, and the same weights as others make them fast.

Each contestant is built once for a model, as files in a folder, and opened for a number of threads. A peer that is not
installed, or cannot express the model, is left out with the reason.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from compile_models import LONGEST, Model, feed_of, rows_of, trace
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from toolchain.export import DeviceKind, build_checks, export_encoder, open_session
from toolchain.onboard.machine import describe
from toolchain.supernet.families import declaration
from toolchain.targets import Target

Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
Call = Callable[[], Logits]
Open = Callable[[int], Callable[[dict[str, Ids]], Call]]
"""Of a number of threads; gives, of a feed, what answers it."""

OURS, OURS_INT8, OURS_STATIC = "mostool", "mostool int8", "mostool static"
_CALIBRATED_ROWS = 16


class Contestant(NamedTuple):
    """Some runtime with some file of the model."""

    name: str
    low: bool
    """It computes in less than fp32, and is compared with the others that do."""
    any_mask: bool
    """It takes any attention mask; else lengths, as if all padding were on the right."""
    open: Open
    bytes: int


class Unavailable(Exception):  # noqa: N818 - it is no error
    """Why a peer is left out."""


def contestants(
    model: Model, folder: Path, target: Target, wanted: Callable[[str], bool] = lambda _: True
) -> tuple[list[Contestant], dict[str, str]]:
    """All that can run the model, and of the others why not."""
    found, left_out = [], {}
    traced = folder / "traced" / "model.onnx"
    traced.parent.mkdir(parents=True)
    trace(model, traced)
    for name, low, build in _BUILDERS:
        if not wanted(name):
            continue
        try:
            opened, path = build(model, traced, folder / name.replace(" ", "-"), target)
        except Unavailable as reason:
            left_out[name] = str(reason)
        else:
            found.append(Contestant(name, low, not name.startswith("CTranslate2"), opened, _size(path)))
    return found, left_out


def _size(path: Path) -> int:
    return sum(one.stat().st_size for one in ([path] if path.is_file() else path.rglob("*")) if one.is_file())


# -- ours --------------------------------------------------------------------------------------------------------------


def _ours(precision: Any) -> Any:
    """What ships: traced, in this precision as it suits the machine, fused, and proven."""

    def build(model: Model, _traced: Path, folder: Path, target: Target) -> tuple[Open, Path]:
        path = folder.with_suffix(".onnx")
        declared = declaration("bert")
        architecture = declared.at_bits(model.architecture, 32 if precision == "fp32" else 8)
        rows = rows_of(model.size, LONGEST, _CALIBRATED_ROWS, seed=2)
        export_encoder(
            model.subnet,
            architecture,
            path,
            build_checks(model.subnet, rows_of(model.size, 24, 6, seed=1), padding=0),
            device=this_device(target),
            precision=precision,
            modules=declared.int8_modules(architecture),
            calibration=[feed_of(row[None]) for row in rows],
            checkpoint_sha256=None,
            options=target.runtime.options,
        )
        return _onnxruntime(path, target.runtime.options), path

    return build


def this_device(target: Target) -> DeviceKind:
    """The machine, as a measurement's environment tells of it, with the target's engine."""
    told, runtime = describe(), target.runtime
    version = importlib.metadata.version("onnxruntime")
    return DeviceKind(runtime.engine, runtime.provider, told["machine"], tuple(told["isa"]), version)


# -- ONNX Runtime and optimum ------------------------------------------------------------------------------------------


def _onnxruntime(path: Path, options: dict[str, str]) -> Open:
    def opened(threads: int) -> Callable[[dict[str, Ids]], Call]:
        session = open_session(path, options, threads=threads)
        return lambda feed: lambda: session.run(None, feed)[0]

    return opened


def _default(_model: Model, traced: Path, _folder: Path, _target: Target) -> tuple[Open, Path]:
    return _onnxruntime(traced, {}), traced


def _optimum(level: str) -> Any:
    def build(model: Model, traced: Path, folder: Path, _target: Target) -> tuple[Open, Path]:
        optimum = needed("optimum.onnxruntime", "optimum-onnx")
        _configure(model, traced.parent)
        optimizer = optimum.ORTOptimizer.from_pretrained(traced.parent)
        optimizer.optimize(getattr(optimum.AutoOptimizationConfig, level)(), folder)
        path = folder / "model_optimized.onnx"
        return _onnxruntime(path, {}), path

    return build


def _optimum_int8(model: Model, traced: Path, folder: Path, _target: Target) -> tuple[Open, Path]:
    optimum = needed("optimum.onnxruntime", "optimum-onnx")
    _configure(model, traced.parent)
    preset = getattr(optimum.AutoQuantizationConfig, quantisation_preset())(is_static=False)
    optimum.ORTQuantizer.from_pretrained(traced.parent).quantize(preset, folder)
    path = folder / "model_quantized.onnx"
    return _onnxruntime(path, {}), path


def quantisation_preset() -> str:
    """The preset of optimum for this machine."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return "arm64"
    return "avx512_vnni" if "avx512_vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8") else "avx2"


def _configure(model: Model, folder: Path) -> None:
    """The config.json that optimum wants beside a file; it has one width, so a linked model's widest is told."""
    size = model.size
    needed("transformers", "transformers").BertConfig(
        hidden_size=size.heads[0] * size.head_width,
        num_attention_heads=size.heads[0],
        num_hidden_layers=len(size.hidden),
        intermediate_size=size.ffn[0],
        vocab_size=size.vocabulary,
    ).save_pretrained(folder)


def _qdq(model: Model, traced: Path, folder: Path) -> Path:
    """ONNX Runtime's static quantisation: unsigned activations, signed weights by row, of the products alone."""

    class Rows(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            rows = rows_of(model.size, LONGEST, _CALIBRATED_ROWS, seed=2)
            self.feeds: Iterator[dict[str, Ids]] = iter([feed_of(row[None]) for row in rows])

        def get_next(self) -> dict[str, Ids] | None:
            return next(self.feeds, None)

    path = folder.parent / "qdq.onnx"
    if not path.exists():
        quantize_static(
            traced,
            path,
            Rows(),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
        )
    return path


def _static(model: Model, traced: Path, folder: Path, _target: Target) -> tuple[Open, Path]:
    path = _qdq(model, traced, folder)
    return _onnxruntime(path, {}), path


# -- OpenVINO ----------------------------------------------------------------------------------------------------------


def _openvino(path: Path, precision: str | None) -> Open:
    core = needed("openvino", "openvino").Core()

    def opened(threads: int) -> Callable[[dict[str, Ids]], Call]:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        if precision:
            settings["INFERENCE_PRECISION_HINT"] = precision
        request = core.compile_model(path, "CPU", settings).create_infer_request()
        return lambda feed: lambda: request.infer(feed, share_inputs=True, share_outputs=True)[0]

    return opened


def _openvino_f32(_model: Model, traced: Path, _folder: Path, _target: Target) -> tuple[Open, Path]:
    return _openvino(traced, "f32"), traced


def _openvino_own(_model: Model, traced: Path, _folder: Path, _target: Target) -> tuple[Open, Path]:
    """The precision it chooses by itself."""
    if "BF16" not in needed("openvino", "openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise Unavailable("OpenVINO chooses fp32 by itself here: the processor has no bfloat16")
    return _openvino(traced, None), traced


def _openvino_int8(model: Model, traced: Path, folder: Path, _target: Target) -> tuple[Open, Path]:
    """Not of NNCF, its own tool, which wants an environment of its own; of the file ONNX Runtime's tool makes."""
    needed("openvino", "openvino")
    path = _qdq(model, traced, folder)
    return _openvino(path, "f32"), path


# -- CTranslate2 -------------------------------------------------------------------------------------------------------


def _ctranslate2(kind: str) -> Any:
    def build(model: Model, _traced: Path, folder: Path, _target: Target) -> tuple[Open, Path]:
        ctranslate2 = needed("ctranslate2", "ctranslate2")
        if not model.size.plain:
            raise Unavailable("CTranslate2 knows no layers of different widths")
        if kind not in ctranslate2.get_supported_compute_types("cpu"):
            raise Unavailable(f"CTranslate2 has no {kind} on this processor")
        folder.mkdir()
        _specification(model, kind).save(str(folder))
        head = _head(model)

        def opened(threads: int) -> Callable[[dict[str, Ids]], Call]:
            encoder = ctranslate2.Encoder(str(folder), compute_type=kind, inter_threads=1, intra_threads=threads)

            def bound(feed: dict[str, Ids]) -> Call:
                ids = feed["input_ids"].astype(np.int32)
                lengths = feed["attention_mask"].sum(axis=1).astype(np.int32)

                def call() -> Logits:
                    views = map(ctranslate2.StorageView.from_array, (ids, lengths))
                    return head(encoder.forward_batch(*views))

                return call

            return bound

        return opened, folder

    return build


def _head(model: Model) -> Callable[[Any], Logits]:
    """Our logits of what CTranslate2 answers: it has BERT's pooling layer, and no classifier."""
    if model.size.every:
        return lambda found: np.array(found.last_hidden_state)
    weights = {name: one.detach().numpy() for name, one in model.subnet.named_parameters() if "labels" in name}
    weight, bias = weights["head.labels.weight"].T.copy(), weights["head.labels.bias"]
    return lambda found: np.array(found.pooler_output) @ weight + bias


def _specification(model: Model, kind: str) -> Any:
    """The weights as CTranslate2's own converter for BERT lays them out."""
    specs = needed("ctranslate2.specs", "ctranslate2")
    # Copies: CTranslate2 quantises them where they lie.
    weights = {name: one.detach().numpy().copy() for name, one in model.subnet.named_parameters()}
    size = model.size
    encoder = specs.TransformerEncoderSpec(
        len(size.hidden), size.heads[0], pre_norm=False, activation=specs.Activation.GELU, layernorm_embedding=True
    )
    encoder.scale_embeddings = False
    encoder.embeddings[0].weight = weights["word.weight"]
    encoder.position_encodings.encodings = weights["position.weight"]
    norm(encoder.layernorm_embedding, weights, "norm")
    for number, layer in enumerate(encoder.layer):
        block = f"blocks.{number}"
        attention, feed_forward = layer.self_attention, layer.ffn
        linear(attention.linear[0], weights, *(f"{block}.{one}" for one in ("query", "key", "value")))
        linear(attention.linear[1], weights, f"{block}.output")
        norm(attention.layer_norm, weights, f"{block}.attention_norm")
        linear(feed_forward.linear_0, weights, f"{block}.fc1")
        linear(feed_forward.linear_1, weights, f"{block}.fc2")
        norm(feed_forward.layer_norm, weights, f"{block}.ffn_norm")
    whole = specs.TransformerEncoderModelSpec(encoder, pooling_layer=not size.every)
    if not size.every:
        linear(whole.pooler_dense, weights, "head.dense")
    whole.register_vocabulary([f"<{number}>" for number in range(size.vocabulary)])
    whole.config.layer_norm_epsilon, whole.config.unk_token = 1e-5, "<0>"
    whole.validate()
    whole.optimize(quantization=kind)
    return whole


def linear(spec: Any, weights: dict[str, npt.NDArray[Any]], *names: str) -> None:
    """These layers as one, one below the other."""
    spec.weight = np.concatenate([weights[f"{name}.weight"] for name in names])
    spec.bias = np.concatenate([weights[f"{name}.bias"] for name in names])


def norm(spec: Any, weights: dict[str, npt.NDArray[Any]], name: str) -> None:
    spec.gamma, spec.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]


def needed(module: str, package: str) -> Any:
    """The module. Raises Unavailable where its package is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(f"{package} is not installed here") from error


_BUILDERS = (
    (OURS, False, _ours("fp32")),
    ("ORT default", False, _default),
    ("optimum O2", False, _optimum("O2")),
    ("optimum O3", False, _optimum("O3")),
    ("OpenVINO", False, _openvino_f32),
    ("CTranslate2", False, _ctranslate2("float32")),
    (OURS_INT8, True, _ours("int8")),
    (OURS_STATIC, True, _ours("int8-static")),
    ("CTranslate2 int8", True, _ctranslate2("int8")),
    ("optimum int8", True, _optimum_int8),
    ("ORT QDQ int8", True, _static),
    ("OpenVINO QDQ", True, _openvino_int8),
    ("OpenVINO bf16", True, _openvino_own),
)
