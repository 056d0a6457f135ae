"""The subcommand that searches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolchain.cli import completing
from toolchain.cli.app import app, common
from toolchain.cli.options import asked_workload, dry_run_option, run_option, seed_option
from toolchain.cli.output import (
    ProgressPrinter,
    axes_in_words,
    in_words,
    percent,
    plain,
    print_result,
    table,
)
from toolchain.cli.values import COUNTS, ENERGY, LATENCY, MEMORY, SIZES
from toolchain.cli.words import cost_columns, costs_in_words, of_emulated, on_run

if TYPE_CHECKING:
    from toolchain.pipeline.project import Project
    from toolchain.pipeline.runs import Run
    from toolchain.pipeline.wishes import Wish

_OBJECTIVES = {
    "latency": "latency_s",
    "memory": "peak_memory_bytes",
    "energy": "energy_j",
    "size": "size_bytes",
    "params": "parameters",
}


@app.command(
    short_help="find the best subnets under budgets",
    headings={
        "--latency": "Budgets (several with commas: a sweep)",
        "--objective": "What is searched",
        "--searcher": "How it is searched",
        "--workers": "Who evaluates",
        "--seed": "The search",
    },
)
@run_option
@click.option(
    "--device", shell_complete=completing.devices, help="Whose latency table to search with. [the device profiled last]"
)
@click.option(
    "--latency",
    type=LATENCY,
    multiple=True,
    help="Limit, like 80ms, rpi=80ms or 5ms@p90 (us, ms, s). Repeatable. [half-way, where no budget is given]",
)
@click.option("--size", type=SIZES, help="Limit of the model file, like 2MiB (kB, MB, KiB, MiB). [none]")
@click.option("--params", type=COUNTS, help="Limit of the parameters, like 1.5M (k, M). [none]")
@click.option(
    "--memory",
    type=MEMORY,
    multiple=True,
    help="Limit of the peak memory, like 64MiB or rpi=64MiB (kB, MB, KiB, MiB). Repeatable. [none]",
)
@click.option(
    "--energy",
    type=ENERGY,
    multiple=True,
    help="Limit of a pass's energy, like 5mJ (uJ, mJ, J), where it is measured. Repeatable. [none]",
)
@click.option(
    "--objective",
    multiple=True,
    shell_complete=completing.objectives,
    help="What quality is traded against: latency, size, params, memory, energy; of a device: rpi=latency. [latency]",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8", "mixed"]),
    help="Of the weights; mixed searches it block by block. [as the device was profiled last]",
)
@click.option(
    "--batch", type=click.IntRange(1), help="Of the table with so many sequences in a pass. [the one profiled last]"
)
@click.option(
    "--length", type=click.IntRange(1), help="Of the table with so many tokens in a sequence. [the one profiled last]"
)
@click.option(
    "--searcher",
    default="assisted",
    show_default=True,
    shell_complete=completing.searchers,
    help="assisted, nsga2, evolution or random.",
)
@click.option("--evaluations", type=click.IntRange(1), default=100, show_default=True, help="Subnets to evaluate.")
@click.option("--at-once", type=click.IntRange(1), default=5, show_default=True, help="Subnets to evaluate at a time.")
@click.option("--remeasure", type=click.IntRange(0), default=3, show_default=True, help="Subnets to measure at a time.")
@click.option("--no-racing", is_flag=True, help="Let every subnet answer all validation items, hopeless ones too.")
@click.option("--warm-start", is_flag=True, help="Begin with what earlier searches of the run have evaluated.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that evaluate, here.")
@click.option("--scheduler", help="Evaluate on the workers of this dask scheduler, like tcp://host:8786. [none]")
@seed_option
@click.option("--fresh", is_flag=True, help="Search anew what was searched before.")
@dry_run_option
@common
def search(json: bool, quiet: bool, **options: Any) -> None:
    """Find the best subnets under budgets. Exit code 3 when none keeps them. The same command goes on.

    \b
    mostool search --latency 5ms                               # the best that takes 5 ms at most
    mostool search --latency 5ms --size 4MiB --params 1M       # several budgets at once
    mostool search --latency 2ms,5ms,10ms                      # a sweep: the best under each
    mostool search --latency rpi=80ms@p90 --latency cpu=5ms    # on two devices at once
    mostool search --latency 5ms --precision mixed             # int8 or fp32, block by block
    mostool search --latency 5ms --dry-run                     # whether that can be kept, before it starts
    """
    from toolchain.pipeline.project import Project
    from toolchain.pipeline.runs import Run
    from toolchain.pipeline.search import search as search_run

    project = Project(Path())
    run = Run(project.find_run(options["run"]))
    if options["dry_run"]:
        _print_plan(project, run, _wish(options), as_json=json, quiet=quiet)
        return
    with ProgressPrinter(quiet=quiet) as listener:
        searched = search_run(project, run, _wish(options), listener=listener)
    if searched.interrupted and json:
        raise KeyboardInterrupt
    result = searched.result
    lines = [
        *_in_a_table(result),
        f"winner: {axes_in_words(result.winner.architecture.axes)}",
        f"{run.folder}, searched under {_under(result.budgets, result)}",
        *_swept(result),
        f"quality measured on {'the ' if not result.winner.stopped else ''}{result.winner.quality.n} validation items "
        f"that the winner was picked on; {_sources(result)}",
        _spent(searched),
        f"next: mostool export --format onnx{on_run(options['run'])}",
    ]
    data = {
        "result": str(run.search_folder / "result.json"),
        "winner": {"id": result.winner.architecture.id, **plain(result.winner)},
        "smallest": result.smallest,
        "largest": result.largest,
        "budgets": result.budgets,
        "objectives": result.objectives,
        "devices": result.devices,
        "evaluations": _looked_at(result),
        "items_asked": searched.asked,
        "front": [result.evaluations[index].architecture.id for index in result.front],
        "picks": [
            {
                "budgets": pick.budgets,
                "winner": None if pick.index is None else result.evaluations[pick.index].architecture.id,
                "quality": None if pick.index is None else result.evaluations[pick.index].quality.value,
                "costs": None if pick.index is None else result.evaluations[pick.index].costs,
                "nearest": pick.nearest,
            }
            for pick in result.picks
        ],
        "trace": result.trace,
    }
    print_result(plain(data), searched.warnings, lines, as_json=json, quiet=quiet)
    if searched.interrupted:
        raise KeyboardInterrupt


def _print_plan(project: Project, run: Run, wish: Wish, *, as_json: bool, quiet: bool) -> None:
    from toolchain.cli.plans import NOTHING, search_in_words
    from toolchain.pipeline.choices import plan_search

    plan = plan_search(project, run, wish)
    data = plain({**plan._asdict(), "grounds": [one._asdict() for one in plan.grounds]})
    print_result(data, [], [*search_in_words(plan), NOTHING], as_json=as_json, quiet=quiet)


def _wish(options: dict[str, Any]) -> Wish:
    from toolchain.pipeline.wishes import Limits, Objective, Wish

    on_devices = {
        "latency_s": options["latency"],
        "peak_memory_bytes": options["memory"],
        "energy_j": options["energy"],
    }
    limits = [
        Limits(metric, one.limits, one.device, one.percentile)  # type: ignore[arg-type]  # they are metrics
        for metric, several in on_devices.items()
        for one in several
    ]
    if options["size"]:
        limits.append(Limits("size_bytes", options["size"]))
    if options["params"]:
        limits.append(Limits("parameters", options["params"]))
    return Wish(
        limits=tuple(limits),
        objectives=tuple(Objective(*_objective(one)) for one in options["objective"]),
        device=options["device"],
        workload=asked_workload(options["batch"], options["length"]),
        precision=options["precision"],
        searcher=options["searcher"],
        evaluations=options["evaluations"],
        batch=options["at_once"],
        seed=options["seed"],
        remeasure=options["remeasure"],
        racing=not options["no_racing"],
        warm=options["warm_start"],
        fresh=options["fresh"],
        workers=options["workers"],
        scheduler=options["scheduler"],
    )


def _objective(given: str) -> tuple[Any, str | None]:
    """The metric and the device of `latency` or `rpi=latency`."""
    from toolchain.errors import UsageError, unknown_name

    device, _, name = given.rpartition("=")
    if name not in _OBJECTIVES:
        raise unknown_name("objective", name, _OBJECTIVES)
    if device and name in {"size", "params"}:
        raise UsageError(f"{name} is the same on every device", hint=f"write --objective {name}")
    return _OBJECTIVES[name], device or None


def _in_a_table(result: Any) -> list[str]:
    picked = {"winner": result.winner, "smallest": result.smallest, "largest": result.largest}
    columns = cost_columns(picked.values())
    return table(
        ["subnet", "id", result.winner.quality.metric.replace("_", " "), *_headed(columns, picked.values())],
        [
            [name, one.architecture.id, percent(one.quality.value), *costs_in_words(one.costs, columns)]
            for name, one in picked.items()
        ],
    )


def _headed(columns: dict[str, str], evaluations: Iterable[Any]) -> list[str]:
    """The columns' heads; the size is told to be predicted, which is a little more than the file will have."""
    predicted = any("size_bytes" in one.costs and one.costs["size_bytes"].source == "predicted" for one in evaluations)
    return [f"{name} (predicted)" if key == "size_bytes" and predicted else name for key, name in columns.items()]


