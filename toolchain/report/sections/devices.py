"""The devices beside each other: what the winner takes on each, how far to trust that, and whether they agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from toolchain.report.blocks import Block, Figure, LegendEntry, Paragraph, Points, Section, Table
from toolchain.report.charts import Axis
from toolchain.report.evidence import latency_source
from toolchain.report.plots import Bar, Part, bars, part_swatch
from toolchain.report.story import DeviceTable, Story
from toolchain.report.units import capital, count, milliseconds, percent, significant, workload_words


class Taken(NamedTuple):
    """What the winner takes on a device: seconds, where that is known from, and what else is known of it."""

    seconds: float
    source: str
    note: str = ""


def devices(story: Story) -> Section:
    """A row for each device with a table of this run's space, a bar for each where there are several, and how alike
    they rank subnets."""
    title, blocks = "Devices", list[Block]()
    if story.remarks:
        blocks.append(Points(story.remarks, "warning"))
    if not story.tables:
        blocks.append(Paragraph("No device has a latency table of this run's space: mostool profile measures one."))
        return Section("devices", title, blocks)
    taken = {table.target: winner_on(story, table) for table in story.tables}
    blocks.append(_table(story.tables, taken))
    known = {name: one for name, one in taken.items() if one is not None}
    if len(story.tables) == 1:
        blocks.append(Paragraph("There is one device, so there is nothing to compare it with."))
        return Section("devices", title, blocks)
    if len(known) > 1:
        blocks.append(_figure(known))
    else:
        blocks.append(Paragraph("What the winner takes is known of fewer than two devices, so there is no chart."))
    blocks.append(_agreements(story))
    return Section("devices", title, blocks)


def winner_on(story: Story, table: DeviceTable) -> Taken | None:
    """The shipped file's latency where it was measured there, else that of the winner's row, else what is predicted."""
    search, manifest = story.search, story.manifest
    if search is None:
        return None
    winner = search.winner.architecture
    if (
        manifest is not None
        and (manifest.target, manifest.workload) == (table.target, table.workload)
        and manifest.artifact.architecture == winner
    ):
        return Taken(manifest.latency.median_s, latency_source(manifest), "as the file that ships")
    row = next((row for row in table.rows if row.subnet == winner.id and row.median_s is not None), None)
    if row is not None and row.median_s is not None:
        return Taken(row.median_s, table.source, "in its table")
    if table.winner is not None:
        word = "predicted" if table.source == "measured" else f"predicted from {table.source} rows"
        return Taken(table.winner.value, word, f"at most {milliseconds(table.winner.upper)}")
    return None


def _table(tables: Sequence[DeviceTable], taken: dict[str, Taken | None]) -> Table:
    """A column for each device."""
    columns = [_column(table, taken[table.target]) for table in tables]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    return Table("Devices with a table of this run's space", ("What", *(table.target for table in tables)), rows)


def _column(table: DeviceTable, taken: Taken | None) -> dict[str, str]:
    info, error = table.info, table.predictor.error if table.predictor else None
    machine, unknown = (info.environment if info else None), "not told"
    timed = sum(row.median_s is not None for row in table.rows)
    failed = len(table.rows) - timed
    return {
        "Source": table.source,
        "Winner there (p50)": _winner_words(taken),
        "Rows": f"{count(timed)}{f', and {count(failed)} that failed' if failed else ''}",
        "Predictor's mean error": f"{percent(error.mape)} (n = {count(error.n)})" if error else "no predictor",
        "Predictor's Kendall's tau": significant(error.kendall_tau) if error else "no predictor",
        "Noise floor": percent(info.noise_floor.value, 2) if info and info.noise_floor else "not tested",
        "Machine": " ".join(filter(None, (machine.board, machine.cpu, machine.accelerator))) if machine else unknown,
        "Emulator": (machine.emulator or "none") if machine else unknown,
        "Engine": f"{machine.engine} {machine.engine_version}, {machine.provider}" if machine else unknown,
        "Threads": count(info.threads) if info else unknown,
        "Work": workload_words(table.workload),
    }


def _winner_words(one: Taken | None) -> str:
    if one is None:
        return "not known"
    return f"{milliseconds(one.seconds)} {one.source}{f', {one.note}' if one.note else ''}"


def _figure(known: dict[str, Taken]) -> Figure:
    axis = Axis.around(
        [0.0, *(1e3 * one.seconds for one in known.values())], "latency of the winner (p50), ms", room=0.02
    )
    rows = [
        Bar(
            f"{name}: {milliseconds(one.seconds)} {one.source}",
            [Part(1e3 * one.seconds, _kind(one), f"{name}: {_winner_words(one)}")],
        )
        for name, one in known.items()
    ]
    sources = dict.fromkeys((_kind(one), one.source) for one in known.values())
    legend = [LegendEntry(part_swatch(kind), source) for kind, source in sources]
    return Figure(bars("The winner's latency by device", "devices", axis, rows), "The winner on each device.", legend)


def _kind(one: Taken) -> str:
    """Solid is what was clocked on the device itself."""
    return "part-entry" if one.source == "measured" else "part-guess"


def _agreements(story: Story) -> Block:
    if not story.agreements:
        return Paragraph("No two devices have five subnets in common that differ, so their order cannot be compared.")
    rows = [
        (f"{one.first} and {one.second}", count(one.common), significant(one.kendall_tau)) for one in story.agreements
    ]
    head = ("Devices", "Subnets in common", "Kendall's tau")
    caption = capital("whether devices rank the subnets that both have alike (1: the same order, 0: no relation)")
    return Table(caption, head, rows, frozenset({1, 2}))
