"""Models of other makers, made here at random and saved as transformers saves them; none is fetched."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from toolchain.errors import IntegrityError, UsageError
from toolchain.export import check_parity, inspecting, open_session
from toolchain.export.foreign import ForeignModel, Marks, export_folder
from toolchain.export.foreign_folder import look_at
from toolchain.export.foreign_proof import DECODER, DECODER_WITH_PAST, ENCODER
from toolchain.export.foreign_tuning import fuse_foreign
from toolchain.export.optimum_calls import load, quietly

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("optimum") is None, reason="optimum is not installed: pip install 'mostool[optimum]'"
)

VOCABULARY, LONGEST = 60, 20
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": LONGEST,
}
_STACKS = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": LONGEST,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "decoder_start_token_id": 2,
    "eos_token_id": 3,
    "forced_eos_token_id": None,
}
_T5 = {"vocab_size": VOCABULARY, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
_MARKS = {"pad_token_id": 0, "eos_token_id": 3, "decoder_start_token_id": 0}
_LABELS = {"id2label": {0: "bad", 1: "fair", 2: "good"}}
_MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertForSequenceClassification", "BertConfig", _SIZES | _LABELS),
    "roberta": ("RobertaForSequenceClassification", "RobertaConfig", _SIZES | {"num_labels": 1, "pad_token_id": 1}),
    "distilbert": (
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        {"vocab_size": VOCABULARY, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
        | {"max_position_embeddings": LONGEST},
    ),
    "electra": ("ElectraForMaskedLM", "ElectraConfig", _SIZES | {"embedding_size": 12}),
    "marian": ("MarianMTModel", "MarianConfig", _STACKS),
    "m2m_100": ("M2M100ForConditionalGeneration", "M2M100Config", _STACKS),
    "t5": ("T5ForConditionalGeneration", "T5Config", _T5 | _MARKS),
}
_TRANSLATORS = ("marian", "m2m_100", "t5")


def make(folder: Path, name: str, **changes: Any) -> Any:
    """A model with random weights, biases and norms too, saved to `folder`."""
    model_class, config_class, sizes = _MODELS[name]
    transformers = load("transformers")
    torch.manual_seed(0)
    with quietly():
        model = getattr(transformers, model_class)(getattr(transformers, config_class)(**sizes | changes)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:  # Marian's places are not saved
                    parameter.add_(0.2 * torch.randn_like(parameter))
        model.save_pretrained(folder)
    return model


def edit(folder: Path, **changes: Any) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier's folder, to be copied and spoiled."""
    folder = tmp_path_factory.mktemp("foreign") / "saved"
    make(folder, "bert")
    return folder


@pytest.fixture(scope="module")
def exported(saved: Path) -> ForeignModel:
    return export_folder(saved, saved.parent / "exported")


@pytest.fixture
def spoiled(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "spoiled")


# -- what comes out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "task", "labels", "longest", "padding"),
    [
        ("bert", "classify", ("bad", "fair", "good"), LONGEST, 0),
        ("roberta", "regress", (), LONGEST - 2, 1),
        ("distilbert", "mlm", (), LONGEST, 0),
        ("electra", "mlm", (), LONGEST, 0),
    ],
)
def test_an_encoder_is_exported_as_it_is(
    tmp_path: Path, name: str, task: str, labels: tuple[str, ...], longest: int, padding: int
) -> None:
    model = make(tmp_path / "in", name)
    (tmp_path / "in" / "vocab.txt").write_text("[PAD]\n")
    found = export_folder(tmp_path / "in", tmp_path / "out")
    assert (found.task, found.model_type, found.labels) == (task, name, labels)
    assert (found.maximum_length, found.padding, found.vocabulary_size) == (longest, padding, VOCABULARY)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.marks is None
    assert found.tokenizer is None
    assert set(found.files) == {"config.json", "model.onnx", "vocab.txt"}
    assert found.error < 1e-4
    assert found.checks is not None
    assert max(one["input_ids"].shape[1] for one in found.checks.inputs) == longest
    assert check_parity(open_session(found.model, {}), found.checks) == found.error
    types = [one.role for one in found.inputs]
    assert types == ["ids", "mask", "types"] if name in ("bert", "electra") else ["ids", "mask"]
    domains = {node.domain for node in onnx.load(found.model).graph.node}
    assert domains == {""}, "portable: standard operators alone"


