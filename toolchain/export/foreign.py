"""A model of the Hugging Face world becomes portable ONNX: `export_folder`, through optimum's own exporter.

What comes in is a folder on this machine (see foreign_folder.py for what is refused); what goes out was compared with
the model in transformers, in every pattern of padding, before anything is left.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import torch

from toolchain.errors import IntegrityError, MostoolError, UsageError
from toolchain.export.foreign_folder import TOKENIZER_FILES, Folder, look_at
from toolchain.export.foreign_proof import ENCODER, ask_encoder, ask_translator, compare_encoder, compare_translator
from toolchain.export.inspecting import check_size
from toolchain.export.optimum_calls import load, offline, quietly
from toolchain.export.parity import Checks
from toolchain.files import write_bytes
from toolchain.records import ModelInput, ModelTask

_MODEL = "model.onnx"
_ROLES = {"input_ids": "ids", "attention_mask": "mask", "token_type_ids": "types"}
_AFTER_PADDING = frozenset(("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "mpnet"))
"""Whose first token stands behind the padding's number, so that as many positions are never used."""
_UNBOUNDED = 512
"""Tokens allowed where neither model nor tokenizer has a limit (T5's positions are relative)."""


class Marks(NamedTuple):
    """The ids of the tokens that frame a translation, and of those that are never part of one.

    forced: what a translation begins with (of a multilingual model, its language); None: with any word.
    """

    begin: int
    end: int
    never: tuple[int, ...]
    forced: int | None


class ForeignModel(NamedTuple):
    """What was exported, and what there is to know of it.

    Attributes:
        files: all of it by name, in `out`: ONNX files, config.json and the tokenizer's files.
        model: the ONNX file, of a translation model its encoder.
        inputs: of `model`.
        tokenizer: tokenizer.json; None where the folder has none (Marian's tokenizers are two files of SentencePiece).
        checks: what `model` is asked and must answer; None of a translation model, whose files were compared here.
        error: the largest difference from the model in transformers.
        marks: of a translation model.
    """

    task: ModelTask
    model_type: str
    model: Path
    files: dict[str, Path]
    inputs: tuple[ModelInput, ...]
    labels: tuple[str, ...]
    tokenizer: Path | None
    maximum_length: int
    vocabulary_size: int
    padding: int
    parameters: int
    opset: int
    sha256: str
    checks: Checks | None
    error: float
    marks: Marks | None


class _Kind(NamedTuple):
    """What a class of transformers is for, there and in optimum."""

    mapping: str
    auto_class: str
    optimum_task: str
    task: ModelTask


_KINDS = (  # BART's class for translation fills masks too: the first that fits
    _Kind("SEQ_TO_SEQ_CAUSAL_LM", "AutoModelForSeq2SeqLM", "text2text-generation", "translate"),
    _Kind("SEQUENCE_CLASSIFICATION", "AutoModelForSequenceClassification", "text-classification", "classify"),
    _Kind("MASKED_LM", "AutoModelForMaskedLM", "fill-mask", "mlm"),
)


def export_folder(folder: Path, out: Path) -> ForeignModel:
    """Export the model in `folder` to the folder `out`, which is made; the same files for the same folder.

    Raises:
        UsageError: optimum is not installed, the folder is refused, optimum cannot export a model of that type, or the
            model is larger than one ONNX file can be.
        IntegrityError: a file is damaged, or weights are missing.
        ParityError: an exported file answers otherwise than the model; nothing is left.
    """
    found = look_at(folder)
    kind = _kind(found, folder)
    with tempfile.TemporaryDirectory() as scratch, quietly(), offline():
        plain, made = Path(scratch) / "plain", Path(scratch) / "made"
        plain.mkdir()
        for name, path in found.files.items():
            (plain / name).symlink_to(path.resolve())
        model = _load(plain, kind, folder)
        check_size(4 * sum(parameter.numel() for parameter in model.parameters()), str(folder))
        longest, padding = _longest(found, model), int(getattr(model.config, "pad_token_id", None) or 0)
        labels, task = _labels(model, kind)
        # Asked and looked at before optimum has seen the model: it changes settings of it.
        marks = _marks(model, padding) if task == "translate" else None
        asked = ask_encoder(model, longest, padding) if marks is None else ask_translator(model, marks.begin, padding)
        _export(model, kind, made, Path(scratch) / "nothing")
        files = sorted(path for path in made.iterdir() if path.name.partition(".onnx")[1])
        check_size(sum(path.stat().st_size for path in files if "decoder" not in path.name), str(folder))
        if isinstance(asked, Checks):
            error, checks = compare_encoder(made / _MODEL, asked)
        else:
            error, checks = compare_translator(made, asked), None
        out.mkdir(parents=True, exist_ok=True)
        for path in files:
            shutil.move(path, out / path.name)
    settings = [name for name in ("config.json", "generation_config.json", *TOKENIZER_FILES) if name in found.files]
    for name in settings:
        write_bytes(out / name, found.files[name].read_bytes())
    first = out / (ENCODER if kind.task == "translate" else _MODEL)
    graph = onnx.load(first, load_external_data=False)
    return ForeignModel(
        task=task,
        model_type=found.config.model_type,
        model=first,
        files={name: out / name for name in sorted([*settings, *(path.name for path in files)])},
        inputs=tuple(ModelInput(name=one.name, role=_ROLES[one.name]) for one in graph.graph.input),  # type: ignore[arg-type]
        labels=labels,
        tokenizer=out / "tokenizer.json" if "tokenizer.json" in found.files else None,
        maximum_length=longest,
        vocabulary_size=int(model.config.vocab_size),
        padding=padding,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        opset=next(one.version for one in graph.opset_import if one.domain in ("", "ai.onnx")),
        sha256=found.sha256,
        checks=checks,
        error=error,
        marks=marks,
    )


