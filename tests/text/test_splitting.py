from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.errors import UsageError
from toolchain.text import Corpus, Parts, split_corpus
from toolchain.text.corpus import same_text_key

from .conftest import corpus, sentences


def _items(parts: Parts) -> list[tuple[str, int | None]]:
    return [
        (text, label)
        for _, part in parts.named()
        for text, label in zip(part.texts, part.labels or [None] * len(part.texts), strict=True)
    ]


def _share_no_text(parts: Parts) -> bool:
    keys = [{same_text_key(text) for text in part.texts} for _, part in parts.named()]
    return not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])


@settings(deadline=None)
@given(
    texts=st.lists(st.sampled_from(["A b", "a  B", "c", "d", "e", "f", "g", "h i"]), min_size=20, max_size=60),
    seed=st.integers(0, 50),
    data=st.data(),
)
def test_every_item_is_in_one_split_with_its_equals(texts: list[str], seed: int, data: st.DataObject) -> None:
    count = len(texts)
    labels = tuple(data.draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)))
    groups = tuple(data.draw(st.lists(st.integers(0, 12), min_size=count, max_size=count)))
    whole = Corpus(tuple(texts), labels, ("0", "1"), groups, "drawn", {}, (), 0.2, None)
    for by_group in (False, True):
        try:
            parts = split_corpus(whole, seed=seed, by_group=by_group)
        except UsageError as error:
            refusal = error
            assert refusal.hint
            continue
        assert Counter(_items(parts)) == Counter(zip(texts, labels, strict=True))
        assert _share_no_text(parts)
        assert len(parts.test.texts) <= max(1, round(0.2 * count))
        assert len(parts.validation.texts) <= max(1, round(0.2 * count))


def test_groups_stay_together_where_asked() -> None:
    whole = corpus(400, grouped=True)
    group_of = dict(zip(whole.texts, whole.groups or (), strict=True))

    def shared_groups(*, by_group: bool) -> int:
        parts = split_corpus(whole, seed=0, by_group=by_group)
        groups = [{group_of[text] for text in part.texts} for _, part in parts.named()]
        return len((groups[0] & groups[1]) | (groups[0] & groups[2]) | (groups[1] & groups[2]))

    assert shared_groups(by_group=True) == 0
    assert shared_groups(by_group=False) > 20


def test_items_tied_through_others_stay_together() -> None:
    texts = sentences(200)
    texts[10] = texts[5].upper()  # ties the groups of items 5 and 10
    whole = corpus(200, grouped=True)._replace(texts=tuple(texts))
    tied = {*texts[4:8], *texts[8:12]}
    for seed in range(20):
        parts = split_corpus(whole, seed=seed)
        assert sum(bool(tied & set(part.texts)) for _, part in parts.named()) == 1


def test_prose_is_split_without_leakage(prose: Corpus) -> None:
    parts = split_corpus(prose, seed=0)
    group_of = dict(zip(prose.texts, prose.groups or (), strict=True))
    groups = [{group_of[text] for text in part.texts} for _, part in parts.named()]
    assert sum(map(len, groups)) == len(set().union(*groups))
    assert _share_no_text(parts)
    sizes = [len(part.texts) for _, part in parts.named()]
    assert sum(sizes) == len(prose.texts)
    assert sizes[1:] == [round(0.15 * len(prose.texts))] * 2


def test_user_data_holds_out_a_tenth_but_not_too_much() -> None:
    parts = split_corpus(corpus(1000), seed=0)
    assert [len(part.texts) for _, part in parts.named()] == [800, 100, 100]
    parts = split_corpus(corpus(1000)._replace(held_out_limit=30), seed=0)
    assert [len(part.texts) for _, part in parts.named()] == [940, 30, 30]
    assert corpus().held_out_limit == 2000


def test_seed_decides_and_order_does_not() -> None:
    whole = corpus(300, grouped=True)
    order = np.random.default_rng(1).permutation(300)
    shuffled = whole._replace(
        texts=tuple(whole.texts[i] for i in order),
        labels=tuple((whole.labels or ())[i] for i in order),
        groups=tuple((whole.groups or ())[i] for i in order),
    )
    assert split_corpus(whole, seed=3) == split_corpus(shuffled, seed=3)
    assert split_corpus(whole, seed=3) != split_corpus(whole, seed=4)


def test_labels_travel_with_their_texts() -> None:
    whole = corpus(300, labels=3)
    label_of = dict(zip(whole.texts, whole.labels or (), strict=True))
    for text, label in _items(split_corpus(whole, seed=0)):
        assert label == label_of[text]


