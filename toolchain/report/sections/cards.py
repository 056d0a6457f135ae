"""The cards of the subnets: what is known of each, and what to type to have it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup

from toolchain.records import Cost, Evaluation, SearchResult, names_of
from toolchain.report.blocks import Card, Command
from toolchain.report.islands import island
from toolchain.report.units import NO_COST, amount, architecture_words, capital, count, metric_name, percent
from toolchain.space import Architecture, SearchSpace

_BASE = 36
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_SEPARATOR = "|"
_ESTIMATE = " (an estimate: given up early)"


class Deck(NamedTuple):
    """The subnets that have a card, and which of the search's evaluations each of them is.

    Attributes:
        run: what --run is given to mean the run.
        subnets: the evaluations in the search's order, then winner, smallest and largest where they are not among them.
        front: the ids on the front.
    """

    search: SearchResult
    run: str
    subnets: Sequence[Evaluation]
    front: frozenset[str]

    @classmethod
    def of(cls, search: SearchResult, run: str) -> Deck:
        known = {each.architecture.id for each in search.evaluations}
        others = {each.architecture.id: each for each in (search.winner, search.smallest, search.largest)}
        subnets = [*search.evaluations, *(each for name, each in others.items() if name not in known)]
        on_front = (search.evaluations[index] for index in search.front if 0 <= index < len(search.evaluations))
        return cls(search, run, subnets, frozenset(each.architecture.id for each in on_front))


def card(deck: Deck) -> Card:
    """The winner's card, and the data of all others."""
    winner = deck.search.winner
    subnet = winner.architecture.id
    return Card(subnet, f"Subnet {subnet}", list(facts(deck, winner)), commands(deck, winner), _others(deck))


def facts(deck: Deck, each: Evaluation) -> Iterator[tuple[str, str]]:
    """Of one subnet: its axes, its quality, each cost with its source word, and where it stands."""
    on_front = "on the front" if each.architecture.id in deck.front else "not on the front"
    yield "Place", ", ".join(filter(None, (_places(deck.search).get(each.architecture.id), on_front)))
    yield "Shape", architecture_words(each.architecture)
    yield _quality_label(deck.search), percent(each.quality.value, 2) + (_ESTIMATE if each.stopped else "")
    names = names_of(_keys(deck.search))
    for key, cost in each.costs.items():
        if key in names:
            value, upper = _amounts(key, cost)
            yield capital(names[key]), f"{value} {cost.source}" + (f", at most {upper}" if upper else "")
    yield "Budgets", "kept" if each.feasible else "missed"


def commands(deck: Deck, each: Evaluation) -> list[Command]:
    """What to type to ship a subnet, to have it judged on the test split, and to have it measured."""
    subnet = each.architecture.id
    return [Command(purpose, f"{before}{subnet}{after}") for purpose, before, after in _lines(deck)]


def _lines(deck: Deck) -> Iterator[tuple[str, str, str]]:
    """What each command is good for, what it is before the subnet's id, and what it is after that.

    The device is named even where it is the only one: another search of the run may be for another.
    """
    run = shlex.quote(deck.run)
    targets: list[str | None] = [one.target for one in deck.search.devices] or [deck.search.target]
    for target in targets:
        device = f" --device {shlex.quote(target)}" if target else ""
        where = f" and measure it on {target}" if target else ""
        yield f"Build it{where}", f"mostool export --run {run} --arch ", device
    yield "Judge it on the test split", f"mostool evaluate --run {run} --arch ", ""


def _named(search: SearchResult) -> tuple[tuple[str, Evaluation], ...]:
    return ("winner", search.winner), ("smallest", search.smallest), ("largest", search.largest)


def _keys(search: SearchResult) -> list[str]:
    everyone = (search.winner, search.smallest, search.largest, *search.evaluations)
    return [*dict.fromkeys(key for each in everyone for key in each.costs)]


def _quality_label(search: SearchResult) -> str:
    quality = search.winner.quality
    return f"{metric_name(quality).capitalize()}, {count(quality.n)} {quality.split} items"


