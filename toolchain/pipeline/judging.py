"""What architectures are worth: asked of the supernet once, remembered, and given up early where it is hopeless.

    with open_executor(workers, scheduler) as executor, Judge(run, executor=executor) as judge:
        for judged in judge.judge(architectures, rivals): ...

Verdicts depend on the architectures, their rivals and the run alone: not on what was known before, on how many workers
there are, or on which of them is done first. So a search that was killed and is run again judges as if it had not been;
it asks again only what was being answered when it was killed. One question is one architecture's whole race: a file
that ships is built once for it, and one record of about 2 kB is written and synced.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from types import TracebackType
from typing import NamedTuple, Self

import msgspec

from toolchain import text
from toolchain.journal import Journal
from toolchain.pipeline.answering import Answered, HeldOut, Question, ask
from toolchain.pipeline.racing import Counts, Race, spread
from toolchain.pipeline.runs import Run
from toolchain.pipeline.workers import told
from toolchain.records import Quality
from toolchain.space import Architecture

ANSWERS_FILE = "answers.jsonl"


class Judged(NamedTuple):
    """What an architecture is worth.

    Attributes:
        quality: on the `n` validation items that it has seen. Where it was stopped, value and loss are an estimate:
            those of its rival on all items, and the difference of the two on the items that both have seen.
        stopped: it was given up before it had seen all items.
    """

    quality: Quality
    stopped: bool


class Judge:
    """Judges a run's architectures on its validation items. To be used in a `with` block: answers are kept on disk.

    Attributes:
        repairs: what the journal of answers had to mend (Journal.repairs).
        items: how many targets an architecture that is not stopped answers.
        asked: how many this judge has put to architectures in all; what was remembered from earlier is not among them.
    """

    def __init__(self, run: Run, *, executor: Executor | None = None, racing: bool = True) -> None:
        """`executor` asks in other processes; without one it is done here. `racing` lets hopeless ones be given up."""
        self._held_out = HeldOut(run)
        self._executor = executor
        self._journal = Journal(run.search_folder / ANSWERS_FILE, Answered)
        self._known: dict[str, dict[int, text.Answers]] = {}
        self._counted: dict[str, dict[int, Counts]] = {}
        self._qualities: dict[str, Quality] = {}
        self._order = spread(len(self._held_out.batches))
        # Pearson's correlation is no mean over items: a part of them says little of the whole.
        self._races = racing and self._held_out.task != "regress"
        self.repairs: list[str] = []
        self.items = sum(len(batch.targets) for batch in self._held_out.batches)
        self.asked = 0

    def __enter__(self) -> Self:
        self._journal.__enter__()
        self.repairs = self._journal.repairs
        key = (self._held_out.checkpoint_sha256, self._held_out.items_sha256)
        try:
            for one in self._journal.records:
                if (one.checkpoint_sha256, one.items_sha256) == key:
                    self._learn(one)
        except BaseException:
            self._journal.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.__exit__(kind, value, trace)

    def judge(
        self, architectures: Sequence[Architecture], rivals: Sequence[Sequence[Architecture]] | None = None
    ) -> list[Judged]:
        """What each architecture is worth.

        `rivals[i]`, judged before on all items, cost no more than architecture i in every respect: where the best of
        them is surely better, i is hopeless, and given up (racing.py has the rule). Only the best is raced against:
        with more of them the chance to be given up wrongly would grow. When this returns, nothing is left at work.

        Raises:
            MostoolError: a worker died, or was lost; what was answered until then is kept.
        """
        if rivals is None:
            rivals = [()] * len(architectures)
        self._complete([rival for several in rivals for rival in several])
        racers = [
            (one, self._best(against) if self._races else None)
            for one, against in zip(architectures, rivals, strict=True)
        ]
        judged: dict[int, Judged] = {}
        while len(judged) < len(racers):  # an architecture that is named twice waits until its first race is over
            started: dict[str, int] = {}
            for number, (architecture, _) in enumerate(racers):
                if number not in judged:
                    started.setdefault(architecture.id, number)
            judged |= self._race({number: racers[number] for number in started.values()})
        return [judged[number] for number in range(len(racers))]

    def _complete(self, rivals: Sequence[Architecture]) -> None:
        """Ask again what rivals were known to answer: a damaged journal, or other items, may have lost it."""
        lacking = {one.id: one for one in rivals if len(self._known.get(one.id, {})) < len(self._order)}
        self._race({number: (one, None) for number, one in enumerate(lacking.values())})

    # -- a race -------------------------------------------------------------------------------------------------

    def _race(self, racers: dict[int, tuple[Architecture, Architecture | None]]) -> dict[int, Judged]:
        judged: dict[int, Judged] = {}
        waiting, at_work = deque(racers), dict[Future[Answered], int]()
        try:
            while waiting or at_work:
                while waiting:
                    number = waiting.popleft()
                    verdict = self._verdict(*racers[number])
                    if isinstance(verdict, Judged):
                        judged[number] = verdict
                        continue
                    if self._executor is None:
                        self._keep(self._held_out.ask(verdict))
                        waiting.appendleft(number)
                    else:
                        with told():
                            at_work[self._executor.submit(ask, verdict)] = number
                for future in wait(at_work, return_when=FIRST_COMPLETED).done:
                    with told():
                        self._keep(future.result())
                    waiting.append(at_work.pop(future))
        finally:
            for future in at_work:
                future.cancel()
        return judged

    def _verdict(self, architecture: Architecture, rival: Architecture | None) -> Judged | Question:
        """The judgement, or what must be asked before there is one."""
        known, race = self._known.get(architecture.id, {}), None
        if rival is not None:
            race = Race(self._order, self._right(rival), self._right(architecture))
            if (seen := race.lost_after()) is not None:
                return Judged(self._estimate(architecture, rival, self._order[:seen]), stopped=True)
        if missing := tuple(number for number in self._order if number not in known):
            return self._held_out.question(architecture, missing, race)
        return Judged(self._quality(architecture), stopped=False)

    def _estimate(self, architecture: Architecture, rival: Architecture, batches: Sequence[int]) -> Quality:
        """The rival's quality on all items, and how far the other is from it on these."""
        own, other = self._known[architecture.id], self._known[rival.id]
        own_right, other_right = self._right(architecture), self._right(rival)
        items = sum(len(own[number].found) for number in batches)
        lead = sum(int((own_right[number] - other_right[number]).sum()) for number in batches)
        loss = sum(own[number].loss - other[number].loss for number in batches)
        best = self._quality(rival)
        return msgspec.structs.replace(
            best, value=max(0.0, best.value + lead / items), loss=max(0.0, best.loss + loss / items), n=items, also={}
        )

    # -- what is known ------------------------------------------------------------------------------------------

    def _best(self, rivals: Sequence[Architecture]) -> Architecture | None:
        for rival in rivals:
            if len(self._known.get(rival.id, {})) < len(self._order):
                raise ValueError(f"{rival.id} has not been judged on all items: it can be nobody's rival")

        def rank(rival: Architecture) -> tuple[float, float, str]:
            quality = self._quality(rival)
            return -quality.value, quality.loss, rival.id

        return min(rivals, key=rank, default=None)

    def _quality(self, architecture: Architecture) -> Quality:
        """Of one that has answered everything."""
        if architecture.id not in self._qualities:
            known = self._known[architecture.id]
            self._qualities[architecture.id] = self._held_out.quality([known[number] for number in range(len(known))])
        return self._qualities[architecture.id]

    def _right(self, architecture: Architecture) -> dict[int, Counts]:
        """Of each batch it has answered, how many targets of each text are right."""
        known = self._known.get(architecture.id, {})
        counted = self._counted.setdefault(architecture.id, {})
        counted |= {n: self._held_out.right(n, answers) for n, answers in known.items() if n not in counted}
        return counted

    def _keep(self, answered: Answered) -> None:
        self._journal.append(answered)
        self._learn(answered)
        self.asked += sum(len(self._held_out.batches[number].targets) for number in answered.batches)

    def _learn(self, answered: Answered) -> None:
        self._known.setdefault(answered.architecture.id, {}).update(self._held_out.answers(answered))
