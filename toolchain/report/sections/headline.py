"""The answer first: which subnet won, whether it keeps its budgets, and what it is worth beside the others."""

from __future__ import annotations

from collections.abc import Iterator

from toolchain.records import Budget, BudgetOutcome, Evaluation, Manifest, Quality, SearchResult
from toolchain.report.blocks import Block, Fact, Facts, Paragraph, Section, Table, Tone
from toolchain.report.evidence import keeps, latency_source, warnings
from toolchain.report.story import Story
from toolchain.report.units import (
    amount,
    architecture_words,
    cost_words,
    count,
    figure,
    measured_ms,
    metric_name,
    percent,
    quality_words,
    significant,
    unit,
    workload_words,
)

_METRICS = ("latency_s", "size_bytes", "parameters")


def headline(story: Story) -> Section:
    """The winner in words, its figures, and a table of it beside the largest, the smallest and the trivial answer."""
    blocks: list[Block] = [Paragraph(sentence) for sentence in _verdict(story)]
    blocks += [Paragraph(sentence, "good" if met else "bad") for sentence, met in _budget_words(story)]
    facts = _facts(story)
    if facts:
        blocks.append(Facts(facts))
    blocks += [Paragraph(sentence) for sentence in _comparison_words(story)]
    blocks.append(_comparison(story))
    number = len(warnings(story))
    if number:
        blocks.append(
            Paragraph(f"{number} warning{'s' if number > 1 else ''} to read first: see Provenance.", tone="warning")
        )
    return Section("winner", "The winner", blocks)


# -- in words --------------------------------------------------------------------------------------------------------


def _verdict(story: Story) -> Iterator[str]:
    manifest, search = story.manifest, story.search
    if manifest is not None:
        latency, subnet = manifest.latency, manifest.artifact.architecture
        yield (
            f"Subnet {subnet.id} runs in {measured_ms(latency.median_s, latency.half_width_s)} "
            f"(p50, n = {count(latency.n)}), {latency_source(manifest)} on {manifest.target} with "
            f"{manifest.environment.engine} {manifest.environment.engine_version} {manifest.artifact.precision}, "
            f"{manifest.threads} thread{'s' if manifest.threads != 1 else ''}, {workload_words(manifest.workload)}. "
            f"It reaches {quality_words(manifest.quality)}."
        )
        if manifest.predicted_s is not None:
            yield f"Before it was built, {_prediction_words(manifest, manifest.predicted_s)}."
        yield f"Its shape: {architecture_words(subnet)}."
    elif search is not None:
        winner = search.winner
        where = f" on {search.target}" if search.target else ""
        costs = "; ".join(
            cost_words(name, cost) if name == "parameters" else f"{unit(name).name} {cost_words(name, cost)}"
            for name, cost in winner.costs.items()
        )
        yield (
            f"Subnet {winner.architecture.id} won the search{where}: {quality_words(winner.quality)}; {costs}. "
            "It has not been exported yet, so nothing here was measured on the shipped file."
        )
        yield f"Its shape: {architecture_words(winner.architecture)}."
    else:
        yield "There is no winner yet: the supernet is trained, the search has not been run."


def _prediction_words(manifest: Manifest, predicted_s: float) -> str:
    words = f"{amount('latency_s', predicted_s)} was predicted"
    median = manifest.latency.median_s
    if median <= 0:
        return words
    error = predicted_s / median - 1
    return f"{words}, {percent(abs(error))} {'more' if error > 0 else 'less'} than {latency_source(manifest)}"


def _budget_words(story: Story) -> Iterator[tuple[str, bool]]:
    if story.manifest is not None:
        for outcome in story.manifest.budgets:
            yield _outcome_words(outcome), outcome.met
        if not story.manifest.budgets:
            yield "No budget was set.", True
    elif story.search is not None:
        for budget in story.search.budgets:
            kept = keeps(story.search.winner, budget)
            if kept is None:
                yield f"Budget of {_limit(budget)}: not known, the search has no such cost of the winner.", False
                continue
            cost = story.search.winner.costs[budget.metric]
            word = "met" if kept else "missed"
            yield f"Budget of {_limit(budget)}: {word}, with {cost_words(budget.metric, cost)}.", kept


def _outcome_words(outcome: BudgetOutcome) -> str:
    budget = outcome.budget
    took = f"{amount(budget.metric, outcome.value)} {outcome.source}"
    if budget.limit <= 0:
        return f"Budget of {_limit(budget)}: {'met' if outcome.met else 'missed'}, with {took}."
    left = 1 - outcome.value / budget.limit
    words = f"met with {percent(left)} to spare" if outcome.met else f"missed by {percent(-left)}"
    return f"Budget of {_limit(budget)}: {words}, {took}."


def _limit(budget: Budget) -> str:
    where = f" on {budget.target}" if budget.target else ""
    name = "" if budget.metric == "parameters" else f"{unit(budget.metric).name} "
    return f"{name}at most {amount(budget.metric, budget.limit)}{where}"


