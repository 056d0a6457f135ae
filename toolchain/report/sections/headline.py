"""The answer first: which subnet won, whether it keeps its budgets, and what it is worth beside the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toolchain.records import (
    Budget,
    BudgetOutcome,
    Evaluation,
    Manifest,
    Quality,
    SearchResult,
    cost_key,
    merit_words,
    metric_words,
    names_of,
    parts_of,
)
from toolchain.report.blocks import Block, Fact, Facts, Paragraph, Points, Section, Table, Tone
from toolchain.report.evidence import cost_under, keeps, latency_source, warnings
from toolchain.report.story import Story
from toolchain.report.units import (
    amount,
    architecture_words,
    capital,
    cost_figure,
    cost_words,
    count,
    figure,
    items,
    measured_ms,
    merit,
    metric_name,
    percent,
    quality_words,
    significant,
    workload_words,
)

_METRICS = ("latency_s", "peak_memory_bytes", "energy_j", "size_bytes", "parameters")
"""In the order of the columns."""
_TOLD = 3
"""So many warnings stand here too."""
_OF_ONE_SESSION = (
    "± covers one session of measuring: half the 95 % interval of its median. Between sessions levels move by some "
    "percent, all models alike, and by more on a busy virtual machine (it is moved, its memory lies elsewhere): the "
    "search's figure for the same subnet may well lie outside (mostool docs how-latency-is-measured)."
)


def headline(story: Story) -> Section:
    """The winner in words, its figures, and a table of it beside the largest, the smallest and the trivial answer."""
    blocks: list[Block] = [Paragraph(sentence) for sentence in _verdict(story)]
    blocks += [Paragraph(sentence, "plain" if met is None else _tone(met)) for sentence, met in _budget_words(story)]
    facts = _facts(story)
    if facts:
        blocks.append(Facts(facts))
    if story.manifest is not None:
        blocks.append(Paragraph(_OF_ONE_SESSION))
    blocks += [Paragraph(sentence) for sentence in _comparison_words(story)]
    blocks.append(_comparison(story))
    return Section("winner", "The winner", [*blocks, *_first_warnings(warnings(story))])


def _first_warnings(found: Sequence[str]) -> Iterator[Block]:
    """The first few in full, and a way to the rest of them."""
    if found:
        yield Paragraph(f"{len(found)} warning{'s' if len(found) > 1 else ''} to read first:", "warning")
        yield Points(found[:_TOLD], "warning")
    if len(found) > _TOLD:
        yield Paragraph(f"and {len(found) - _TOLD} more in Provenance", "warning", leads="provenance")


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
        names = names_of(winner.costs)
        costs = "; ".join(
            cost_words(key, cost) if key == "parameters" else f"{names[key]} {cost_words(key, cost)}"
            for key, cost in winner.costs.items()
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


def _budget_words(story: Story) -> Iterator[tuple[str, bool | None]]:
    """Each budget and whether it is kept: by the shipped file, or as far as the search can tell."""
    manifest, search = story.manifest, story.search
    if manifest is not None:
        for outcome in manifest.budgets:
            yield _outcome_words(outcome), outcome.met
        if search is not None and manifest.artifact.architecture.id == search.winner.architecture.id:
            checked = {outcome.budget.key for outcome in manifest.budgets}
            for words, kept in _limits(search, [budget for budget in search.budgets if budget.key not in checked]):
                yield f"{words} That is what the search says: the shipped file was not held to it.", kept
        if not manifest.budgets and not (search and search.budgets):
            yield "No budget was set.", None
    elif search is not None:
        yield from _limits(search, search.budgets)


def _limits(search: SearchResult, budgets: Sequence[Budget]) -> Iterator[tuple[str, bool]]:
    """Each of these budgets beside what the search says of the winner."""
    for budget in budgets:
        cost = cost_under(search.winner, budget)
        if cost is None:
            yield f"Budget of {_limit(budget)}: not known, the search has no such cost of the winner.", False
            continue
        kept = cost.upper <= budget.limit
        word = "met" if kept else "missed"
        yield f"Budget of {_limit(budget)}: {word}, with {cost_words(budget.key, cost)}.", kept


def _outcome_words(outcome: BudgetOutcome) -> str:
    budget = outcome.budget
    took = f"{amount(budget.key, outcome.value)} {outcome.source}"
    if budget.limit <= 0:
        return f"Budget of {_limit(budget)}: {'met' if outcome.met else 'missed'}, with {took}."
    left = 1 - outcome.value / budget.limit
    words = f"met with {percent(left)} to spare" if outcome.met else f"missed by {percent(-left)}"
    return f"Budget of {_limit(budget)}: {words}, {took}."


def _limit(budget: Budget) -> str:
    where = f" on {budget.target}" if budget.target else ""
    name = "" if budget.metric == "parameters" else f"{names_of([budget.key])[budget.key]} "
    return f"{name}at most {amount(budget.key, budget.limit)}{where}"


def _comparison_words(story: Story) -> Iterator[str]:
    """The winner beside its siblings as the search saw them, the shipped file beside no model at all, and beside the
    search where it is judged by another metric."""
    manifest = story.manifest
    if story.search is not None:
        yield from _sibling_words(story.search, manifest)
    if manifest is not None and manifest.trivial_quality is not None:
        gain = 100 * (manifest.quality.value - manifest.trivial_quality)
        yield (
            f"Always giving the commonest answer would have {metric_name(manifest.quality)} "
            f"{percent(manifest.trivial_quality)} on the {manifest.quality.split} items: the shipped file is "
            f"{significant(abs(gain))} points {'better' if gain > 0 else 'worse' if gain < 0 else 'apart'}."
        )
    if manifest is not None and story.search is not None:
        yield from _two_metrics(manifest.quality, story.search.winner.quality)


def _two_metrics(shipped: Quality, searched: Quality) -> Iterator[str]:
    if shipped.metric != searched.metric:
        theirs = metric_name(searched)
        yield (
            f"The shipped file is judged by {metric_name(shipped)}, the search went by {theirs}: two scales, which are "
            "not to be compared."
            f"{f' The {theirs} of the shipped file stands beside its own.' if searched.metric in shipped.also else ''}"
        )


def _sibling_words(search: SearchResult, manifest: Manifest | None) -> Iterator[str]:
    seen = search.winner.quality
    rivals = ", ".join(
        f"the {name} subnet {merit(rival.quality)}"
        for name, rival in (("largest", search.largest), ("smallest", search.smallest))
        if (rival.quality.n, rival.quality.split) == (seen.n, seen.split)
    )
    if not rivals:
        return
    words = (
        f"In the search, inside the supernet and on the same {items(seen)} for all, the winner has "
        f"{metric_name(seen)} {merit(seen)}, {rivals}. The winner was picked on these items, so they flatter it"
    )
    if manifest is not None and manifest.quality.split != seen.split:
        words += f"; the shipped file's figure is of {items(manifest.quality)}, on which nobody searched"
    yield f"{words}."


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
    names = names_of(winner.costs)
    facts = [Fact(capital(names[key]), cost_figure(key, cost), cost.source) for key, cost in winner.costs.items()]
    if search.budgets:
        met = all(keeps(winner, budget) for budget in search.budgets)
        facts.append(Fact("Budgets", "met" if met else "missed", "in the search", _tone(met)))
    return [*facts, _quality_fact(winner.quality)]


def _quality_fact(quality: Quality) -> Fact:
    return Fact(capital(metric_name(quality)), merit(quality), f"measured, {items(quality)}")


def _tone(good: bool) -> Tone:
    return "good" if good else "bad"


def _comparison(story: Story) -> Table:
    rows: list[tuple[str, ...]] = []
    manifest, search = story.manifest, story.search
    columns = _columns(story)
    if manifest is not None:
        also = search.winner.quality.metric if search is not None else ""
        costs = [_shipped(manifest, key) for key in columns]
        rows.append(("Shipped file", *_with_quality(manifest.quality, costs, also)))
    if search is not None:
        for name, seen in (("Winner", search.winner), ("Largest", search.largest), ("Smallest", search.smallest)):
            rows.append((f"{name}, in the search", *_with_quality(seen.quality, _cost_cells(seen, columns))))
    else:
        for key, quality in story.checkpoint.metrics.items():
            rows.append((f"{key.capitalize()}, after training", *_with_quality(quality, ["–"] * len(columns))))
    baseline = _trivial(story)
    if baseline is not None:
        rows.append(("Trivial baseline", baseline[0], *["–"] * len(columns), baseline[1]))
    names = names_of(columns)
    head = ("Latency (p50)" if names[key] == "latency" else capital(names[key]) for key in columns)
    return Table(
        "The winner beside the rest of its supernet",
        ("Model", "Quality", *head, "Quality of"),
        rows,
        numbers=frozenset(range(2, 2 + len(columns))),
    )


def _columns(story: Story) -> list[str]:
    """The costs of the table by their keys: what the search knew, and what is known of every shipped file."""
    found: dict[str, None] = {}
    if story.search is not None:
        for seen in (story.search.winner, story.search.largest, story.search.smallest):
            found |= dict.fromkeys(seen.costs)
    if story.manifest is not None and "latency_s" not in found:
        found.setdefault(cost_key("latency_s", story.manifest.target))
    elif not any(parts_of(key).metric == "latency_s" for key in found):
        found.setdefault("latency_s")
    found |= {"size_bytes": None, "parameters": None}
    known = [key for key in found if parts_of(key).metric in _METRICS]
    return sorted(known, key=lambda key: _METRICS.index(parts_of(key).metric))


def _shipped(manifest: Manifest, key: str) -> str:
    """What the shipped file takes of one cost; a dash where that was not measured, or on another device."""
    metric, percentile, target = parts_of(key)
    if metric in ("size_bytes", "parameters"):
        counted = manifest.artifact.size_bytes if metric == "size_bytes" else manifest.artifact.parameters
        return f"{figure(metric, counted)} counted"
    latency, source = manifest.latency, latency_source(manifest)
    if target not in (None, manifest.target):
        return "–"
    if metric == "latency_s" and percentile == 50:
        return f"{measured_ms(latency.median_s, latency.half_width_s)} {source}"
    budgeted = {outcome.budget.key: outcome.value for outcome in manifest.budgets}
    value = {
        "latency_s": latency.p90_s if percentile == 90 else latency.p99_s,
        "peak_memory_bytes": manifest.peak_memory_bytes,
    }.get(metric, budgeted.get(key))
    return "–" if value is None else f"{figure(key, value)} {source}"


def _trivial(story: Story) -> tuple[str, str] | None:
    """What the best constant answer would score, and on what."""
    manifest = story.manifest
    if manifest is not None and manifest.trivial_quality is not None:
        score = f"{metric_name(manifest.quality)} {percent(manifest.trivial_quality)}"
        return _unbroken(score), f"always the commonest answer, {manifest.quality.split} items"
    share = story.checkpoint.data.majority_share
    return None if share is None else (_unbroken(f"accuracy {percent(share)}"), "always the commonest label")


def _with_quality(quality: Quality, costs: Sequence[str], also: str = "") -> tuple[str, ...]:
    """The cells of one model: its quality (by `also` too, another metric, where that is known), what it costs, and what
    the quality is of."""
    words = f"{metric_name(quality)} {merit(quality)}"
    if also in quality.also:
        words += f"; {metric_words(also)} {merit_words(also, quality.also[also])}"
    return _unbroken(words), *costs, items(quality)


def _unbroken(words: str) -> str:
    """No line ends before a percent sign."""
    return words.replace(" %", "\N{NO-BREAK SPACE}%")


def _cost_cells(seen: Evaluation, columns: Sequence[str]) -> list[str]:
    found = [(key, seen.costs.get(key)) for key in columns]
    return [cost_figure(key, cost) + (f" {cost.source}" if cost and cost.known else "") for key, cost in found]