def _amounts(key: str, cost: Cost) -> tuple[str, str]:
    """A cost and its upper bound as they are printed; no bound where it would say the same."""
    if not cost.known:
        return NO_COST, ""
    words, bound = amount(key, cost.value), amount(key, cost.upper)
    return words, "" if bound == words else bound


# -- for the script --------------------------------------------------------------------------------------------------


def _others(deck: Deck) -> Markup:
    """All cards, compact: a row is one text of fields, its axes spelled as the numbers of their choices.

    The fields are id, axes, quality in percent, flags, and of each cost its figure, its upper bound (empty where it
    says the same) and the number of its source word. A unit that all figures of a cost share stands once, in `costs`.
    """
    search, keys = deck.search, _keys(deck.search)
    names = names_of(keys)
    sources = sorted({cost.source for each in deck.subnets for cost in each.costs.values()})
    units = {key: _shared_unit(key, deck.subnets) for key in keys}
    words, rows = {}, []
    for number, each in enumerate(deck.subnets):
        genes = spelled_axes(each.architecture, search.space)
        if genes is None:
            words[str(number)] = architecture_words(each.architecture)
        flags = (each.stopped, each.feasible, each.architecture.id in deck.front)
        fields = [each.architecture.id, genes or "", f"{100 * each.quality.value:,.2f}"]
        fields.append(str(sum(flag << place for place, flag in enumerate(flags))))
        for key in keys:
            fields += _fields(key, each, units[key], sources)
        rows.append(_SEPARATOR.join(fields))
    return island(
        {
            "quality": _quality_label(search),
            "axes": [[axis.name, axis.choices, _width(axis.choices)] for axis in search.space.axes],
            "costs": [[capital(names[key]), units[key]] for key in keys],
            "sources": sources,
            "places": _places(search),
            "commands": [list(line) for line in _lines(deck)],
            "words": words,
            "rows": rows,
        }
    )


def _fields(key: str, each: Evaluation, unit: str, sources: Sequence[str]) -> tuple[str, str, str]:
    cost = each.costs.get(key)
    if cost is None:
        return "", "", ""
    value, upper = _amounts(key, cost)
    return value.removesuffix(unit), upper.removesuffix(unit), str(sources.index(cost.source))


def _shared_unit(key: str, subnets: Sequence[Evaluation]) -> str:
    """The unit that all figures of a cost are printed in, with the space before it; empty where they differ."""
    held = (each.costs[key] for each in subnets if key in each.costs)
    known = (value for cost in held if cost.known for value in (cost.value, cost.upper))
    units = {amount(key, value).partition(" ")[2] for value in known}
    return f" {units.pop()}" if len(units) == 1 and "" not in units else ""


def spelled_axes(architecture: Architecture, space: SearchSpace) -> str | None:
    """Every axis in the numbers of its choices to the base of 36, the axes of the space parted by a point.

    None where the architecture is no point of the space.
    """
    if set(architecture.axes) != {axis.name for axis in space.axes}:
        return None
    texts = []
    for axis in space.axes:
        value = architecture.axes[axis.name]
        entries = value if isinstance(value, tuple) else (value,)
        if not set(entries) <= set(axis.choices):
            return None
        texts.append("".join(_digits(axis.choices.index(entry), _width(axis.choices)) for entry in entries))
    return ".".join(texts)


def _width(choices: Sequence[int]) -> int:
    """How many digits the number of a choice has."""
    width = 1
    while _BASE**width < len(choices):
        width += 1
    return width


def _digits(number: int, width: int) -> str:
    text = ""
    for _ in range(width):
        number, digit = divmod(number, _BASE)
        text = _DIGITS[digit] + text
    return text


def _places(search: SearchResult) -> dict[str, str]:
    """What the three subnets are called that every search knows."""
    found: dict[str, str] = {}
    for name, each in _named(search):
        held = found.get(each.architecture.id)
        found[each.architecture.id] = name if held is None else f"{held}, {name}"
    return found
