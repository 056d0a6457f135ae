"""The translation models that compile.py times, and who translates with their weights.

Their sizes are HAT's smallest, uniform and with each decoder layer reading the last encoder layer alone, so that
CTranslate2 and transformers' Marian can express them: the same weights go into all, and the same words must come out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from compile_peers import OURS, OURS_INT8, Unavailable, linear, needed, norm, this_device
from torch import nn

from toolchain.export import assembled, open_session, quantise_parts
from toolchain.export.translator import trace_translator
from toolchain.space import Architecture, Axis, SearchSpace, Value
from toolchain.supernet.decoding import Marks
from toolchain.supernet.families import declaration
from toolchain.supernet.families.translation.graphs import translator_graphs
from toolchain.supernet.families.translation.model import Translator, build_subnet, sinusoids
from toolchain.targets import Target

OURS_INT4 = "mostool int4"
PADDING, BEGIN, END = 0, 2, 3
SPECIALS = 5
WIDTH, HEADS, FFN = 512, 8, 2048
LONGEST = 256

Words = list[int]
Call = Callable[[], Words]
Open = Callable[[int], Call]
"""Of a number of threads; gives what translates the source."""


class Size(NamedTuple):
    """A model's sizes, and what is asked of it: so many words, out of so many."""

    name: str
    encoder: int
    decoder: int
    vocabulary: int = 8000
    source: int = 24
    steps: int = 32


SIZES = (Size("hat 6+6", 6, 6), Size("hat 6+3", 6, 3))


class Model(NamedTuple):
    """A translator with its weights, and the source it is given: int64 [1, source]."""

    size: Size
    space: SearchSpace
    architecture: Architecture
    subnet: Translator
    source: npt.NDArray[np.int64]

    @property
    def parameters(self) -> int:
        return sum(one.numel() for one in self.subnet.parameters())


class Contestant(NamedTuple):
    """Some runtime with some file of the model."""

    name: str
    low: bool
    open: Open
    bytes: int


def build_model(size: Size, seed: int) -> Model:
    axes: dict[str, Value] = {
        "encoder_embedding": WIDTH,
        "decoder_embedding": WIDTH,
        "encoder_depth": size.encoder,
        "decoder_depth": size.decoder,
        "encoder_ffn": (FFN,) * size.encoder,
        "encoder_heads": (HEADS,) * size.encoder,
        "decoder_ffn": (FFN,) * size.decoder,
        "decoder_heads": (HEADS,) * size.decoder,
        "cross_heads": (HEADS,) * size.decoder,
        "cross_layers": (1,) * size.decoder,
    }
    space = declaration("translation").resolve(
        SearchSpace(
            "compiled",
            "translation",
            tuple(_axis(name, value) for name, value in axes.items()),
            {"width": WIDTH, "attention": WIDTH},
        ),
        vocabulary_size=size.vocabulary,
        labels=0,
        maximum_length=LONGEST,
    )
    architecture = Architecture("translation", axes)
    torch.manual_seed(seed)
    subnet = build_subnet(space, architecture, 0.0).eval()
    with torch.no_grad():
        subnet.word.weight /= math.sqrt(WIDTH)
        subnet.word.weight[:SPECIALS] = 0  # never the likeliest, so nothing ends before its time
        last = subnet.decoder[-1].ffn_norm
        assert isinstance(last, nn.LayerNorm)
        last.weight.normal_()  # else random weights repeat the word they were given
    source = np.random.default_rng(seed).integers(SPECIALS, size.vocabulary, (1, size.source), dtype=np.int64)
    return Model(size, space, architecture, subnet, source)


def _axis(name: str, value: Value) -> Axis:
    """One choice, or those its layers take."""
    if isinstance(value, int):
        return Axis(name, (value,))
    return Axis(name, tuple(sorted({*value})), per="encoder_depth" if name.startswith("encoder") else "decoder_depth")


@torch.no_grad()
def truth(model: Model) -> tuple[Words, float]:
    """The words by the module itself, and by how much the likeliest was ahead at least."""
    ids = torch.from_numpy(model.source)
    decoding = model.subnet.start(ids, torch.ones_like(ids))
    word, words, ahead = torch.tensor([BEGIN]), [], math.inf
    for _ in range(model.size.steps):
        best = model.subnet.step(word, decoding).topk(2)
        word = best.indices[:, 0]
        words.append(int(word))
        ahead = min(ahead, float(best.values[0, 0] - best.values[0, 1]))
    return words, ahead


