"""The reference is transformers: small models of every known kind, made here and saved as it saves them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from toolchain.errors import IntegrityError, MostoolError, UsageError
from toolchain.space import Axis, SearchSpace
from toolchain.supernet.families import declaration
from toolchain.supernet.families.bert.checkpoint_folder import find_checkpoint
from toolchain.supernet.families.bert.model import Encoder
from toolchain.supernet.families.bert.pretrained import Pretrained, check_fits, read_pretrained, space_of

VOCABULARY, PLACES = 90, 24
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": PLACES,
}
DISTIL = {"vocab_size": VOCABULARY, "dim": 48, "n_layers": 3, "n_heads": 4, "hidden_dim": 80}
KINDS: dict[str, tuple[str, dict[str, Any], int]] = {
    # by model_type: transformers' name for it, its settings, the number of its padding token
    "bert": ("Bert", SIZES, 0),
    "roberta": ("Roberta", SIZES | {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}, 1),
    "xlm-roberta": ("XLMRoberta", SIZES | {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}, 1),
    "camembert": ("Camembert", SIZES | {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}, 1),
    "electra": ("Electra", SIZES | {"embedding_size": 48}, 0),
    "distilbert": ("DistilBert", DISTIL | {"max_position_embeddings": PLACES}, 0),
}
_LENGTH = 20


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="transformers is not installed: no reference to compare with")


def made(transformers: Any, kind: str, head: str = "ForMaskedLM", **changes: Any) -> Any:
    """A model whose norms and biases are not ones and zeros, as after some training."""
    name, settings, _ = KINDS[kind]
    torch.manual_seed(5)
    config = getattr(transformers, f"{name}Config")(**(settings | changes))
    model = getattr(transformers, f"{name}{head}")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def rows_of(padding: int, vocabulary: int = VOCABULARY) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A renumbering as a tokenizer of that kind has it: five from anywhere to the front, padding first."""
    front = [padding, *(one for one in (3, 7, 2, vocabulary - 1, 0) if one != padding)][:5]
    return np.array([*front, *(one for one in range(vocabulary) if one not in front)], dtype=np.int64)


def encoder_of(found: Pretrained, head_width: int = 0) -> Encoder:
    declared = space_of(found.sizes, head_width)
    bert = declaration("bert")
    bert.check_space(declared)
    check_fits(declared, found.sizes)
    space = bert.resolve(
        declared,
        vocabulary_size=found.sizes["vocabulary_size"],
        labels=0,
        maximum_length=found.sizes["maximum_length"],
    )
    encoder = Encoder(space, space.largest(), 0.0)
    shapes = {name: one.shape for name, one in encoder.named_parameters()}
    assert {name: one.shape for name, one in found.weights.items()} == shapes
    missing, unexpected = encoder.load_state_dict(found.weights, strict=False)
    assert (missing, unexpected) == (["head.word.weight"], [])  # the same as word.weight
    return encoder.eval()


def ids_and_mask() -> tuple[Tensor, Tensor]:
    """Rows of falling length, padded with 0 at the right."""
    rng = np.random.default_rng(1)
    ids = torch.from_numpy(rng.integers(1, VOCABULARY, size=(5, _LENGTH)))
    mask = torch.ones_like(ids)
    for row in range(5):
        mask[row, _LENGTH - 4 * row :] = 0
    return ids * mask, mask


def difference(found: Pretrained, model: Any, rows: np.ndarray[Any, Any], head_width: int = 0) -> float:
    """The largest difference of the logits at tokens that are no padding."""
    ids, mask = ids_and_mask()
    renumber = torch.from_numpy(rows)
    with torch.no_grad():
        expected = model(input_ids=renumber[ids], attention_mask=mask).logits
        answers = encoder_of(found, head_width)(ids, mask)
    assert expected.std() > 0.1
    return float((answers - expected[..., renumber])[mask.bool()].abs().max())


@pytest.fixture
def bert(tmp_path: Path, transformers: Any) -> Path:
    made(transformers, "bert").save_pretrained(tmp_path)
    return tmp_path


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)


