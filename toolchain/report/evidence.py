"""Where the figures come from, and what a reader should know before trusting them."""

from __future__ import annotations

from collections.abc import Iterator

from toolchain.records import Budget, Cost, Evaluation, Latency, Manifest, Source, names_of
from toolchain.report.story import Story
from toolchain.report.units import milliseconds, percent, workload_words

# What the words of a measurement's status mean (profiling/statistics.py); one not listed here is shown as it is.
_DOUBTS = {
    "unstable": "the interval was still too wide when the time for measuring was up",
    "not-steady": "warming up never came to rest",
    "contended": "most samples had to wait for a processor",
    "drifted": "the reference model's own time moved while measuring",
}


def latency_source(manifest: Manifest) -> Source:
    """The word that must stand beside the shipped file's latency: measured, unless it was not on a real device."""
    for outcome in manifest.budgets:
        if outcome.budget.metric == "latency_s":
            return outcome.source
    return manifest.environment.source


def keeps(winner: Evaluation, budget: Budget) -> bool | None:
    """Whether a subnet of a search keeps a budget, its cost at its upper bound; None where it has no such cost."""
    cost = cost_under(winner, budget)
    return None if cost is None else cost.upper <= budget.limit


def cost_under(seen: Evaluation, budget: Budget) -> Cost | None:
    """What a subnet costs in what a budget limits; results from before costs named their device have it by metric."""
    return seen.costs.get(budget.key) or (seen.costs.get(budget.metric) if budget.percentile == 50 else None)


def doubts(latency: Latency) -> list[str]:
    """What puts a latency in doubt, in words; empty when nothing does."""
    return [f"{word} ({_DOUBTS[word]})" if word in _DOUBTS else word for word in latency.status]


def warnings(story: Story) -> list[str]:
    """One sentence for each doubt: what the records themselves say, and where two of them do not belong together."""
    return list(dict.fromkeys([*story.remarks, *_from_training(story), *_from_search(story), *_from_manifest(story)]))


def _from_training(story: Story) -> Iterator[str]:
    checkpoint = story.checkpoint
    yield from (f"Data: {note}" for note in checkpoint.data.notes)
    if checkpoint.updates_done < checkpoint.training.updates:
        yield (
            f"Training stopped early: {checkpoint.updates_done:,} of {checkpoint.training.updates:,} updates were done."
        )


def _from_search(story: Story) -> Iterator[str]:
    search, predictor = story.search, story.predictor
    if search is None:
        return
    if not search.winner.feasible:
        yield "No subnet met the budgets; the winner shown is the one that comes nearest."
    elif not all(keeps(search.winner, budget) for budget in search.budgets):
        yield "The search calls its winner feasible, yet by the winner's own costs a budget is missed or unknown."
    if predictor and search.target and predictor.target != search.target:
        yield f"The predictor is of device {predictor.target!r}, the search of {search.target!r}."
    if predictor and search.workload and predictor.workload != search.workload:
        yield (
            f"The predictor is of {workload_words(predictor.workload)}, "
            f"the search of {workload_words(search.workload)}."
        )


def _from_manifest(story: Story) -> Iterator[str]:
    manifest, search, predictor = story.manifest, story.search, story.predictor
    if manifest is None:
        return
    yield from (f"Latency of the shipped file: {doubt}." for doubt in doubts(manifest.latency))
    yield from (f"Data: {note}" for note in manifest.data.notes)
    names = names_of(outcome.budget.key for outcome in manifest.budgets)
    yield from (f"A budget is missed: {names[one.budget.key]}." for one in manifest.budgets if not one.met)
    if manifest.environment.emulator:
        yield f"{manifest.target} is emulated: the shipped file's latency says nothing about a real device."
    yield from _tail(manifest)
    if manifest.data.sha256 != story.checkpoint.data.sha256:
        yield "The shipped file and the checkpoint were made from different data."
    if search and manifest.artifact.architecture.id != search.winner.architecture.id:
        yield (
            f"The shipped file holds subnet {manifest.artifact.architecture.id}, "
            f"the winner of the search is {search.winner.architecture.id}."
        )
    if search and manifest.checkpoint_sha256 != search.checkpoint_sha256:
        yield "The shipped file and the search come from different checkpoints."
    if search and search.target and manifest.target != search.target:
        yield f"The search was for device {search.target!r}, the shipped file was measured on {manifest.target!r}."
    if predictor and predictor.target == manifest.target:
        if predictor.environment is None:
            yield f"The predictor was fitted on a table that was {predictor.source}: nobody here has measured it."
        elif predictor.environment.fingerprint != manifest.environment.fingerprint:
            yield "The predictor was fitted on another machine, system or runtime than the shipped file ran on."
        if predictor.workload != manifest.workload:
            yield (
                f"The shipped file was measured with {workload_words(manifest.workload)}, "
                f"the predictor is of {workload_words(predictor.workload)}."
            )


def _tail(manifest: Manifest) -> Iterator[str]:
    latency = manifest.latency
    if latency.p99_s is not None and latency.median_s > 0 and latency.p99_s > 2 * latency.median_s:
        yield (
            f"The slowest calls take far longer than the typical one: p99 {milliseconds(latency.p99_s)} "
            f"against a median of {milliseconds(latency.median_s)} "
            f"({percent(latency.p99_s / latency.median_s - 1, 0)} more)."
        )
