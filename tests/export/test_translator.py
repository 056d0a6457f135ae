"""Translators as files: the words of torch's own greedy and beam search, of one graph and of three; weights once."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from toolchain.errors import ParityError, UsageError
from toolchain.export import Checks, check_parity, screening
from toolchain.export.assembling import assemble
from toolchain.export.run_translation import Translation
from toolchain.export.session import open_session
from toolchain.export.translator import (
    MODEL,
    Parts,
    assembled,
    build_token_checks,
    check_parts,
    export_translator,
    filled,
    quantise_parts,
    trace_translator,
)
from toolchain.records import Artifact
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.decoding import Marks, beam_search, greedy, translating
from toolchain.supernet.families.translation.declare import SPACES
from toolchain.supernet.families.translation.graphs import TranslatorGraphs, translator_graphs
from toolchain.supernet.families.translation.model import Translator, build_subnet

VOCABULARY, LONGEST = 300, 24
MARKS = Marks(begin=2, end=3, never=(0, 1, 2, 4))
SIZES: dict[str, dict[str, Any]] = {
    "plain": {"seed": 4},
    "of several encoder layers": {"seed": 2, "cross_layers": (1, 2), "heads": (2, 4), "encoder_embedding": 32},
    "wider above": {"seed": 2, "encoder_embedding": 32, "cross_layers": (2, 2), "decoder_embedding": 64},
}


def make(seed: int = 4, **sizes: Any) -> Translator:
    """Two layers each; random weights by which translations are of some length."""
    heads = sizes.get("heads", (4, 4))
    axes: dict[str, Any] = {
        "encoder_embedding": sizes.get("encoder_embedding", 64),
        "decoder_embedding": sizes.get("decoder_embedding", 64),
        "encoder_depth": 2,
        "encoder_ffn": (64, 96),
        "encoder_heads": heads,
        "decoder_depth": 2,
        "decoder_ffn": (96, 64),
        "decoder_heads": heads,
        "cross_heads": heads[::-1],
        "cross_layers": sizes.get("cross_layers", (1, 1)),
    }
    vocabulary = sizes.get("vocabulary", VOCABULARY)
    fixed = {"width": 64, "attention": 64, "vocabulary_size": vocabulary, "maximum_length": LONGEST + 1}
    torch.manual_seed(seed)
    space = SearchSpace("made", "translation", SPACES["tiny"].axes, fixed)
    subnet = build_subnet(space, Architecture("translation", axes), 0.0)
    with torch.no_grad():
        for name, parameter in subnet.named_parameters():
            fresh = torch.randn_like(parameter)
            if name.endswith("norm.weight"):
                parameter.copy_(fresh.sign())  # or each word would be followed by itself
            else:
                parameter.copy_(fresh / (4 if ".fc" in name else 8))
        subnet.word.weight[MARKS.end] *= 4  # so that some translations end
    return subnet.eval()


class Made(NamedTuple):
    subnet: Translator
    graphs: TranslatorGraphs
    parts: Parts
    whole: bytes

    def greedy(self, ids: Tensor, mask: Tensor, longest: int = LONGEST) -> list[list[int]]:
        return greedy(translating(self.subnet), ids, mask, MARKS, longest)


def made(seed: int = 4, **sizes: Any) -> Made:
    subnet = make(seed, **sizes)
    graphs = translator_graphs(subnet, LONGEST + 1)
    parts = trace_translator(graphs)
    return Made(subnet, graphs, parts, assembled(parts, MARKS)[0])


@pytest.fixture(scope="module", params=SIZES)
def one(request: pytest.FixtureRequest) -> Made:
    return made(**SIZES[request.param])


@pytest.fixture(scope="module")
def plain() -> Made:
    return made()


def source(rows: int, length: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of falling length, padded."""
    ids = torch.randint(5, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    for row in range(rows):
        mask[row, max(1, length - 2 * row) :] = 0
    return ids * mask, mask


def asked(ids: Tensor, mask: Tensor, longest: int = LONGEST, shortest: int = 0) -> dict[str, Any]:
    limits = {"shortest": np.array([shortest]), "longest": np.array([longest])}
    return {"input_ids": ids.numpy(), "attention_mask": mask.numpy(), **limits}


def run(model: bytes, ids: Tensor, mask: Tensor, longest: int = LONGEST, shortest: int = 0) -> list[list[int]]:
    return open_session(model, {}).run(None, asked(ids, mask, longest, shortest))[0].tolist()  # type: ignore[no-any-return]


def cut(rows: list[list[int]]) -> list[list[int]]:
    return [row[: row.index(MARKS.end)] if MARKS.end in row else row for row in rows]


def exported(one: Made, folder: Path, precision: Any = "fp32") -> tuple[Any, Checks]:
    ids, _ = source(5, 9)
    checks = build_token_checks(one.greedy, ids.numpy(), MARKS, LONGEST)
    artifact, checks, further = export_translator(
        one.graphs,
        one.subnet.architecture,
        folder / MODEL,
        checks,
        MARKS,
        precision=precision,
        checkpoint_sha256=None,
        options={},
    )
    for name, content in further.items():
        (folder / name).write_bytes(content)
    return artifact, checks


class Bundled(NamedTuple):
    made: Made
    folder: Path
    artifact: Artifact

    @property
    def translation(self) -> Translation:
        return Translation(self.folder, MARKS, threads=1)


@pytest.fixture(scope="module")
def bundled(one: Made, tmp_path_factory: pytest.TempPathFactory) -> Bundled:
    folder = tmp_path_factory.mktemp("bundled")
    return Bundled(one, folder, exported(one, folder)[0])


@pytest.mark.parametrize("shape", [(1, 9), (5, 9), (1, 1), (3, 2), (1, 24)], ids=str)
def test_words_are_those_of_torch(one: Made, shape: tuple[int, int]) -> None:
    ids, mask = source(*shape)
    assert cut(run(one.whole, ids, mask)) == one.greedy(ids, mask)


def test_of_many_sources_words_and_lengths_are_those_of_torch(one: Made) -> None:
    ids, mask = source(40, 12, seed=4)
    said = one.greedy(ids, mask)
    assert cut(run(one.whole, ids, mask)) == said
    assert len({word for row in said for word in row}) > 8  # they do say something
    assert any(len(row) < min(LONGEST, 2 * int(count) + 10) for row, count in zip(said, mask.sum(1), strict=True))


def test_a_row_does_not_depend_on_its_batch(one: Made) -> None:
    ids, mask = source(4, 9)
    together = cut(run(one.whole, ids, mask))
    assert together == [cut(run(one.whole, ids[[row]], mask[[row]]))[0] for row in range(4)]


def test_holes_and_padding_on_the_left_are_not_seen(one: Made) -> None:
    ids, mask = source(2, 9)
    mask[:, 0], mask[0, 4] = 0, 0
    assert cut(run(one.whole, ids, mask)) == one.greedy(ids, mask)


def test_a_limit_ends_each_row_and_a_number_can_be_forced(plain: Made) -> None:
    ids, mask = source(3, 9)
    assert cut(run(plain.whole, ids, mask, 3)) == plain.greedy(ids, mask, 3)
    forced = run(plain.whole, ids, mask, longest=17, shortest=17)
    assert np.array(forced).shape == (3, 17)
    assert MARKS.end not in np.array(forced)


def test_never_said_is_what_no_translation_holds(plain: Made) -> None:
    ids, mask = source(5, 9)
    assert not {*MARKS.never} & {word for row in run(plain.whole, ids, mask, 20, 20) for word in row}


def test_standard_operators_alone_say_the_same(one: Made) -> None:
    portable = assemble(*one.parts, MARKS, fused=False)
    domains = {entry.domain for entry in onnx.load_from_string(portable).opset_import}
    ids, mask = source(4, 9)
    assert domains == {""}
    assert run(portable, ids, mask) == run(one.whole, ids, mask)


def test_a_step_has_an_operator_for_each_attention(plain: Made) -> None:
    kinds = [node.op_type for node in body(plain.whole).node]
    assert kinds.count("MultiHeadAttention") == 4  # of two layers, to themselves and to the source
    assert "Softmax" not in kinds
    assert kinds.count("MatMul") == 2 * 6 + 1  # query, key and value are one


def test_what_does_not_change_is_computed_once(plain: Made) -> None:
    """The mask of the source is read outside the loop, and cross keys are not transposed in it."""
    assert "attention_mask" not in {name for node in body(plain.whole).node for name in node.input}


def body(model: bytes) -> Any:
    loop = next(node for node in onnx.load_from_string(model).graph.node if node.op_type == "Loop")
    return next(entry.g for entry in loop.attribute if entry.name == "body")


def test_the_same_module_gives_the_same_bytes(plain: Made) -> None:
    assert trace_translator(plain.graphs) == plain.parts
    assert assembled(plain.parts, MARKS)[0] == plain.whole


def test_the_three_graphs_are_their_modules(one: Made) -> None:
    assert check_parts(one.parts, one.graphs, {}) < 5e-5


def test_a_graph_that_is_another_is_named(plain: Made) -> None:
    with pytest.raises(ParityError, match=r"output last_hidden_state of Encoder"):
        check_parts(made(seed=1).parts, plain.graphs, {})


# -- the files of a bundle ---------------------------------------------------------------------------------------------


def test_weights_are_stored_once(bundled: Bundled) -> None:
    artifact, folder = bundled.artifact, bundled.folder
    numbers = sum(parameter.numel() for parameter in bundled.made.subnet.parameters())
    assert artifact.parameters == numbers
    assert artifact.size_bytes == (folder / MODEL).stat().st_size
    assert artifact.size_bytes < 4 * numbers + 90_000  # nodes and their names
    for name in ("encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"):
        graph = onnx.load(folder / name, load_external_data=False).graph
        assert sum(len(tensor.raw_data) for tensor in graph.initializer) < 0.1 * numbers
        outside = sum(numpy_helper.to_array(tensor, str(folder)).nbytes for tensor in graph.initializer)
        assert outside > numbers


@pytest.mark.parametrize("beam", [2, 4])
def test_beam_search_over_the_files_is_that_of_torch(bundled: Bundled, beam: int) -> None:
    ids, mask = source(3, 9)
    expected = beam_search(translating(bundled.made.subnet), ids, mask, MARKS, LONGEST, beam=beam)
    assert bundled.translation.beam_search(ids.numpy(), mask.numpy(), LONGEST, beam=beam) == expected


def test_greedily_the_files_say_the_same_in_one_call_and_in_many(bundled: Bundled) -> None:
    ids, mask = source(4, 9)
    said = bundled.made.greedy(ids, mask)
    assert bundled.translation.greedy(ids.numpy(), mask.numpy(), LONGEST) == said
    one_by_one = [
        bundled.translation.beam_search(ids[[row]].numpy(), mask[[row]].numpy(), LONGEST, beam=1) for row in range(4)
    ]
    assert [rows[0] for rows in one_by_one] == said


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_quantised_translator_is_smaller_and_one_in_all_its_files(one: Made, tmp_path: Path, precision: str) -> None:
    artifact, checks = exported(one, tmp_path, precision)
    assert artifact.size_bytes < 0.6 * len(one.whole)
    assert 0 <= artifact.quantised_max_abs_error <= 1  # a share of rows
    check_parity(open_session(tmp_path / MODEL, {}), checks, 0.0)
    translation = Translation(tmp_path, MARKS, threads=1)
    ids, mask = source(1, 9)
    alone = translation.beam_search(ids.numpy(), mask.numpy(), LONGEST, beam=1)
    assert alone == translation.greedy(ids.numpy(), mask.numpy(), LONGEST)


def test_eight_bits_hardly_change_the_logits(plain: Made) -> None:
    def logits(parts: Parts) -> Any:
        given = dict(zip(plain.graphs.step.input_names, plain.graphs.step.example(), strict=True))
        return open_session(parts.step, {}).run(["logits"], {name: one.numpy() for name, one in given.items()})[0]

    exact, rounded = logits(plain.parts), logits(quantise_parts(plain.parts, "int8"))
    assert 0 < np.abs(exact - rounded).max() < 0.1 * np.abs(exact).max()


def test_there_is_no_other_precision(plain: Made) -> None:
    with pytest.raises(UsageError, match="no fp16 form"):
        quantise_parts(plain.parts, "fp16")  # type: ignore[arg-type]


# -- checks ------------------------------------------------------------------------------------------------------------


def test_checks_find_a_file_that_says_something_else(plain: Made) -> None:
    ids, _ = source(5, 9)
    checks = build_token_checks(plain.greedy, ids.numpy(), MARKS, LONGEST)
    check_parity(open_session(plain.whole, {}), checks, 0.0)
    with pytest.raises(ParityError, match="disagree on check 0"):
        check_parity(open_session(made(seed=1).whole, {}), checks, 0.0)


def test_expected_words_are_as_wide_as_the_graph_gives_them(plain: Made) -> None:
    ids, mask = source(3, 2)
    for longest in (1, 3, LONGEST):
        allowed = max(min(longest, 2 * int(count) + 10) for count in mask.sum(1))
        expected = filled(plain.greedy(ids, mask, longest), allowed, MARKS.end)
        assert run(plain.whole, ids, mask, longest) == expected.tolist()


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    one = made()
    with torch.no_grad():
        one.subnet.get_parameter("decoder.1.fc1.weight")[0, 0] = torch.nan
    with pytest.raises(ParityError, match=r"decoder\.1\.fc1\.weight is not finite"):
        exported(one, tmp_path)
    assert not list(tmp_path.iterdir())


def test_parts_without_keys_and_values_are_refused(plain: Made) -> None:
    with pytest.raises(UsageError, match="no sizes of past keys"):
        assemble(plain.parts.encoder, plain.parts.first, plain.parts.first, MARKS)


# -- the likeliest word without the whole table ------------------------------------------------------------------------


@pytest.fixture
def screened(monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.setattr(screening, "_LEAST_BYTES", 1)
    monkeypatch.setattr(screening, "_BLOCK", 32)
    return made(vocabulary=1200)


def test_screening_finds_the_same_words(screened: Made) -> None:
    assert "TopK" in [node.op_type for node in body(screened.whole).node]
    ids, mask = source(5, 9)
    assert cut(run(screened.whole, ids, mask)) == screened.greedy(ids, mask)
    assert len(screened.whole) < 4 * 1.1 * sum(one.numel() for one in screened.subnet.parameters())


def test_where_screening_is_not_sure_the_whole_table_is_read(screened: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screening, "_SLACK", 1e6)  # so that it never is
    ids, mask = source(5, 9)
    assert cut(run(assembled(screened.parts, MARKS)[0], ids, mask)) == screened.greedy(ids, mask)


# -- what others make of the files -------------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("optimum") is None, reason="optimum is not installed")
@pytest.mark.filterwarnings("ignore")
def test_optimum_generates_the_same_words(bundled: Bundled) -> None:
    from optimum.onnxruntime import ORTModelForSeq2SeqLM  # noqa: PLC0415

    one, folder = bundled.made, bundled.folder
    marks = {"bos_token_id": 2, "decoder_start_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    sizes = {"d_model": one.subnet.decoder_width, "vocab_size": VOCABULARY, "decoder_vocab_size": VOCABULARY}
    config = {"model_type": "marian", "is_encoder_decoder": True, "forced_eos_token_id": None, **marks, **sizes}
    (folder / "config.json").write_text(json.dumps(config))
    greedily = {"suppress_tokens": MARKS.never, "max_length": LONGEST + 1, "num_beams": 1, "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(marks | greedily))
    model = ORTModelForSeq2SeqLM.from_pretrained(folder)
    ids, mask = source(3, 12)
    rows = model.generate(input_ids=ids, attention_mask=mask)[:, 1:].tolist()
    longest = min(LONGEST, 2 * int(mask.sum(1).min()) + 10)  # generate has no limit for each row
    assert [row[:longest] for row in cut(rows)] == [row[:longest] for row in one.greedy(ids, mask)]