def contestants(
    model: Model, folder: Path, target: Target, wanted: Callable[[str], bool] = lambda _: True
) -> tuple[list[Contestant], dict[str, str]]:
    """All that can translate with the model's weights, and of the others why not."""
    found, left_out = [], {}
    for name, low, build in _BUILDERS:
        if not wanted(name):
            continue
        place = folder / name.replace(" ", "-")
        try:
            opened = build(model, place, target)
        except Unavailable as reason:
            left_out[name] = str(reason)
        else:
            size = sum(one.stat().st_size for one in place.rglob("*") if one.is_file())
            found.append(Contestant(name, low, opened, size))
    return found, left_out


# -- ours --------------------------------------------------------------------------------------------------------------


def _ours(precision: Any) -> Any:
    def build(model: Model, folder: Path, target: Target) -> Open:
        folder.mkdir(parents=True)
        path = folder / "model.onnx"
        marks = Marks(BEGIN, END, tuple(one for one in range(SPECIALS) if one not in (BEGIN, END)))
        parts = trace_translator(translator_graphs(model.subnet, LONGEST))
        if precision != "fp32":
            parts = quantise_parts(parts, precision, paired=this_device(target).int8.paired)
        path.write_bytes(assembled(parts, marks)[0])
        steps = np.array([model.size.steps])
        feed = {"input_ids": model.source, "attention_mask": np.ones_like(model.source)}
        feed |= {"shortest": steps, "longest": steps}

        def opened(threads: int) -> Call:
            session = open_session(path, target.runtime.options, threads=threads)

            def call() -> Words:
                found: list[Words] = session.run(None, feed)[0].tolist()
                return found[0]

            return call

        return opened

    return build


# -- CTranslate2 -------------------------------------------------------------------------------------------------------


def _ctranslate2(kind: str) -> Any:
    def build(model: Model, folder: Path, _target: Target) -> Open:
        ctranslate2 = needed("ctranslate2", "ctranslate2")
        folder.mkdir(parents=True)
        _specification(model, kind).save(str(folder))
        source, steps = [[f"<{one}>" for one in model.source[0]]], model.size.steps

        def opened(threads: int) -> Call:
            translator = ctranslate2.Translator(str(folder), compute_type=kind, inter_threads=1, intra_threads=threads)

            def call() -> Words:
                (found,) = translator.translate_batch(
                    source, beam_size=1, max_decoding_length=steps, min_decoding_length=steps
                )
                return [int(one[1:-1]) for one in found.hypotheses[0]]

            return call

        return opened

    return build


def _specification(model: Model, kind: str) -> Any:
    specs = needed("ctranslate2.specs", "ctranslate2")
    # Copies: CTranslate2 quantises them where they lie.
    weights = {name: one.detach().numpy().copy() for name, one in model.subnet.named_parameters()}
    size = model.size
    spec = specs.TransformerSpec.from_config(
        (size.encoder, size.decoder), HEADS, pre_norm=False, activation=specs.Activation.RELU
    )
    places = sinusoids(0, LONGEST, WIDTH, WIDTH, model.subnet.word.weight.detach()).numpy()
    spec.encoder.embeddings[0].weight = spec.decoder.embeddings.weight = weights["word.weight"]
    spec.decoder.projection.weight = weights["word.weight"].copy()
    for stack, layers in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        layers.position_encodings.encodings = places
        for number, layer in enumerate(layers.layer):
            block = f"{stack}.{number}"
            attention = f"{block}.attention"
            linear(layer.self_attention.linear[0], weights, *(f"{attention}.{one}" for one in _READ))
            linear(layer.self_attention.linear[1], weights, f"{attention}.output")
            norm(layer.self_attention.layer_norm, weights, f"{attention}_norm")
            if stack == "decoder":
                cross = f"{block}.cross"
                linear(layer.attention.linear[0], weights, f"{cross}.query")
                linear(layer.attention.linear[1], weights, f"{cross}.key", f"{cross}.value")
                linear(layer.attention.linear[2], weights, f"{cross}.output")
                norm(layer.attention.layer_norm, weights, f"{cross}_norm")
            linear(layer.ffn.linear_0, weights, f"{block}.fc1")
            linear(layer.ffn.linear_1, weights, f"{block}.fc2")
            norm(layer.ffn.layer_norm, weights, f"{block}.ffn_norm")
    words = [f"<{number}>" for number in range(size.vocabulary)]
    spec.register_source_vocabulary(words)
    spec.register_target_vocabulary(words)
    spec.config.decoder_start_token, spec.config.bos_token = f"<{BEGIN}>", f"<{BEGIN}>"
    spec.config.eos_token, spec.config.unk_token = f"<{END}>", "<1>"
    spec.config.layer_norm_epsilon = 1e-5
    spec.validate()
    spec.optimize(quantization=kind)
    return spec