def test_the_same_folder_gives_the_same_files(saved: Path, exported: ForeignModel, tmp_path: Path) -> None:
    again = export_folder(saved, tmp_path / "again")
    assert again.files.keys() == exported.files.keys()
    assert all(path.read_bytes() == exported.files[name].read_bytes() for name, path in again.files.items())
    assert again.sha256 == exported.sha256
    for path in again.files.values():
        assert b"/tmp" not in path.read_bytes()


@pytest.mark.parametrize("name", _TRANSLATORS)
def test_a_translation_model_is_exported_with_its_cache(tmp_path: Path, name: str) -> None:
    model = make(tmp_path / "in", name)
    found = export_folder(tmp_path / "in", tmp_path / "out")
    assert found.task == "translate"
    assert found.marks == Marks(0 if name == "t5" else 2, 3, (0,), None)
    assert found.maximum_length == (512 if name == "t5" else LONGEST)
    assert {ENCODER, DECODER, DECODER_WITH_PAST} <= found.files.keys()
    assert found.model.name == ENCODER
    assert found.error < 1e-4
    with quietly():
        runtime = load("optimum.onnxruntime").ORTModelForSeq2SeqLM.from_pretrained(tmp_path / "out")
        ids = torch.from_numpy(np.random.default_rng(1).integers(4, VOCABULARY, (2, 6)))
        given: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "max_new_tokens": 8}
        wanted = model.generate(**given, bad_words_ids=[[0]])
        assert runtime.generate(**given, bad_words_ids=[[0]]).tolist() == wanted.tolist()


def test_weights_in_several_files_are_read(saved: Path, exported: ForeignModel, tmp_path: Path) -> None:
    with quietly():
        model = load("transformers").BertForSequenceClassification.from_pretrained(saved)
        model.save_pretrained(tmp_path / "in", max_shard_size="8KB")
    assert not (tmp_path / "in" / "model.safetensors").exists()
    found = export_folder(tmp_path / "in", tmp_path / "out")
    assert found.model.read_bytes() == exported.model.read_bytes()
    shard = next((tmp_path / "in").glob("*-of-*.safetensors"))
    shard.rename(tmp_path / shard.name)
    index = tmp_path / "in" / "model.safetensors.index.json"
    index.write_text(index.read_text().replace(shard.name, f"../{shard.name}"))
    with pytest.raises(IntegrityError, match=r"lacks the weights file '\.\./"):
        export_folder(tmp_path / "in", tmp_path / "out")


# -- what is refused ---------------------------------------------------------------------------------------------------


def refuse(folder: Path, kind: type[Exception], said: str) -> None:
    out = folder.parent / "refused"
    with pytest.raises(kind, match=said) as caught:
        export_folder(folder, out)
    assert caught.value.hint or caught.value.why  # type: ignore[attr-defined]
    assert not out.exists()


def test_no_folder_of_a_model(tmp_path: Path) -> None:
    refuse(tmp_path, UsageError, "is no model's folder")


def test_no_weights(spoiled: Path) -> None:
    (spoiled / "model.safetensors").unlink()
    refuse(spoiled, UsageError, "there are no weights")


def test_pickled_weights_are_not_opened(spoiled: Path) -> None:
    (spoiled / "model.safetensors").rename(spoiled / "pytorch_model.bin")
    refuse(spoiled, UsageError, r"are in pytorch_model\.bin")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_that_comes_along_is_not_run(spoiled: Path, name: str) -> None:
    given = json.loads((spoiled / name).read_text()) if (spoiled / name).exists() else {}
    (spoiled / name).write_text(json.dumps(given | {"auto_map": {"AutoModelForMaskedLM": "modeling.Mine"}}))
    (spoiled / "modeling.py").write_text("raise SystemExit(3)")
    refuse(spoiled, UsageError, "brings its own code")


def test_weights_that_are_not_finite(spoiled: Path) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    weights = load_file(spoiled / "model.safetensors")
    weights["classifier.bias"][1] = torch.nan
    save_file(weights, spoiled / "model.safetensors", metadata={"format": "pt"})
    refuse(spoiled, IntegrityError, r"classifier\.bias holds numbers that are not finite")