# -- the same function -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head_width", [0, 12])
def test_the_largest_subnet_is_the_checkpoint(tmp_path: Path, transformers: Any, kind: str, head_width: int) -> None:
    model = made(transformers, kind)
    model.save_pretrained(tmp_path)
    rows = rows_of(KINDS[kind][2])
    found = read_pretrained(tmp_path, rows)
    assert difference(found, model, rows, head_width) < 2e-5
    padded = "roberta" in kind or kind == "camembert"
    assert found.sizes == {
        "width": 48,
        "depth": 3,
        "heads": 4,
        "ffn": 80,
        "vocabulary_size": VOCABULARY,
        "maximum_length": PLACES - 2 if padded else PLACES,
        "norm_epsilon_exponent": 5 if padded else 12,
    }
    assert found.title == tmp_path.name
    assert found.sha256 == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert found.notes == ()
    assert all(one.dtype == torch.float32 and one.is_contiguous() for one in found.weights.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_without_its_head_gets_a_new_one(tmp_path: Path, transformers: Any, kind: str) -> None:
    """Its names have no prefix. The layers are the same: seen through the head of ours, which is near the identity."""
    model = made(transformers, kind, head="Model")
    model.save_pretrained(tmp_path)
    rows = rows_of(KINDS[kind][2])
    found = read_pretrained(tmp_path, rows)
    assert "head" in found.notes[0]
    ids, mask = ids_and_mask()
    renumber = torch.from_numpy(rows)
    with torch.no_grad():
        hidden = model(input_ids=renumber[ids], attention_mask=mask).last_hidden_state
        normed = torch.nn.functional.layer_norm(
            torch.nn.functional.gelu(hidden), (48,), eps=10.0 ** -found.sizes["norm_epsilon_exponent"]
        )
        expected = normed @ model.get_input_embeddings().weight[renumber].T
        answers = encoder_of(found)(ids, mask)
    assert (answers - expected)[mask.bool()].abs().max() < 2e-5


def test_positions_and_rows_are_cut_to_what_is_asked(tmp_path: Path, transformers: Any) -> None:
    model = made(transformers, "roberta")
    model.save_pretrained(tmp_path)
    rows = rows_of(1)[: VOCABULARY - 10]
    found = read_pretrained(tmp_path, rows, maximum_length=_LENGTH)
    assert found.weights["position.weight"].shape == (_LENGTH, 48)
    assert found.weights["word.weight"].shape == (VOCABULARY - 10, 48)
    assert "10 rows" in found.notes[0]
    ids, mask = ids_and_mask()
    ids = ids % len(rows)
    ids[(ids == 0) & mask.bool()] = 9
    renumber = torch.from_numpy(rows)
    with torch.no_grad():
        expected = model(input_ids=renumber[ids], attention_mask=mask).logits[..., renumber]
        answers = encoder_of(found)(ids, mask)
    assert (answers - expected)[mask.bool()].abs().max() < 2e-5
    for length in (0, -1, PLACES - 1):
        with pytest.raises(UsageError, match=f"no {length} positions"):
            read_pretrained(tmp_path, rows, maximum_length=length)


def test_half_precision_is_widened(tmp_path: Path, transformers: Any) -> None:
    model = made(transformers, "bert").half()
    model.save_pretrained(tmp_path)
    assert difference(read_pretrained(tmp_path, rows_of(0)), model.float(), rows_of(0)) < 2e-5


def test_the_old_names_of_norms_are_known(bert: Path, transformers: Any) -> None:
    def rename(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if "LayerNorm" in name]:
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            tensors[old] = tensors.pop(name)

    change_weights(bert, rename)
    assert difference(read_pretrained(bert, rows_of(0)), made(transformers, "bert"), rows_of(0)) < 2e-5


def test_a_checkpoint_in_several_files_is_the_same(tmp_path: Path, transformers: Any) -> None:
    model = made(transformers, "bert")
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    parts = sorted(tmp_path.glob("*.safetensors"))
    assert len(parts) > 2
    found = read_pretrained(tmp_path, rows_of(0))
    assert difference(found, model, rows_of(0)) < 2e-5
    lines = "".join(f"{hashlib.sha256(part.read_bytes()).hexdigest()}  {part.name}\n" for part in parts)
    assert found.sha256 == hashlib.sha256(lines.encode()).hexdigest()
    parts[1].unlink()
    with pytest.raises(IntegrityError, match=parts[1].name):
        read_pretrained(tmp_path, rows_of(0))


def test_a_tied_decoder_may_be_stored_and_another_is_refused(bert: Path, transformers: Any) -> None:
    decoder, bias = "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"

    def store(tensors: dict[str, Tensor]) -> None:
        tensors[decoder] = tensors["bert.embeddings.word_embeddings.weight"].clone()
        tensors[bias] = tensors["cls.predictions.bias"].clone()

    change_weights(bert, store)
    assert difference(read_pretrained(bert, rows_of(0)), made(transformers, "bert"), rows_of(0)) < 2e-5
    change_weights(bert, lambda tensors: tensors.update({decoder: tensors[decoder] + 1}))
    with pytest.raises(UsageError, match="not the word embedding"):
        read_pretrained(bert, rows_of(0))
    change_weights(bert, lambda tensors: (store(tensors), tensors.update({bias: tensors[bias] + 1})))
    with pytest.raises(IntegrityError, match="differ"):
        read_pretrained(bert, rows_of(0))


def test_links_to_files_are_followed_and_the_hub_name_is_the_title(bert: Path, tmp_path_factory: Any) -> None:
    """The hub's cache is a folder of links."""
    snapshot = tmp_path_factory.mktemp("hub") / "models--someone--small-bert" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).symlink_to(bert / name)
    assert read_pretrained(snapshot, rows_of(0)).title == "someone/small-bert"