_READ = ("query", "key", "value")


# -- optimum, by transformers' Marian ----------------------------------------------------------------------------------


def _optimum(model: Model, folder: Path, _target: Target) -> Open:
    optimum = needed("optimum.onnxruntime", "optimum-onnx")
    onnxruntime = needed("onnxruntime", "onnxruntime")
    checkpoint = folder.with_suffix(".checkpoint")
    marian(model).save_pretrained(checkpoint)
    optimum.ORTModelForSeq2SeqLM.from_pretrained(checkpoint, export=True).save_pretrained(folder)
    ids = torch.from_numpy(model.source)
    steps = model.size.steps

    def opened(threads: int) -> Call:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        translator = optimum.ORTModelForSeq2SeqLM.from_pretrained(folder, session_options=settings)

        def call() -> Words:
            found = translator.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                num_beams=1,
                do_sample=False,
                min_new_tokens=steps,
                max_new_tokens=steps,
            )
            return found[0, 1:].tolist()  # type: ignore[no-any-return]

        return call

    return opened


def marian(model: Model) -> Any:
    """The same function as a model of transformers."""
    transformers = needed("transformers", "transformers")
    size = model.size
    config = transformers.MarianConfig(
        vocab_size=size.vocabulary,
        d_model=WIDTH,
        encoder_layers=size.encoder,
        decoder_layers=size.decoder,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=FFN,
        decoder_ffn_dim=FFN,
        activation_function="relu",
        scale_embedding=True,
        max_position_embeddings=LONGEST,
        pad_token_id=PADDING,
        eos_token_id=END,
        bos_token_id=BEGIN,
        decoder_start_token_id=BEGIN,
        forced_eos_token_id=None,
    )
    translator = transformers.MarianMTModel(config).eval()
    weights = dict(model.subnet.named_parameters())
    theirs = translator.model
    with torch.no_grad():
        theirs.shared.weight.copy_(weights["word.weight"][:, _COLUMNS])
        for stack in ("encoder", "decoder"):
            for number, layer in enumerate(getattr(theirs, stack).layers):
                for name, module in _marian_modules(stack, layer):
                    kind = name.rpartition(".")[2]
                    weight, bias = (weights[f"{stack}.{number}.{name}.{one}"] for one in ("weight", "bias"))
                    rows = _COLUMNS if kind in _WRITES else slice(None)
                    weight, bias = weight[rows], bias[rows]
                    module.weight.copy_(weight[:, _COLUMNS] if kind in _READS else weight)
                    module.bias.copy_(bias)
    return translator


_COLUMNS = [*range(0, WIDTH, 2), *range(1, WIDTH, 2)]
"""Ours in Marian's order: it has all sines of a place before the cosines, and a checkpoint of it holds neither."""
_READS = {"query", "key", "value", "fc1"}
_WRITES = {"output", "fc2", "attention_norm", "cross_norm", "ffn_norm"}


def _marian_modules(stack: str, layer: Any) -> list[tuple[str, Any]]:
    """A layer's modules by our names."""
    found = [(f"attention.{one}", getattr(layer.self_attn, f"{one[0]}_proj")) for one in _READ]
    found += [("attention.output", layer.self_attn.out_proj), ("attention_norm", layer.self_attn_layer_norm)]
    if stack == "decoder":
        found += [(f"cross.{one}", getattr(layer.encoder_attn, f"{one[0]}_proj")) for one in _READ]
        found += [("cross.output", layer.encoder_attn.out_proj), ("cross_norm", layer.encoder_attn_layer_norm)]
    return [*found, ("fc1", layer.fc1), ("fc2", layer.fc2), ("ffn_norm", layer.final_layer_norm)]


_BUILDERS: tuple[tuple[str, bool, Any], ...] = (
    (OURS, False, _ours("fp32")),
    ("optimum", False, _optimum),
    ("CTranslate2", False, _ctranslate2("float32")),
    (OURS_INT8, True, _ours("int8")),
    (OURS_INT4, True, _ours("int4")),
    ("CTranslate2 int8", True, _ctranslate2("int8")),
)