def test_weights_that_are_no_safetensors(spoiled: Path) -> None:
    (spoiled / "model.safetensors").write_bytes(b"PK nothing")
    refuse(spoiled, IntegrityError, "is not a safetensors file")


def test_quantised_weights(spoiled: Path) -> None:
    edit(spoiled, quantization_config={"quant_method": "gptq"})
    refuse(spoiled, UsageError, "are quantised")


def test_weights_of_another_head(spoiled: Path) -> None:
    edit(spoiled, architectures=["BertForMaskedLM"])
    refuse(spoiled, IntegrityError, "lacks weights of a BertForMaskedLM")


def test_weights_of_other_sizes(spoiled: Path) -> None:
    edit(spoiled, intermediate_size=32)
    refuse(spoiled, IntegrityError, "transformers cannot load")


def test_a_config_that_is_none(spoiled: Path) -> None:
    (spoiled / "config.json").write_text("[1")
    refuse(spoiled, IntegrityError, r"config\.json cannot be read")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": None}, "does not say what its model is for"),
        ({"architectures": ["BertModel"]}, "a BertModel of type 'bert' is neither"),
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "a GPT2LMHeadModel of type 'gpt2' is neither"),
        ({"model_type": "novel", "architectures": ["NovelForMaskedLM"]}, "of type 'novel' is neither"),
        (
            {"model_type": "yoso", "architectures": ["YosoForMaskedLM"]},
            "optimum cannot export a model of type 'yoso' for fill-mask",
        ),
        ({"problem_type": "multi_label_classification"}, "several labels at once"),
    ],
)
def test_models_of_another_kind(spoiled: Path, changes: dict[str, Any], said: str) -> None:
    edit(spoiled, **changes)
    refuse(spoiled, UsageError, said)


def test_a_model_that_is_too_large(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspecting, "MOST_BYTES", 2000)
    with pytest.raises(UsageError, match="is too large") as caught:
        export_folder(saved, tmp_path / "out")
    assert "2 GiB" in caught.value.why
    assert not (tmp_path / "out").exists()


def test_without_optimum_it_says_what_to_install(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UsageError, match="need optimum") as caught:
        export_folder(saved, tmp_path / "out")
    assert "mostool[optimum]" in caught.value.hint


def test_links_are_followed_as_the_cache_of_the_hub_has_them(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "snapshot").mkdir()
    for path in saved.iterdir():
        (tmp_path / "snapshot" / path.name).symlink_to(path)
    assert look_at(tmp_path / "snapshot").sha256 == look_at(saved).sha256


# -- faster forms ------------------------------------------------------------------------------------------------------


def test_attention_is_fused_and_right_for_padding_anywhere(exported: ForeignModel) -> None:
    fused = fuse_foreign(exported, {})
    assert fused.operators["Attention"] == 2
    assert "SkipLayerNormalization" not in fused.operators
    assert exported.checks is not None
    assert any((one["attention_mask"][:, 0] == 0).any() for one in exported.checks.inputs), "padded on the left too"
    assert check_parity(open_session(fused.model, {}), exported.checks) < 1e-4
    assert fuse_foreign(exported, {}).model == fused.model


def test_what_does_not_answer_the_same_is_not_used(exported: ForeignModel) -> None:
    assert exported.checks is not None
    other = [one + 1 for one in exported.checks.expected]
    fused = fuse_foreign(exported._replace(checks=exported.checks._replace(expected=other)), {})
    assert fused.model == exported.model.read_bytes()
    assert not fused.operators
    assert "answers otherwise" in fused.why


def test_what_cannot_be_fused_stays_as_it_is(exported: ForeignModel, tmp_path: Path) -> None:
    folder = shutil.copytree(exported.model.parent, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "squeezebert"}
    (folder / "config.json").write_text(json.dumps(config))
    files = {path.name: path for path in folder.iterdir()}
    fused = fuse_foreign(exported._replace(files=files, model_type="squeezebert"), {})
    assert fused.model == exported.model.read_bytes()
    assert "squeezebert" in fused.why
