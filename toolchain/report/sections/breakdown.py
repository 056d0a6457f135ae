"""Where the winner's latency goes: its blocks and layers, by the additive model of a device's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toolchain.report.blocks import Block as PageBlock
from toolchain.report.blocks import Figure, LegendEntry, Paragraph, Section, Table
from toolchain.report.charts import Axis
from toolchain.report.plots import Bar, Part, bars, part_swatch
from toolchain.report.story import Block, Breakdown, DeviceTable, Story
from toolchain.report.units import milliseconds, percent

_LAYERS = ("part-layer", "part-second")
_OTHERS = {"embedding": "part-entry", "head": "part-exit"}
_REST = "part-other"
_NOTES = {"embedding": "embedding, and what a pass takes whatever its layers", "other": "what belongs to no block"}


def breakdown(story: Story) -> Section:
    """A stacked bar for the winner and for the largest and the smallest subnet, of each device; and their figures."""
    title = "Where the latency goes"
    tables = [table for table in story.tables if any(_total(one) > 0 for one in table.breakdowns)]
    if not tables:
        words = (
            "No latency was broken down: that takes a device's table of enough subnets of the winner's space, whose "
            "latencies differ."
        )
        return Section("breakdown", title, [Paragraph(words)])
    blocks: list[PageBlock] = []
    for number, table in enumerate(tables):
        blocks += [Paragraph(_summary(table)), _figure(table, number), _table(table)]
    return Section("breakdown", title, blocks)


def _summary(table: DeviceTable) -> str:
    error = table.additive_error
    words = (
        f" On rows it has not seen it is {percent(error.mape)} off in the mean, at worst {percent(error.worst)}."
        if error
        else ""
    )
    first = next(one for one in table.breakdowns if _total(one) > 0)
    biggest = max(first.blocks, key=lambda block: block.seconds)
    return (
        f"Predicted for {table.target}, nothing here is measured: an additive model of its {table.source} table gives "
        f"every kind of work a cost, and a block takes what its work costs.{words} "
        f"Of the {first.role} the most goes to {_name(biggest)}: {percent(biggest.seconds / _total(first), 0)}. "
        "What several layers take together is shared among them as far as the network would take less without each."
    )


def _figure(table: DeviceTable, number: int) -> Figure:
    told = [one for one in table.breakdowns if _total(one) > 0]
    name, kinds = f"breakdown-{number}" if number else "breakdown", _kinds(told)
    axis = Axis.around([0.0, *(1e3 * _total(one) for one in told)], "latency (p50), ms, predicted", room=0.02)
    rows = [
        Bar(f"{one.role} {one.subnet}: {milliseconds(_total(one))}", [_part(block, one, kinds) for block in one.blocks])
        for one in told
    ]
    layered = {block.name for one in told for block in one.blocks if block.layer}
    legend = [LegendEntry(part_swatch(kind), _legend(name, layered=name in layered)) for name, kind in kinds.items()]
    caption = (
        f"Predicted latency on {table.target} by block, from the first to the last; layers are numbered. "
        f"Each bar adds up to what the additive model predicts, which need not be what {_chooser(table)}."
    )
    return Figure(bars(f"Latency on {table.target} by block, predicted", name, axis, rows), caption, legend)


def _chooser(table: DeviceTable) -> str:
    kind = table.predictor.model.kind if table.predictor else ""
    return f"the {kind} model predicts that stands under the predictor" if kind else "another model predicts"


def _legend(block: str, layered: bool) -> str:
    if layered:
        return "layers" if block == "layers" else f"{block} layers"
    return _NOTES.get(block, block)


def _part(block: Block, whole: Breakdown, kinds: Mapping[str, str]) -> Part:
    share = percent(block.seconds / _total(whole), 1)
    word = str(block.layer) if block.layer else block.name
    return Part(1e3 * block.seconds, kinds[block.name], f"{_name(block)}: {milliseconds(block.seconds)}, {share}", word)


def _kinds(told: Sequence[Breakdown]) -> dict[str, str]:
    """How each block looks: those of layers by the order in which they come, the others by their place around them."""
    layered = dict.fromkeys(block.name for one in told for block in one.blocks if block.layer)
    kinds = dict(zip(layered, _LAYERS, strict=False))
    names = dict.fromkeys(block.name for one in told for block in one.blocks)
    return {name: kinds.get(name, _OTHERS.get(name, _REST)) for name in names}


def _name(block: Block) -> str:
    """`embedding`, `layer 2`, `encoder layer 2`."""
    if not block.layer:
        return block.name
    return f"layer {block.layer}" if block.name == "layers" else f"{block.name} layer {block.layer}"


def _total(one: Breakdown) -> float:
    return sum(block.seconds for block in one.blocks)


def _table(table: DeviceTable) -> Table:
    told = [one for one in table.breakdowns if _total(one) > 0]
    names = list(dict.fromkeys(_name(block) for one in _longest_first(told) for block in one.blocks))
    held = [{_name(block): block.seconds for block in one.blocks} for one in told]
    rows = [(name, *(milliseconds(seconds[name]) if name in seconds else "–" for seconds in held)) for name in names]
    rows.append(("All", *(milliseconds(_total(one)) for one in told)))
    head = ("Block", *(f"{one.role.capitalize()}, predicted" for one in told))
    return Table(f"Blocks on {table.target}", head, rows, frozenset(range(1, len(head))), folded=True)


def _longest_first(told: Sequence[Breakdown]) -> list[Breakdown]:
    return sorted(told, key=lambda one: -len(one.blocks))