def _kind(found: Folder, folder: Path) -> _Kind:
    """What the model is for, by the class that config.json names."""
    model_type, named = found.config.model_type, found.config.architectures
    if named is None:
        raise UsageError(
            f"{folder} does not say what its model is for",
            why="config.json has no architectures",
            hint='add "architectures": ["BertForMaskedLM"], or what it is',
        )
    classes = load("transformers.models.auto.modeling_auto")
    kind = next((one for one in _KINDS if _name_of(classes, one, model_type) == named[0]), None)
    if kind is None:
        known = [name for one in _KINDS if (name := _name_of(classes, one, model_type))]
        raise UsageError(
            f"a {named[0]} of type {model_type!r} is neither an encoder with a head nor a translation model",
            why="mostool exports models that fill in masked words, classify or rate texts, or translate",
            hint=f"of this type: {', '.join(known)}" if known else "give a BERT, RoBERTa, Marian, BART, T5 or the like",
        )
    load("optimum.exporters.onnx.model_configs")  # it tells TasksManager what can be exported
    tasks = load("optimum.exporters.tasks").TasksManager
    try:
        supported = tasks.get_supported_tasks_for_model_type(model_type, "onnx", library_name="transformers")
    except KeyError:
        supported = {}
    if kind.optimum_task not in supported:
        raise UsageError(
            f"optimum cannot export a model of type {model_type!r} for {kind.optimum_task}",
            why=f"it can for {', '.join(sorted(supported))}" if supported else "it does not know the type",
            hint="export it to ONNX by other means",
        )
    return kind


def _name_of(classes: Any, kind: _Kind, model_type: str) -> str | None:
    mapping: Mapping[str, str] = getattr(classes, f"MODEL_FOR_{kind.mapping}_MAPPING_NAMES")
    return mapping.get(model_type)


def _load(plain: Path, kind: _Kind, folder: Path) -> Any:
    """The model, in fp32, on the CPU. Raises IntegrityError where weights are missing or of other shapes."""
    auto = getattr(load("transformers"), kind.auto_class)
    try:
        model, info = auto.from_pretrained(
            plain,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            torch_dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise IntegrityError(
            f"transformers cannot load {folder}", why=str(error).strip().splitlines()[0], hint="get the folder again"
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise IntegrityError(
            f"{folder} lacks weights of a {type(model).__name__}",
            why=f"{missing[0]} and {len(missing) - 1} more" if len(missing) > 1 else missing[0],
            hint="is config.json the one of these weights?",
        )
    return model.eval()


def _export(model: Any, kind: _Kind, made: Path, nothing: Path) -> None:
    """Write the ONNX files to `made`. No tokenizer is looked for: optimum would write the one it finds anew."""
    exporter = load("optimum.exporters.onnx")
    model.config._name_or_path = str(nothing)  # noqa: SLF001 - where optimum looks for a tokenizer
    past = "-with-past" if kind.task == "translate" else ""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
            warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.onnx|optimum|transformers")
            exporter.onnx_export_from_model(
                model, made, task=f"{kind.optimum_task}{past}", do_validation=False, no_post_process=True
            )
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise MostoolError(
            f"optimum could not export the {type(model).__name__}", why=str(error).strip().splitlines()[0]
        ) from error


# -- what there is to know ---------------------------------------------------------------------------------------------


def _longest(found: Folder, model: Any) -> int:
    """How many tokens a text may have: what the tokenizer allows, and the model has positions for."""
    places = found.config.max_position_embeddings or found.config.n_positions or _UNBOUNDED
    if found.config.model_type in _AFTER_PADDING:
        places -= int(model.config.pad_token_id) + 1
    allowed = found.longest if found.longest and found.longest >= 2 else places  # a limit below that is a mistake
    return int(min(places, allowed))


def _labels(model: Any, kind: _Kind) -> tuple[tuple[str, ...], ModelTask]:
    """The labels, in order, and the task: a head of one number is a regression."""
    if kind.task != "classify":
        return (), kind.task
    if getattr(model.config, "is_encoder_decoder", False):
        raise UsageError(
            f"a {type(model).__name__} reads a text twice, with an encoder and a decoder",
            hint="mostool exports classifiers that are encoders",
        )
    if model.config.problem_type == "multi_label_classification":
        raise UsageError(
            "the model gives a text several labels at once",
            why="problem_type in config.json",
            hint="mostool exports models that give one",
        )
    if model.config.num_labels == 1 or model.config.problem_type == "regression":
        return (), "regress"
    return tuple(name for _, name in sorted(model.config.id2label.items())), "classify"


def _marks(model: Any, padding: int) -> Marks:
    settings = model.generation_config
    ends = settings.eos_token_id if settings.eos_token_id is not None else model.config.eos_token_id
    begin = settings.decoder_start_token_id
    begin = model.config.decoder_start_token_id if begin is None else begin
    if begin is None or ends is None:
        raise UsageError(
            "the model does not say with which token a translation begins or ends",
            hint="add decoder_start_token_id and eos_token_id to its generation_config.json",
        )
    never = {words[0] for words in settings.bad_words_ids or () if len(words) == 1}
    never |= set(settings.suppress_tokens or ()) | {padding}
    end = ends[0] if isinstance(ends, list) else ends
    return Marks(int(begin), int(end), tuple(sorted(never - {end})), settings.forced_bos_token_id)