def test_a_label_that_training_would_not_see() -> None:
    whole = corpus(60)._replace(labels=(2, *(i % 2 for i in range(59))), label_names=("a", "b", "rare"))
    refused = 0
    for seed in range(40):
        try:
            assert 2 in (split_corpus(whole, seed=seed).train.labels or ())
        except UsageError as error:
            refused += 1
            assert "'rare' does not occur" in str(error)  # noqa: PT017
    assert 0 < refused < 40


def test_nothing_but_one_text() -> None:
    whole = corpus(60)._replace(texts=("the same",) * 60)
    with pytest.raises(UsageError, match="nothing is left"):
        split_corpus(whole, seed=0)


def test_held_out_data_are_halved_and_never_trained_on() -> None:
    whole = corpus(300)
    other = whole._replace(
        texts=tuple(text.upper() for text in whole.texts[250:]) + tuple(f"another text {i}" for i in range(50)),
        labels=(0, 1) * 50,
        label_names=("label 0", "label 1"),
        title="held out",
    )
    parts = split_corpus(whole, seed=0, held_out=other)
    assert set(parts.train.texts) == set(whole.texts[:250])
    assert (len(parts.validation.texts), len(parts.test.texts)) == (50, 50)
    assert {*parts.validation.texts, *parts.test.texts} == set(other.texts)
    assert _share_no_text(parts)
    assert parts.notes == ("50 training items that are also held out were left out of training",)


def test_held_out_labels_are_matched_by_name() -> None:
    whole = corpus(100)._replace(label_names=("no", "yes"), labels=(1,) * 50 + (0,) * 50)
    other = corpus(200)._replace(texts=tuple(sentences(300)[100:]), labels=(0,) * 200, label_names=("yes",))
    parts = split_corpus(whole, seed=0, held_out=other)
    assert set(parts.test.labels or ()) == {1}
    with pytest.raises(UsageError, match="'perhaps'"):
        split_corpus(whole, seed=0, held_out=other._replace(label_names=("perhaps",)))


def _paired(count: int = 300, *, numeric: bool = False) -> Corpus:
    whole = corpus(count)._replace(seconds=tuple(f"{text} again" for text in sentences(count)))
    return whole._replace(labels=None, label_names=(), values=tuple(i / 3 for i in range(count))) if numeric else whole


@pytest.mark.parametrize("numeric", [False, True])
def test_pairs_and_values_stay_aligned(numeric: bool) -> None:
    whole = _paired(numeric=numeric)
    place = {text: number for number, text in enumerate(whole.texts)}
    parts = split_corpus(whole, seed=0)
    assert [len(part.texts) for _, part in parts.named()] == [240, 30, 30]
    for _, part in parts.named():
        rows = [place[text] for text in part.texts]
        assert part.seconds == tuple((whole.seconds or ())[row] for row in rows)
        assert (part.values is None, part.labels is None) == (not numeric, numeric)
        if part.values is not None:
            assert part.values == tuple(row / 3 for row in rows)
    order = np.random.default_rng(1).permutation(300)
    shuffled = whole._replace(
        **{
            name: tuple(column[i] for i in order)
            for name in ("texts", "seconds", "labels", "values")
            if (column := getattr(whole, name)) is not None
        }
    )
    assert split_corpus(shuffled, seed=0) == parts


def test_equal_pairs_stay_together_and_equal_halves_need_not() -> None:
    whole = _paired(100)
    twice = whole._replace(
        texts=whole.texts + tuple(text.upper() for text in whole.texts),
        seconds=(whole.seconds or ()) * 2,
        labels=(whole.labels or ()) * 2,
    )
    for seed in range(5):
        parts = split_corpus(twice, seed=seed)
        keys = [
            {(same_text_key(a), b) for a, b in zip(part.texts, part.seconds or (), strict=True)}
            for _, part in parts.named()
        ]
        assert sum(map(len, keys)) == len(set().union(*keys)) == 100
    same_first = whole._replace(texts=("the same",) * 100)
    assert [len(part.texts) for _, part in split_corpus(same_first, seed=0).named()] == [80, 10, 10]


def test_held_out_pairs_are_never_trained_on() -> None:
    whole = _paired(200)
    other = whole._replace(
        texts=whole.texts[:80],
        seconds=tuple(text.upper() for text in (whole.seconds or ())[:40]) + ("another",) * 40,
        labels=(whole.labels or ())[:80],
    )
    parts = split_corpus(whole, seed=0, held_out=other)
    assert set(parts.train.texts) == set(whole.texts[40:])
    assert len(parts.test.seconds or ()) == 40
    for one, two in ((whole, corpus(80)), (corpus(80), whole)):
        with pytest.raises(UsageError, match="pairs of texts") as caught:
            split_corpus(one, seed=0, held_out=two)
        assert caught.value.hint
