from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from safetensors.numpy import save_file

from toolchain.errors import IntegrityError, ParityError
from toolchain.export import Checks, build_checks, check_parity, open_session, tolerance
from toolchain.export.parity import TOLERANCE, load_checks, save_checks

from .made_bundle import export, make_checks, make_subnet


class Session:
    """Answers the checks in order, each expected array changed by `change`."""

    def __init__(self, checks: Checks, change: Any) -> None:
        self._answers = iter([change(one.copy()) for one in checks.expected])

    def run(self, _names: None, _inputs: dict[str, Any]) -> list[Any]:
        return [next(self._answers)]


@pytest.fixture(scope="module", params=[0, 3])
def checks(request: pytest.FixtureRequest) -> Checks:
    return make_checks(make_subnet(request.param))


def test_the_checks_are_of_many_shapes_and_paddings(checks: Checks) -> None:
    shapes = [one["input_ids"].shape for one in checks.inputs]
    assert {rows for rows, _ in shapes} >= {1, 3}
    assert {length for _, length in shapes} == {2, 11}
    masks = [one["attention_mask"] for one in checks.inputs]
    assert any((mask[:, 0] == 0).all() and mask.any() for mask in masks)  # padded on the left
    assert any((np.diff(mask) > 0).any() and (mask[:, 0] == 1).all() for mask in masks)  # with holes
    for one, expected in zip(checks.inputs, checks.expected, strict=True):
        assert one["input_ids"].dtype == one["attention_mask"].dtype == np.int64
        assert expected.shape[0] == one["input_ids"].shape[0]
        assert np.isfinite(expected).all()


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 9])
def test_few_rows_are_enough_to_check_with(rows: int) -> None:
    subnet = make_subnet()
    checks = make_checks(subnet, rows=rows)
    assert all(one["input_ids"].size for one in checks.inputs)
    assert check_parity(Session(checks, lambda logits: logits), checks) == 0


def test_the_largest_difference_counts(checks: Checks) -> None:
    assert check_parity(Session(checks, lambda logits: logits), checks) == 0
    found = check_parity(Session(checks, lambda logits: logits + 0.5 * TOLERANCE), checks)
    assert found == pytest.approx(0.5 * TOLERANCE, rel=0.05)


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("amount", [2 * TOLERANCE, -2 * TOLERANCE, np.nan, np.inf])
def test_one_wrong_number_in_any_check_is_enough(checks: Checks, number: int, amount: float) -> None:
    answers = [one.copy() for one in checks.expected]
    answers[number].flat[-1] += amount
    session = Session(Checks(checks.inputs, answers), lambda logits: logits)
    with pytest.raises(ParityError, match=f"check {number}") as refusal:
        check_parity(session, checks)
    assert refusal.value.hint


def test_nothing_agrees_with_a_module_that_answered_nan(checks: Checks) -> None:
    expected = [one.copy() for one in checks.expected]
    expected[2].flat[0] = np.nan
    session = Session(checks, lambda logits: logits)
    with pytest.raises(ParityError, match="check 2"):
        check_parity(session, Checks(checks.inputs, expected))


@pytest.mark.parametrize("change", [lambda one: one[:0], lambda one: one[..., :1], lambda one: one[None]])
def test_an_answer_of_another_shape_is_refused(checks: Checks, change: Any) -> None:
    with pytest.raises(ParityError, match="shape"):
        check_parity(Session(checks, change), checks)


def test_checks_come_back_from_the_disk(checks: Checks, tmp_path: Path) -> None:
    save_checks(checks, tmp_path / "first")
    save_checks(checks, tmp_path / "again")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "again").read_bytes()
    loaded = load_checks(tmp_path / "first")
    for one, other in zip(checks.inputs, loaded.inputs, strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)
    assert all(np.array_equal(one, other) for one, other in zip(checks.expected, loaded.expected, strict=True))


def test_of_a_large_vocabulary_some_classes_are_kept_and_still_catch_a_fault(tmp_path: Path) -> None:
    wide = Checks([{"input_ids": np.zeros((1, 2), np.int64), "attention_mask": np.ones((1, 2), np.int64)}], [])
    wide.expected.append(np.random.default_rng(0).standard_normal((1, 2, 5000)).astype(np.float32))
    save_checks(wide, tmp_path / "checks")
    loaded = load_checks(tmp_path / "checks")
    assert loaded.expected[0].shape == (1, 2, 256)
    assert check_parity(Session(wide, lambda logits: logits), loaded) == 0
    with pytest.raises(ParityError):
        check_parity(Session(wide, lambda logits: logits[..., ::-1]), loaded)


