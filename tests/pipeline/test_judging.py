"""Quality in the search: the figures of a plain evaluation, asked once, the same from whatever workers, and raced."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from made_project import copied, one_thread
from made_runs import Runs, drawn, runs

from toolchain.errors import IntegrityError
from toolchain.journal import read_journal
from toolchain.pipeline import answering
from toolchain.pipeline.answering import Answered, HeldOut, ask
from toolchain.pipeline.judging import ANSWERS_FILE, Judge
from toolchain.pipeline.racing import spread
from toolchain.pipeline.runs import Run
from toolchain.space import Architecture

__all__ = ["one_thread", "runs"]

TASKS = ("classify", "mlm", "translate", "regress")


@pytest.fixture
def own(runs: Runs, tmp_path: Path) -> Run:
    """A classifier of one's own."""
    return Run(copied(runs.folder("classify"), tmp_path / "run"))


def journalled(run: Run) -> list[Answered]:
    return read_journal(run.search_folder / ANSWERS_FILE, Answered)


def plain(run: Run, architecture: Architecture) -> Any:
    return run.quality_on(run.supernet_predict(architecture), run.batches("validation", whole=False), "validation")


def by_quality(run: Run, count: int) -> list[Architecture]:
    """Architectures of middling, better and lesser quality: the middling one first. Nothing is remembered of it."""
    some = drawn(run, count)
    with Judge(run) as judge:
        found = sorted(zip((one.quality.value for one in judge.judge(some)), range(count), strict=True))
    (run.search_folder / ANSWERS_FILE).unlink()
    middle = found[count // 2][1]
    return [some[middle], *some[:middle], *some[middle + 1 :]]


@pytest.mark.parametrize("task", TASKS)
def test_on_all_items_it_is_the_plain_evaluation(runs: Runs, task: str, tmp_path: Path) -> None:
    run = Run(copied(runs.folder(task), tmp_path / "run"))
    three = drawn(run, 3)
    for _ in ("asked", "remembered"):
        with Judge(run) as judge:
            found = judge.judge(three)
        assert [(one.quality, one.stopped) for one in found] == [(plain(run, one), False) for one in three]
    assert judge.asked == 0
    assert len(journalled(run)) == 3


@pytest.mark.parametrize("task", ["classify", "mlm", "translate"])
def test_in_a_race_that_is_not_lost_it_is_the_same(runs: Runs, task: str, tmp_path: Path) -> None:
    run = Run(copied(runs.folder(task), tmp_path / "run"))
    largest, smallest, other = drawn(run, 3)
    with Judge(run) as judge:
        judge.judge([smallest])
        raced = judge.judge([largest, other], [[smallest], [smallest]])
    assert [one.quality for one in raced if not one.stopped] == [plain(run, largest), plain(run, other)]


def test_what_was_given_up_once_goes_on_where_it_was(own: Run) -> None:
    largest, smallest = drawn(own, 2)
    with Judge(own) as judge:
        judge.judge([largest])
        (given_up,) = judge.judge([smallest], [[largest]])
        (alone,) = judge.judge([smallest])
        assert given_up.stopped
        assert judge.judge([smallest], [[largest]]) == [given_up]
        assert judge.asked == 2 * judge.items
    assert alone.quality == plain(own, smallest)
    assert [one.batches for one in journalled(own)][1:] == [spread(8)[:1], spread(8)[1:]]


def test_a_hopeless_one_is_given_up_and_its_worth_estimated(own: Run) -> None:
    largest, smallest = drawn(own, 2)
    with Judge(own) as judge:
        (best,) = judge.judge([largest])
        before = judge.asked
        (given_up,) = judge.judge([smallest], [[largest]])
        seen = judge.asked - before
    assert given_up.stopped
    first = spread(8)[0]
    assert given_up.quality.n == seen == len(own.batches("validation", whole=False)[first].targets)
    assert given_up.quality.value < best.quality.value
    held_out = HeldOut(own)
    right = [
        held_out.right(first, held_out.answers(held_out.ask(held_out.question(one, (first,))))[first]).sum()
        for one in (largest, smallest)
    ]
    assert given_up.quality.value == pytest.approx(best.quality.value + (right[1] - right[0]) / seen)
    assert given_up.quality.also == {}


def test_without_racing_and_of_numbers_all_items_are_seen(runs: Runs, own: Run, tmp_path: Path) -> None:
    numbers = Run(copied(runs.folder("regress"), tmp_path / "numbers"))
    for run, racing in ((own, False), (numbers, True)):
        largest, smallest = drawn(run, 2)
        with Judge(run, racing=racing) as judge:
            judge.judge([largest])
            (judged,) = judge.judge([smallest], [[largest]])
        assert not judged.stopped
        assert len(journalled(run)) == 2, "all at once"


def test_only_the_best_rival_counts_and_one_that_is_not_known_is_asked(own: Run) -> None:
    largest, smallest, *others = drawn(own, 5)
    with Judge(own) as judge:
        judge.judge([largest, *others[:2]])
        alone = judge.judge([smallest], [[largest]])
        assert judge.judge([smallest], [[*others[:2], largest]]) == alone
        asked = judge.asked  # one whose answers were lost is asked again, and counts
        again = judge.judge([smallest], [[others[2]]])
        assert judge.asked >= asked + judge.items
        assert again == judge.judge([smallest], [[others[2]]])


def test_an_architecture_named_twice_is_asked_once(own: Run) -> None:
    largest, smallest = drawn(own, 2)
    with Judge(own) as judge:
        judge.judge([largest])
        twice = judge.judge([smallest, smallest, largest], [[largest], [], []])
        assert judge.asked == 2 * judge.items
    assert [one.stopped for one in twice] == [True, False, False]


def test_what_was_known_before_changes_no_verdict(own: Run) -> None:
    rival, *others = by_quality(own, 9)
    rivals = [[rival]] * len(others)
    with Judge(own) as judge:
        judge.judge([rival])
        expected = judge.judge(others, rivals)
    assert {one.stopped for one in expected} == {True, False}
    with Judge(own, racing=False) as judge:
        judge.judge(others)  # now all is known of all
    with Judge(own) as judge:
        assert judge.judge(others, rivals) == expected
        assert judge.judge(others[::-1], rivals) == expected[::-1]
        assert judge.asked == 0


class Ends(Exception):  # noqa: N818 - the machine is switched off
    pass


def test_killed_anywhere_nothing_answered_is_lost_or_asked_again(own: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    largest, *others = drawn(own, 4)
    plan = ([largest], [[]]), (others, [[largest]] * 3)
    with Judge(own) as judge:
        expected = [judge.judge(*step) for step in plan]
        whole, asked = sorted(map(repr, journalled(own))), judge.asked
    (own.search_folder / ANSWERS_FILE).unlink()
    real, left, total = HeldOut.ask, 0, 0

    def asking(self: HeldOut, question: Any) -> Answered:
        nonlocal left
        if not left:
            raise Ends
        left -= 1
        return real(self, question)

    monkeypatch.setattr(HeldOut, "ask", asking)
    for _ in range(100):
        left = 1
        with Judge(own) as judge:
            try:
                found = [judge.judge(*step) for step in plan]
            except Ends:
                continue
            finally:
                total += judge.asked
        break
    assert found == expected
    assert sorted(map(repr, journalled(own))) == whole
    assert total == asked


def test_answers_of_another_checkpoint_or_other_items_are_not_these(own: Run) -> None:
    (largest,) = drawn(own, 1)
    with Judge(own) as judge:
        judge.judge([largest])
    (record,) = journalled(own)
    for changed in ({"checkpoint_sha256": "0" * 64}, {"items_sha256": "0" * 64}):
        path = own.search_folder / ANSWERS_FILE
        path.unlink()
        with Judge(own) as judge:
            judge._journal.append(msgspec.structs.replace(record, **changed))
        with Judge(own) as judge:
            judge.judge([largest])
            assert judge.asked == judge.items
    path.unlink()
    with Judge(own) as judge:
        judge._journal.append(msgspec.structs.replace(record, found=record.found[:-1]))
    with pytest.raises(IntegrityError, match=largest.id), Judge(own):
        pass


def test_a_torn_line_is_told_and_asked_again(own: Run) -> None:
    three = drawn(own, 3)
    with Judge(own) as judge:
        expected = judge.judge(three)
    path = own.search_folder / ANSWERS_FILE
    path.write_bytes(path.read_bytes()[:-20])
    (own.search_folder / "quality.jsonl").write_text("of an older mostool\n")
    with Judge(own) as judge:
        assert "cut short" in judge.repairs[0]
        assert judge.judge(three) == expected
        assert judge.asked == judge.items


def test_a_subnet_with_a_precision_answers_as_it_ships(own: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def shipped(self: Run, architecture: Architecture) -> Any:
        asked.append(architecture.id)
        return self.supernet_predict(drawn(self, 1)[0])

    monkeypatch.setattr(Run, "shipped_predict", shipped)
    plain_one, bits = drawn(own, 1)[0], own.bits_space.sample(np.random.default_rng(0))
    with Judge(own) as judge:
        judged = judge.judge([plain_one, bits])
    assert asked == [bits.id]
    assert judged[0].quality == judged[1].quality


def test_the_callers_threads_are_given_back(own: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def predict(batch: Any) -> Any:
        seen.append(torch.get_num_threads())
        return np.zeros((len(batch.targets), 3), np.float32)

    held_out = HeldOut(own)
    monkeypatch.setattr(held_out, "_predictor", lambda _: predict)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        held_out.ask(held_out.question(drawn(own, 1)[0], (0,)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1]


# -- elsewhere ---------------------------------------------------------------------------------------------------------


class Backwards(Executor):
    """Does what it is given, but the last first."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Any]] = []

    def submit(self, call: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: call(*arguments, **named)))
        return future

    def work(self) -> None:
        future, call = self.waiting.pop()
        future.set_result(call())


def test_the_order_of_completion_changes_nothing(own: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from toolchain.pipeline import judging  # noqa: PLC0415

    rival, *others = by_quality(own, 9)
    rivals = [[rival]] * len(others)
    with Judge(own) as judge:
        expected = [*judge.judge([rival]), *judge.judge(others, rivals)]
        whole = sorted(map(repr, journalled(own)))
    (own.search_folder / ANSWERS_FILE).unlink()
    executor, real = Backwards(), judging.wait

    def waiting(futures: Any, return_when: str) -> Any:
        while executor.waiting:
            executor.work()
        return real(futures, return_when=return_when)

    monkeypatch.setattr(judging, "wait", waiting)
    with Judge(own, executor=executor) as judge:
        assert [*judge.judge([rival]), *judge.judge(others, rivals)] == expected
    assert sorted(map(repr, journalled(own))) == whole
    assert not executor.waiting


def test_a_worker_without_the_run_or_with_another_says_so(own: Run, tmp_path: Path) -> None:
    answering._opened.cache_clear()
    question = HeldOut(own).question(drawn(own, 1)[0], (0,))
    with pytest.raises(Exception, match="does not find the run"):
        ask(question._replace(folder=str(tmp_path / "nowhere")))
    for changed in ({"checkpoint_sha256": "0" * 64}, {"items_sha256": "0" * 64}):
        with pytest.raises(IntegrityError, match="another run"):
            ask(question._replace(**changed))
    assert ask(question) == HeldOut(own).ask(question)