def _under(budgets: Any, result: Any) -> str:
    from toolchain.records import names_of

    names = names_of([budget.key for pick in result.picks for budget in pick.budgets])
    return ", ".join(in_words(one, names) for one in budgets)


def _swept(result: Any) -> Iterator[str]:
    """The best under each set of budgets, where there are several."""
    if len(result.picks) < 2:
        return
    columns = cost_columns([result.winner])
    rows, missed, shown = [], [], []
    for pick in result.picks:
        if pick.index is None:
            missed.append(f"under {_under(pick.budgets, result)} nothing was found: {pick.nearest}")
            continue
        best = result.evaluations[pick.index]
        shown.append(best)
        cells = [best.architecture.id, percent(best.quality.value), *costs_in_words(best.costs, columns)]
        rows.append([_under(pick.budgets, result), *cells])
    heads = _headed(columns, shown)
    yield from table(["budget", "id", result.winner.quality.metric.replace("_", " "), *heads], rows)
    yield from missed


def _sources(result: Any) -> str:
    """Where the winner's costs on devices come from."""
    if not result.devices:
        return "latency unknown: no device was profiled"
    told = []
    for device in result.devices:
        sources = {cost.source for key, cost in result.winner.costs.items() if key.endswith(f"@{device.target}")}
        told.append(f"{' and '.join(sorted(sources))} on {device.target}, {device.workload.slug}")
    return f"the winner's latency is {'; '.join(told)}{of_emulated(result.winner.costs)}"


def _looked_at(result: Any) -> int:
    return sum(one.batch >= 0 for one in result.evaluations)


def _spent(searched: Any) -> str:
    result = searched.result
    stopped = sum(one.stopped for one in result.evaluations)
    early = f" ({stopped} given up early)" if stopped else ""
    volume = f", hypervolume {result.trace[-1].hypervolume:.3f}" if result.trace else ""
    return f"{_looked_at(result)} subnets evaluated{early}, {len(result.front)} on the front{volume}"