def test_evidence_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checks"
    for tensors in ({}, {"other": np.zeros(2)}, {f"0.{name}": np.zeros(2) for name in ("input_ids", "logits", "x")}):
        save_file(tensors, path)
        with pytest.raises(IntegrityError, match="no parity checks"):
            load_checks(path)
    for data in (b"", b"no tensors"):
        path.write_bytes(data)
        with pytest.raises(IntegrityError, match="no parity checks"):
            load_checks(path)


@pytest.mark.parametrize(
    "changed",
    [
        {"input_ids": np.full((1, 3), 10**6), "attention_mask": np.ones((1, 3), np.int64)},
        {"input_ids": np.zeros((1, tiny.LONGEST + 1), np.int64), "attention_mask": np.ones((1, 1), np.int64)},
        {"input_ids": np.zeros((1, 3), np.float32), "attention_mask": np.ones((1, 3), np.int64)},
        {"input_ids": np.zeros(3, np.int64), "attention_mask": np.ones(3, np.int64)},
        {"input_ids": np.zeros((1, 3), np.int64), "attention_mask": np.ones((2, 4), np.int64)},
    ],
    ids=["unknown token", "too long", "no whole numbers", "no batch", "masks of another shape"],
)
def test_evidence_the_model_cannot_run_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    """A bundle's checks are data: whatever they hold, the answer is an error people can read."""
    export(make_subnet(), tmp_path / "model.onnx")
    session = open_session(tmp_path / "model.onnx", {})
    with pytest.raises(ParityError) as refusal:
        check_parity(session, Checks([changed], [np.zeros((1, 3), np.float32)]))
    assert "check 0" in str(refusal.value)


def test_checks_need_no_padding_at_all() -> None:
    subnet = make_subnet()
    checks = build_checks(subnet, tiny.batch(rows=5, length=12, padding="none").ids.numpy(), padding=0)
    assert max(one["input_ids"].shape[1] for one in checks.inputs) == 12


@pytest.mark.parametrize(("size", "allowed"), [(0.0, 1e-7), (1e-3, 1e-5), (0.5, 1e-4), (1.0, 1e-4), (30.0, 3e-3)])
def test_what_is_allowed_goes_by_the_size_of_the_answers(size: float, allowed: float) -> None:
    assert tolerance("fp32", Checks([], [np.full((2, 3), size, np.float32)])) == pytest.approx(allowed)


WORDS = np.array([[7, 8, 2], [7, 2, 2]])


def asked(expected: list[np.ndarray[Any, Any]]) -> Checks:
    return Checks([{"input_ids": np.zeros((len(one), 3), np.int64)} for one in expected], expected)


class Saying:
    def __init__(self, *answers: np.ndarray[Any, Any]) -> None:
        self.answers = list(answers)

    def run(self, _outputs: None, _inputs: object) -> list[np.ndarray[Any, Any]]:
        return [self.answers.pop(0)]


def test_words_must_be_the_same_and_a_longer_filling_is_no_difference() -> None:
    assert check_parity(Saying(WORDS), asked([WORDS])) == 0
    assert check_parity(Saying(np.pad(WORDS, ((0, 0), (0, 2)), constant_values=2)), asked([WORDS])) == 0
    assert check_parity(Saying(WORDS[1:, :2]), asked([WORDS[1:]])) == 0
    longer = np.array([[7, 8, 9], [7, 2, 2]])
    for other in (longer, WORDS[:, :2], np.pad(WORDS, ((0, 0), (0, 1)), constant_values=9)):
        with pytest.raises(ParityError, match=r"row [01] is translated as|row 0"):
            check_parity(Saying(other), asked([WORDS]))
    with pytest.raises(ParityError, match="gives shape"):
        check_parity(Saying(WORDS.astype(np.float32)), asked([WORDS]))


def test_of_a_quantised_translator_some_rows_may_differ_but_never_all_of_a_check() -> None:
    checks = asked([WORDS, WORDS, WORDS, WORDS])
    allowed = tolerance("int8", checks)
    other = WORDS.copy()
    other[0, 0] = 9
    assert check_parity(Saying(WORDS, other, WORDS, WORDS), checks, allowed) == 1 / 8
    with pytest.raises(ParityError, match="3 of 8"):
        check_parity(Saying(other, other, other, WORDS), checks, allowed)
    with pytest.raises(ParityError, match="disagree on check 3"):
        check_parity(Saying(WORDS, WORDS, WORDS, other + 1), checks, allowed)