# -- pickled weights ---------------------------------------------------------------------------------------------------


def test_a_pickle_is_read_when_allowed_and_only_for_tensors(bert: Path, transformers: Any) -> None:
    tensors = safetensors.torch.load_file(bert / "model.safetensors")
    (bert / "model.safetensors").unlink()
    path = bert / "pytorch_model.bin"
    torch.save(tensors, path)
    with pytest.raises(UsageError, match="alone") as refusal:
        read_pretrained(bert, rows_of(0))
    assert "--init-weights-only-pt" in refusal.value.hint
    found = read_pretrained(bert, rows_of(0), allow_pickle_import=True)
    assert difference(found, made(transformers, "bert"), rows_of(0)) < 2e-5
    for broken in ({"a": 1}, [1, 2]):
        torch.save(broken, path)
        with pytest.raises(IntegrityError, match="plain tensors"):
            read_pretrained(bert, rows_of(0), allow_pickle_import=True)
    for data in (b"", b"junk", b"\x80\x04."):
        path.write_bytes(data)
        with pytest.raises(IntegrityError, match="plain tensors"):
            read_pretrained(bert, rows_of(0), allow_pickle_import=True)


class Trap:
    """Pickled, it creates a file when it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self.path, "w")


def test_a_pickle_that_holds_code_is_refused_unread(bert: Path) -> None:
    (bert / "model.safetensors").unlink()
    torch.save({"a": Trap(str(bert / "sprung"))}, bert / "pytorch_model.bin")
    with pytest.raises(IntegrityError, match="plain tensors"):
        read_pretrained(bert, rows_of(0), allow_pickle_import=True)
    assert not (bert / "sprung").exists()


# -- what is refused ---------------------------------------------------------------------------------------------------

_CONFIGS: dict[str, tuple[dict[str, Any], type[MostoolError], str]] = {
    "another kind": ({"model_type": "gpt2"}, UsageError, "gpt2"),
    "no kind": ({"model_type": None}, IntegrityError, "model_type"),
    "gelu_new": ({"hidden_act": "gelu_new"}, UsageError, "hidden_act is gelu_new"),
    "relu": ({"hidden_act": "relu"}, UsageError, "hidden_act is relu"),
    "relative": ({"position_embedding_type": "relative_key"}, UsageError, "relative_key"),
    "decoder": ({"is_decoder": True}, UsageError, "is_decoder"),
    "cross attention": ({"add_cross_attention": True}, UsageError, "add_cross_attention"),
    "factored embedding": ({"embedding_size": 16}, UsageError, "embedding_size is 16"),
    "pruned": ({"pruned_heads": {"0": [1]}}, UsageError, "pruned_heads"),
    "heads that do not divide": ({"num_attention_heads": 5}, UsageError, "num_attention_heads"),
    "an odd epsilon": ({"layer_norm_eps": 3e-6}, UsageError, "layer_norm_eps"),
    "no epsilon": ({"layer_norm_eps": 0}, UsageError, "layer_norm_eps"),
    "a width of text": ({"hidden_size": "48"}, IntegrityError, "hidden_size"),
    "a width of nothing": ({"hidden_size": 0}, IntegrityError, "hidden_size"),
    "too deep": ({"num_hidden_layers": 10**9}, IntegrityError, "num_hidden_layers"),
    "one layer more": ({"num_hidden_layers": 4}, IntegrityError, r"encoder\.layer\.3\."),
    "one layer less": ({"num_hidden_layers": 2}, IntegrityError, r"encoder\.layer\.2\."),
    "another width": ({"hidden_size": 40}, IntegrityError, "word_embeddings"),
    "another ffn": ({"intermediate_size": 81}, IntegrityError, r"intermediate\.dense\.weight"),
    "more words": ({"vocab_size": VOCABULARY + 1}, IntegrityError, "word_embeddings"),
    "fewer words": ({"vocab_size": VOCABULARY - 1}, IntegrityError, "tokenizer"),
    "more types": ({"type_vocab_size": 3}, IntegrityError, "token_type_embeddings"),
    "no padding token": ({"pad_token_id": -1}, IntegrityError, "pad_token_id"),
}


@pytest.mark.parametrize("case", _CONFIGS)
def test_a_config_that_means_another_function_is_refused(bert: Path, case: str) -> None:
    changes, error, message = _CONFIGS[case]
    change_config(bert, **changes)
    with pytest.raises(error, match=message) as refusal:
        read_pretrained(bert, rows_of(0))
    assert refusal.value.hint


_QUERY = "bert.encoder.layer.1.attention.self.query.weight"
_WEIGHTS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "missing": (lambda tensors: tensors.pop(_QUERY), r"lacks the tensor encoder\.layer\.1\.attention\.self\.query"),
    "a shape": (lambda tensors: tensors.update({_QUERY: torch.zeros(48, 47)}), r"query\.weight has the shape"),
    "a dimension": (lambda tensors: tensors.update({_QUERY: torch.zeros(48)}), r"query\.weight has the shape"),
    "whole numbers": (lambda tensors: tensors.update({_QUERY: torch.zeros(48, 48, dtype=torch.int8)}), "int8"),
    "not finite": (lambda tensors: tensors[_QUERY].fill_(float("nan")), r"query\.weight holds numbers"),
    "half a head": (lambda tensors: tensors.pop("cls.predictions.transform.LayerNorm.bias"), r"transform\.LayerNorm"),
    "no bias": (lambda tensors: tensors.pop("cls.predictions.bias"), r"cls\.predictions\.bias"),
    "twice": (lambda tensors: tensors.update({_QUERY.removeprefix("bert."): torch.zeros(48, 48)}), "twice"),
    "one too many": (
        lambda tensors: tensors.update(
            {"bert.encoder.layer.0.attention.self.distance_embedding.weight": torch.ones(2)}
        ),
        "distance_embedding",
    ),
}


@pytest.mark.parametrize("case", _WEIGHTS)
def test_a_tensor_that_does_not_fit_is_named(bert: Path, case: str) -> None:
    change, message = _WEIGHTS[case]
    change_weights(bert, change)
    with pytest.raises(IntegrityError, match=message) as refusal:
        read_pretrained(bert, rows_of(0))
    assert refusal.value.hint


_FILES: dict[str, tuple[str, bytes | None, type[MostoolError], str]] = {
    "no config": ("config.json", None, UsageError, "config.json"),
    "config no JSON": ("config.json", b"{", IntegrityError, "config.json"),
    "config a list": ("config.json", b"[]", IntegrityError, "config.json"),
    "config deep": ("config.json", b"[" * 100_000, IntegrityError, "config.json"),
    "no weights": ("model.safetensors", None, UsageError, "no weights"),
    "weights empty": ("model.safetensors", b"", IntegrityError, "not a safetensors file"),
    "weights cut": ("model.safetensors", b"\xff" * 64, IntegrityError, "not a safetensors file"),
}


@pytest.mark.parametrize("case", _FILES)
def test_files_that_are_none_are_refused(bert: Path, case: str) -> None:
    name, data, error, message = _FILES[case]
    (bert / name).unlink()
    if data is not None:
        (bert / name).write_bytes(data)
    with pytest.raises(error, match=message) as refusal:
        read_pretrained(bert, rows_of(0))
    assert refusal.value.hint


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "model.bin", "", "none.safetensors"])
def test_an_index_leads_nowhere_else(bert: Path, name: str) -> None:
    (bert / "inside").mkdir()
    (bert / "inside" / "config.json").write_bytes((bert / "config.json").read_bytes())
    (bert / "inside" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(IntegrityError, match="names the file"):
        read_pretrained(bert / "inside", rows_of(0))


def test_a_config_too_large_is_refused(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolchain.supernet.families.bert.checkpoint_folder._LARGEST_JSON_BYTES", 100)
    with pytest.raises(IntegrityError, match="too large"):
        read_pretrained(bert, rows_of(0))


def test_tokens_the_model_has_not_are_refused(bert: Path) -> None:
    for rows in (np.arange(VOCABULARY + 1), np.array([0, 1, VOCABULARY])):
        with pytest.raises(IntegrityError, match="tokens that the model has not"):
            read_pretrained(bert, rows)


# -- finding one -------------------------------------------------------------------------------------------------------


def test_a_folder_is_its_own_checkpoint(tmp_path: Path) -> None:
    assert find_checkpoint(str(tmp_path)) == tmp_path
    (tmp_path / "file").write_text("")
    for given in (
        tmp_path / "file",
        tmp_path / "missing",
        "a/b/c",
        "a/../b",
        "",
        "-",
        "a\0b",
        "x" * 5000,
        "with space",
    ):
        with pytest.raises(UsageError) as refusal:
            find_checkpoint(str(given))
        assert "folder" in refusal.value.hint


def test_a_name_is_looked_up_on_the_hub_for_known_files_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked: list[tuple[str, list[str]]] = []

    def fetch(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "snapshot_download", fetch)
    assert find_checkpoint("someone/small-bert") == tmp_path
    name, patterns = asked.pop()
    assert name == "someone/small-bert"
    assert {"config.json", "model*.safetensors", "tokenizer.json"} <= set(patterns)
    assert not [one for one in patterns if one.endswith((".bin", ".py", "*"))]


def test_without_the_hub_a_folder_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As where there is no network: the hub's own refusal, and whatever else a connection can raise."""
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.chdir(tmp_path)
    for error in (
        hub.errors.LocalEntryNotFoundError("not in the cache"),
        ConnectionError(),
        RuntimeError("two\nlines"),
    ):

        def refuse(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(hub, "snapshot_download", refuse)
        with pytest.raises(UsageError, match="no folder someone/small-bert") as refusal:
            find_checkpoint("someone/small-bert")
        assert "folder" in refusal.value.hint
        assert "\n" not in refusal.value.why


# -- the space around it -----------------------------------------------------------------------------------------------

BERT_BASE = {
    "width": 768,
    "depth": 12,
    "heads": 12,
    "ffn": 3072,
    "vocabulary_size": 30522,
    "maximum_length": 512,
    "norm_epsilon_exponent": 12,
}


def test_the_space_of_bert_base_is_that_of_supershaper() -> None:
    supershaper = declaration("bert").SPACES["supershaper"]
    made_for_it = space_of(BERT_BASE)
    assert made_for_it.axes == supershaper.axes
    assert made_for_it.fixed == supershaper.fixed | {"norm_epsilon_exponent": 12}
    assert space_of(BERT_BASE | {"norm_epsilon_exponent": 5}).fixed == supershaper.fixed


@pytest.mark.parametrize(
    ("width", "heads"), [(4, 2), (48, 4), (64, 8), (64, 1), (128, 2), (256, 4), (312, 12), (1024, 16)]
)
def test_every_width_gets_a_space_that_fits(width: int, heads: int) -> None:
    sizes = BERT_BASE | {"width": width, "heads": heads}
    for head_width in (0, width // heads):
        space = space_of(sizes, head_width)
        declaration("bert").check_space(space)
        check_fits(space, sizes)
        assert all(hidden % heads == 0 for hidden in space.axis("hidden").choices)
        assert space.axis("hidden").choices[-1] == width
    with pytest.raises(UsageError, match="heads of width 3"):
        space_of(sizes, 3)


def changed(space: SearchSpace, name: str, choices: tuple[int, ...]) -> SearchSpace:
    kept = tuple(axis for axis in space.axes if axis.name != name)
    per = None if name in {"depth", "embedding"} else "depth"
    return msgspec.structs.replace(space, axes=(*kept, Axis(name, choices, per)))


def test_a_space_that_does_not_end_at_the_checkpoint_is_refused_by_the_axis() -> None:
    space = space_of(BERT_BASE)
    check_fits(changed(space, "embedding", (120, 768)), BERT_BASE)
    check_fits(changed(space, "ffn", (256, 3072)), BERT_BASE)
    wrong = {"depth": (6, 11), "hidden": (120, 600), "heads": (12, 24), "ffn": (1024,), "embedding": (120, 240)}
    for name, choices in wrong.items():
        with pytest.raises(UsageError, match=f"'{name}'") as refusal:
            check_fits(changed(space, name, choices), BERT_BASE)
        assert "end with" in refusal.value.hint
    for name, value in {"width": 1024, "head_width": 32, "norm_epsilon_exponent": 5}.items():
        fixed = msgspec.structs.replace(space, fixed=space.fixed | {name: value})
        with pytest.raises(UsageError, match=f"'{name}'"):
            check_fits(fixed, BERT_BASE)
    without = {name: value for name, value in space.fixed.items() if name != "norm_epsilon_exponent"}
    with pytest.raises(UsageError, match="'norm_epsilon_exponent' is 5"):
        check_fits(msgspec.structs.replace(space, fixed=without), BERT_BASE)
    with pytest.raises(UsageError, match="family"):
        check_fits(msgspec.structs.replace(space, family="translation"), BERT_BASE)