def _comparison_words(story: Story) -> Iterator[str]:
    """The winner beside its siblings on the same items, that is as the search saw them, and beside no model at all."""
    if story.search is not None:
        yield from _sibling_words(story.search)
    manifest = story.manifest
    if manifest is not None and manifest.trivial_quality is not None:
        gain = 100 * (manifest.quality.value - manifest.trivial_quality)
        yield (
            f"Always giving the commonest answer would have {metric_name(manifest.quality)} "
            f"{percent(manifest.trivial_quality)} on the {manifest.quality.split} items: the shipped file is "
            f"{significant(abs(gain))} points {'better' if gain > 0 else 'worse' if gain < 0 else 'apart'}."
        )


def _sibling_words(search: SearchResult) -> Iterator[str]:
    items = f"On the same {count(search.winner.quality.n)} {search.winner.quality.split} items"
    rivals = ", ".join(
        f"the {name} subnet {percent(rival.quality.value)}"
        for name, rival in (("largest", search.largest), ("smallest", search.smallest))
        if (rival.quality.n, rival.quality.split) == (search.winner.quality.n, search.winner.quality.split)
    )
    if rivals:
        yield (
            f"{items}, inside the supernet, the winner has {metric_name(search.winner.quality)} "
            f"{percent(search.winner.quality.value)}, {rivals}."
        )


# -- in figures ------------------------------------------------------------------------------------------------------


def _facts(story: Story) -> list[Fact]:
    if story.manifest is not None:
        return _facts_of_bundle(story.manifest)
    return _facts_of_search(story.search) if story.search is not None else []


def _facts_of_bundle(manifest: Manifest) -> list[Fact]:
    latency, source = manifest.latency, latency_source(manifest)
    facts = [
        Fact(
            "Latency (p50)",
            measured_ms(latency.median_s, latency.half_width_s),
            f"{source} on {manifest.target}, n = {count(latency.n)}",
        )
    ]
    if manifest.predicted_s is not None:
        facts.append(Fact("Latency before", amount("latency_s", manifest.predicted_s), "predicted"))
    missed = sum(not outcome.met for outcome in manifest.budgets)
    if manifest.budgets:
        word = "missed" if missed else "met"
        facts.append(Fact("Budgets", word, f"{missed or 'none'} missed of {len(manifest.budgets)}", _tone(not missed)))
    facts += [
        _quality_fact(manifest.quality),
        Fact("Size", amount("size_bytes", manifest.artifact.size_bytes), "counted"),
        Fact("Parameters", count(manifest.artifact.parameters), "counted"),
    ]
    return facts


def _facts_of_search(search: SearchResult) -> list[Fact]:
    winner = search.winner
    facts = [
        Fact(unit(name).name.capitalize(), figure(name, cost.value), cost.source) for name, cost in winner.costs.items()
    ]
    if search.budgets:
        met = all(keeps(winner, budget) for budget in search.budgets)
        facts.append(Fact("Budgets", "met" if met else "missed", "in the search", _tone(met)))
    return [*facts, _quality_fact(winner.quality)]


def _quality_fact(quality: Quality) -> Fact:
    return Fact(
        metric_name(quality).capitalize(), percent(quality.value), f"measured, {count(quality.n)} {quality.split} items"
    )


def _tone(good: bool) -> Tone:
    return "good" if good else "bad"


def _comparison(story: Story) -> Table:
    rows: list[tuple[str, ...]] = []
    manifest, search = story.manifest, story.search
    if manifest is not None:
        latency = f"{measured_ms(manifest.latency.median_s, manifest.latency.half_width_s)} {latency_source(manifest)}"
        size = f"{amount('size_bytes', manifest.artifact.size_bytes)} counted"
        counted = f"{count(manifest.artifact.parameters)} counted"
        rows.append(("Shipped file", *_with_quality(manifest.quality, latency, size, counted)))
    if search is not None:
        for name, seen in (("Winner", search.winner), ("Largest", search.largest), ("Smallest", search.smallest)):
            rows.append((f"{name}, in the search", *_with_quality(seen.quality, *_cost_cells(seen))))
    else:
        for key, quality in story.checkpoint.metrics.items():
            rows.append((f"{key.capitalize()}, after training", *_with_quality(quality, "–", "–", "–")))
    baseline = _trivial(story)
    if baseline is not None:
        rows.append(("Trivial baseline", percent(baseline[0]), "–", "–", "–", baseline[1]))
    return Table(
        "The winner beside the rest of its supernet",
        ("Model", "Quality", "Latency (p50)", "Size", "Parameters", "Quality of"),
        rows,
        numbers=frozenset({1, 2, 3, 4}),
    )


def _trivial(story: Story) -> tuple[float, str] | None:
    """What the best constant answer would score, and on what."""
    if story.manifest is not None and story.manifest.trivial_quality is not None:
        return story.manifest.trivial_quality, f"always the commonest answer, {story.manifest.quality.split} items"
    share = story.checkpoint.data.majority_share
    return None if share is None else (share, "always the commonest label")


def _with_quality(quality: Quality, *costs: str) -> tuple[str, ...]:
    """The cells of one model: its quality, what it costs, and what the quality is of."""
    return percent(quality.value), *costs, f"{metric_name(quality)}, {count(quality.n)} {quality.split} items"


def _cost_cells(seen: Evaluation) -> tuple[str, ...]:
    cells = []
    for metric in _METRICS:
        cost = seen.costs.get(metric)
        cells.append("–" if cost is None else f"{figure(metric, cost.value)} {cost.source}")
    return tuple(cells)
