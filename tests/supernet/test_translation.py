"""The translation family: what is cut out equals what was inside, in every form of asking."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from toolchain.arrays import to_arrays
from toolchain.errors import UsageError
from toolchain.records import Mixture, Workload
from toolchain.space import Architecture, Axis, SearchSpace
from toolchain.supernet.decoding import Marks, beam_search, greedy, greedy_inside, translating
from toolchain.supernet.families import build_supernet, declaration
from toolchain.supernet.module import Batch, Supernet

TRANSLATION = declaration("translation")
VOCABULARY, LONGEST = 50, 24
MARKS = Marks(begin=2, end=3, never=(0, 1, 2, 4))
KINDS = ("plain", "layer", "neuron")
AXES = (
    Axis("encoder_embedding", (8, 12, 16)),
    Axis("decoder_embedding", (8, 12, 16)),
    Axis("encoder_depth", (2, 3)),
    Axis("decoder_depth", (1, 2)),
    Axis("encoder_ffn", (8, 24), per="encoder_depth"),
    Axis("encoder_heads", (1, 2, 4), per="encoder_depth"),
    Axis("decoder_ffn", (8, 24), per="decoder_depth"),
    Axis("decoder_heads", (1, 2, 4), per="decoder_depth"),
    Axis("cross_heads", (1, 2, 4), per="decoder_depth"),
    Axis("cross_layers", (1, 2), per="decoder_depth"),
)
DECLARED = SearchSpace("made", "translation", AXES, {"width": 16, "attention": 16})


def resolved() -> SearchSpace:
    return TRANSLATION.resolve(DECLARED, vocabulary_size=VOCABULARY, labels=0, maximum_length=LONGEST)


def supernet_of(kind: str, *, attention: bool = False, seed: int = 0) -> Supernet:
    torch.manual_seed(seed)
    mixture = Mixture(kind=kind, experts=1 if kind == "plain" else 3, router_width=16, attention=attention)  # type: ignore[arg-type]
    made = build_supernet(resolved(), mixture, 0.1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


@pytest.fixture(scope="module", params=list(itertools.product(KINDS, (False, True))), ids=str)
def supernet(request: pytest.FixtureRequest) -> Supernet:
    kind, attention = request.param
    return supernet_of(kind, attention=attention)


def samples(space: SearchSpace, count: int) -> list[Architecture]:
    rng = np.random.default_rng(3)
    return [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(count - 2))]


def source(rows: int = 5, length: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCABULARY, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(rows):
        mask[row, length - row % length :] = 0
    return ids * mask, mask


def pairs(rows: int = 5, length: int = 7, seed: int = 1) -> Batch:
    ids, mask = source(rows)
    decoder, _ = source(rows, length, seed)
    decoder[:, 0] = MARKS.begin
    return Batch(ids, mask, None, decoder)


def inside(supernet: Supernet, batch: Batch, architecture: Architecture) -> Tensor:
    with torch.no_grad():
        return supernet(batch, architecture)  # type: ignore[no-any-return]


def test_a_subnet_computes_the_same_inside_the_supernet_and_cut_out(supernet: Supernet) -> None:
    batch = pairs()
    for architecture in samples(supernet.space, 6):
        subnet = supernet.materialize(architecture)
        assert sum(one.numel() for one in subnet.parameters()) == TRANSLATION.parameters(supernet.space, architecture)
        assert not [name for name in subnet.state_dict() if "router" in name]
        with torch.no_grad():
            cut_out = subnet(*batch.inputs)
        assert cut_out.shape == (5, 7, VOCABULARY)
        assert cut_out.std() > 0.01
        torch.testing.assert_close(inside(supernet, batch, architecture), cut_out, atol=1e-5, rtol=0)


def test_every_entry_of_an_architecture_changes_the_answer() -> None:
    supernet, batch = supernet_of("neuron"), pairs()
    space = supernet.space
    middle = Architecture(
        "translation",
        {
            "encoder_embedding": 12,
            "decoder_embedding": 12,
            "encoder_depth": 2,
            "decoder_depth": 2,
            "encoder_ffn": (8, 24),
            "encoder_heads": (2, 1),
            "decoder_ffn": (24, 8),
            "decoder_heads": (2, 4),
            "cross_heads": (4, 2),
            "cross_layers": (1, 2),
        },
    )
    space.check(middle)
    asked = {"itself": middle}
    for axis in space.axes:
        value = middle.axes[axis.name]
        if axis.name.endswith("depth"):
            continue
        if isinstance(value, int):
            for choice in set(axis.choices) - {value}:
                asked[f"{axis.name} {choice}"] = Architecture("translation", middle.axes | {axis.name: choice})
            continue
        for layer, entry in enumerate(value):
            for choice in set(axis.choices) - {entry}:
                changed = (*value[:layer], choice, *value[layer + 1 :])
                asked[f"{axis.name} {layer} {choice}"] = Architecture("translation", middle.axes | {axis.name: changed})
    answers = {name: inside(supernet, batch, one) for name, one in asked.items()}
    for (first, one), (second, other) in itertools.combinations(answers.items(), 2):
        assert (one - other).abs().max() > 1e-4, (first, second)


def test_positions_pick_from_the_full_answer() -> None:
    supernet, batch = supernet_of("neuron"), pairs()
    positions = torch.tensor([[0, 1], [3, 0], [2, 6], [0, 4]])
    for architecture in samples(supernet.space, 3):
        full = inside(supernet, batch, architecture)
        chosen = inside(supernet, batch._replace(positions=positions), architecture)
        torch.testing.assert_close(chosen, full[positions[:, 0], positions[:, 1]], atol=1e-5, rtol=0)


def test_a_word_never_sees_the_words_after_it() -> None:
    supernet, batch = supernet_of("neuron"), pairs()
    changed = batch.decoder_ids.clone()  # type: ignore[union-attr]
    changed[:, 4:] = 7
    for architecture in samples(supernet.space, 4):
        before = inside(supernet, batch, architecture)
        after = inside(supernet, batch._replace(decoder_ids=changed), architecture)
        torch.testing.assert_close(before[:, :4], after[:, :4], atol=1e-5, rtol=0)
        assert (before[:, 4:] - after[:, 4:]).abs().max() > 1e-3


def test_padding_never_changes_an_answer() -> None:
    supernet, batch = supernet_of("neuron"), pairs()
    for architecture in samples(supernet.space, 4):
        together = inside(supernet, batch, architecture)
        for row in range(1, 5):
            length = int(batch.attention_mask[row].sum())
            alone = Batch(
                batch.ids[row : row + 1, :length],
                batch.attention_mask[row : row + 1, :length],
                None,
                batch.decoder_ids[row : row + 1],  # type: ignore[index]
            )
            torch.testing.assert_close(inside(supernet, alone, architecture)[0], together[row], atol=1e-5, rtol=0)


# -- word by word ------------------------------------------------------------------------------------------------------


def test_translating_with_a_cache_equals_the_supernet_without_one_token_for_token(supernet: Supernet) -> None:
    ids, mask = source()
    for architecture in samples(supernet.space, 4):
        subnet = translating(supernet.materialize(architecture))
        cached = greedy(subnet, ids, mask, MARKS, LONGEST - 1)
        assert cached == greedy_inside(supernet, architecture, ids, mask, MARKS, LONGEST - 1)
        assert len({tuple(row) for row in cached}) > 1
        assert not {word for row in cached for word in row} & {*MARKS.never, MARKS.end}


def test_a_beam_of_one_is_greedy() -> None:
    supernet = supernet_of("neuron")
    ids, mask = source(rows=6)
    for architecture in samples(supernet.space, 4):
        subnet = translating(supernet.materialize(architecture))
        assert beam_search(subnet, ids, mask, MARKS, LONGEST - 1, beam=1) == greedy(
            subnet, ids, mask, MARKS, LONGEST - 1
        )


def sharp(supernet: Supernet) -> Supernet:
    """With an end that is likely enough to be met."""
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.mul_(1.3)
    return supernet


def log_probability(
    supernet: Supernet, architecture: Architecture, ids: Tensor, mask: Tensor, words: list[int]
) -> float:
    """Of a whole translation with its end, without a cache."""
    decoder = torch.tensor([[MARKS.begin, *words]])
    logits = inside(supernet, Batch(ids, mask, None, decoder), architecture)[0]
    logits[:, list(MARKS.never)] = -torch.inf
    chosen = torch.log_softmax(logits, -1)[torch.arange(len(words) + 1), torch.tensor([*words, MARKS.end])]
    return float(chosen.sum())


def test_a_wide_beam_finds_the_likeliest_translation_of_all() -> None:
    """All translations of at most two words, counted out; the length is not normalised away."""
    supernet = sharp(supernet_of("plain", seed=4))
    architecture = supernet.space.largest()
    words = [word for word in range(VOCABULARY) if word not in MARKS.never and word != MARKS.end]
    for seed in range(3):
        ids, mask = source(rows=1, length=4, seed=seed)
        subnet = translating(supernet.materialize(architecture))
        found = beam_search(subnet, ids, mask, MARKS, 2, beam=len(words), length_penalty=0.0)[0]
        every: list[list[int]] = [[], *([word] for word in words)]
        best = max(every, key=lambda one: log_probability(supernet, architecture, ids, mask, one))
        mine = log_probability(supernet, architecture, ids, mask, found)
        if len(found) < 2:  # a translation cut off at the limit has no end to count
            assert mine == pytest.approx(log_probability(supernet, architecture, ids, mask, best), abs=1e-4)


def test_rows_do_not_disturb_each_other_in_a_beam() -> None:
    supernet = sharp(supernet_of("neuron"))
    ids, mask = source(rows=6)
    for architecture in samples(supernet.space, 3):
        subnet = translating(supernet.materialize(architecture))
        together = beam_search(subnet, ids, mask, MARKS, LONGEST - 1, beam=3)
        for row in range(6):
            alone = beam_search(subnet, ids[row : row + 1], mask[row : row + 1], MARKS, LONGEST - 1, beam=3)
            assert alone[0] == together[row], (architecture.id, row)


def test_an_encoder_does_not_translate() -> None:
    import tiny  # noqa: PLC0415

    with pytest.raises(UsageError, match="does not translate"):
        translating(tiny.supernet(tiny.resolved()).materialize(tiny.resolved().smallest()))


# -- its spaces --------------------------------------------------------------------------------------------------------


def test_hats_space_is_as_large_as_hat_says() -> None:
    assert TRANSLATION.SPACES["hat-wmt"].size() == pytest.approx(4.2e14, rel=0.01)


def changed(name: str, axis: Axis | None = None, **fixed: int) -> dict[str, Any]:
    axes = tuple(axis if axis is not None and one.name == name else one for one in AXES)
    return {"axes": axes, "fixed": DECLARED.fixed | fixed}


MALFORMED = {
    "heads that do not divide": (
        changed("cross_heads", Axis("cross_heads", (3,), per="decoder_depth")),
        "'cross_heads'",
    ),
    "an embedding above the width": (changed("", None, width=12), "'encoder_embedding'"),
    "a reach beyond the encoder": (
        changed("cross_layers", Axis("cross_layers", (1, 3), per="decoder_depth")),
        "cross_layers",
    ),
    "the wrong depth": (changed("encoder_ffn", Axis("encoder_ffn", (8,), per="decoder_depth")), "'encoder_ffn'"),
    "an axis that is missing": ({"axes": AXES[:-1]}, "'cross_layers'"),
    "an axis nobody reads": ({"axes": (*AXES, Axis("stride", (1,)))}, "'stride'"),
    "a size nobody reads": (changed("", None, heigth=3), "'heigth'"),
    "no attention": ({"fixed": {"width": 16}}, "'attention'"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_space_that_is_none_is_refused_by_what_is_wrong(case: str) -> None:
    changes, named = MALFORMED[case]
    with pytest.raises(UsageError) as refusal:
        TRANSLATION.check_space(msgspec.structs.replace(DECLARED, **changes))
    assert named in str(refusal.value)


def test_translation_has_no_labels() -> None:
    with pytest.raises(UsageError, match="labels"):
        TRANSLATION.resolve(DECLARED, vocabulary_size=VOCABULARY, labels=3, maximum_length=LONGEST)


def test_features_tell_architectures_apart_by_what_they_cost() -> None:
    space, workload = resolved(), Workload(batch=1, sequence_length=10)
    extremes = to_arrays(space, [space.smallest(), space.largest()])
    features = TRANSLATION.features(space, extremes, workload)
    assert all(most >= least for least, most in features.values())
    most = {name: values[1] for name, values in features.items()}
    longer = {
        name: values[1]
        for name, values in TRANSLATION.features(space, extremes, Workload(batch=1, sequence_length=20)).items()
    }
    assert longer["decoder_layer_steps"] == 2 * most["decoder_layer_steps"]
    assert longer["decoder_attention"] == 4 * most["decoder_attention"]
