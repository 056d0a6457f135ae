"""The subcommand that answers from latency tables: predict, with their checking and exchange."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from toolchain.cli import completing
from toolchain.cli.app import app, common
from toolchain.cli.options import run_option, seed_option
from toolchain.cli.output import ms, percent, plain, print_result, table, typed
from toolchain.cli.words import error_in_words, findings_in_words

_PATH = click.Path(path_type=Path)
_SHOWN = 40


@app.command(
    short_help="latency of architectures nobody measured",
    headings={
        "--space": "The table",
        "--arch": "What is predicted",
        "--kind": "The predictor",
        "--check": "Tables: check, import, export",
    },
)
@run_option
@click.option("--space", help="Of a table without a run: the name of a space, as translation/hat-wmt. [the run's]")
@click.option(
    "--device",
    shell_complete=completing.devices,
    help="Whose latency table to predict from. [the device profiled last]",
)
@click.option("--batch", type=click.IntRange(1), help="Of the table: sequences in one pass. [1, or any table's]")
@click.option("--length", type=click.IntRange(1), help="Of the table: tokens in a sequence. [any table's]")
@click.option(
    "--arch",
    multiple=True,
    shell_complete=completing.architectures,
    help="JSON, a file, an id, smallest, largest, winner. Repeatable.",
)
@click.option("--file", type=_PATH, help="Or: a file with one architecture a line, as sample prints them.")
@click.option("--n", type=click.IntRange(1), help="Or: draw so many subnets at random.")
@seed_option
@click.option(
    "--kind", type=click.Choice(["linear", "log", "process", "blocks"]), help="Of model. [the best on held-out rows]"
)
@click.option(
    "--percentile", type=click.Choice(["50", "90", "99"]), help="Of the latency; 99 takes many calls a subnet. [50]"
)
@click.option(
    "--transfer",
    shell_complete=completing.devices,
    help="Lean on the table of this device too, where that helps, from now on; none: no more.",
)
@click.option("--check", type=_PATH, help="Or: look through this table (a folder or file) for rows that are wrong.")
@click.option("--import", type=_PATH, help="Or: take in a table: HAT's CSV, CSV, JSON lines, a folder.")
@click.option("--unit", type=click.Choice(["s", "ms", "us"]), help="Of a file's latencies. [its column's name says it]")
@click.option("--column", multiple=True, help="Of a file: AXIS=NAME where a column is called otherwise. Repeatable.")
@click.option("--precision", default="fp32", show_default=True, help="Of a file: what was measured.")
@click.option("--threads", type=click.IntRange(1), help="Of a file: threads it was measured with. [not known]")
@click.option("--export", type=_PATH, help="Or: write the device's table as .csv, .jsonl or .parquet.")
@common
def predict(json: bool, quiet: bool, **options: Any) -> None:
    """Latency of architectures nobody measured, with an interval, and how wrong the predictor has been.

    \b
    mostool predict --arch winner                 # of one, with its interval
    mostool predict --n 20 --seed 1               # of 20 random ones
    mostool predict --check profiles/cpu/TABLE    # rows that are wrong: outliers, drift
    mostool predict --import pi.csv --device pi --space translation/hat-wmt --length 30    # a table of HAT's
    mostool predict --export table.parquet        # the table for other programs
    """
    from toolchain.errors import UsageError

    asked = [name for name in ("check", "import", "export") if options[name] is not None]
    if len(asked) > 1:
        raise UsageError("one thing at a time: --check, --import or --export", hint="leave all but one out")
    _refuse_strays(options, asked[0] if asked else "")
    if options["check"] is not None:
        data, warnings, lines = _check(options)
    elif options["import"] is not None:
        data, warnings, lines = _import(options)
    elif options["export"] is not None:
        data, warnings, lines = _export(options)
    else:
        data, warnings, lines = _predict(options)
    print_result(plain(data), warnings, lines, as_json=json, quiet=quiet)


_Answer = tuple[dict[str, Any], list[str], list[str]]

_BELONGS = {
    **dict.fromkeys(("arch", "file", "n", "kind", "percentile", "transfer"), ("",)),
    **dict.fromkeys(("unit", "column"), ("import", "check")),
    "threads": ("import",),
}
"""Which options go with which mode; the empty one is to predict."""


def _refuse_strays(options: dict[str, Any], mode: str) -> None:
    """An option that has no say in what was asked is a mistake."""
    from toolchain.errors import UsageError

    for name, modes in _BELONGS.items():
        if options[name] and mode not in modes:
            others = " or ".join(f"--{one}" for one in modes if one)
            what = f"goes with {others}" if others else f"does not go with --{mode}"
            raise UsageError(f"--{name} {what}", hint="leave it out")


def _predict(options: dict[str, Any]) -> _Answer:
    import numpy as np

    from toolchain.errors import UsageError
    from toolchain.pipeline.asked import find_known, find_table, read_architecture, read_architectures
    from toolchain.pipeline.latencies import read_header
    from toolchain.pipeline.predict import check_settings, explain, fit_kind, fit_table, predictor_of, source_of
    from toolchain.pipeline.predict import predict as predict_latency
    from toolchain.pipeline.project import Project
    from toolchain.records import Quantity

    if options["kind"] and options["transfer"]:
        raise UsageError("--kind goes without --transfer, which is linear", hint="leave one of them out")
    project = Project(Path())
    run, space = _run_and_space(project, options)
    architectures = [run.read_architecture(one) if run else read_architecture(one, space) for one in options["arch"]]
    if options["file"] is not None:
        architectures += read_architectures(options["file"])
    rng = np.random.default_rng(options["seed"])
    architectures += [space.sample(rng) for _ in range(options["n"] or 0)]
    folder = find_table(project, space, options["device"], batch=options["batch"], length=options["length"])
    if not architectures:
        raise UsageError("there is no architecture to predict", hint="give --arch, --file, or --n to sample some")
    check_settings(project, folder)
    quantity = Quantity(percentile=int(options["percentile"] or 50))  # type: ignore[arg-type]  # click knows which
    if options["kind"]:
        info = fit_kind(folder, options["kind"], quantity)
    elif options["transfer"]:
        workload = read_header(folder).workload
        known = None if options["transfer"] == "none" else find_known(project, space, options["transfer"], workload)
        info = fit_table(folder, known, quantity)
    else:
        info = predictor_of(project, folder, quantity)
    predictions = predict_latency(info, architectures)
    if run:
        run.remember(architectures[:1000])
    far = sum(one.extrapolated for one in predictions)
    rows = [
        [
            one.architecture.id,
            ms(one.latency_s),
            f"{ms(one.low_s)} to {ms(one.high_s)}",
            *(["extrapolated" if one.extrapolated else ""] if far else []),
        ]
        for one in predictions[:_SHOWN]
    ]
    header = [
        "id",
        f"{source_of(info)} (p{quantity.percentile})",
        f"{percent(info.coverage)} interval",
        *([""] if far else []),
    ]
    blocks = explain(info, architectures) if info.model.kind == "blocks" else {}
    for row, line in enumerate(rows):
        line += [ms(float(seconds[row])) for seconds in blocks.values()]
    header += list(blocks)
    lines = table(header, rows)
    if len(predictions) > _SHOWN:
        lines.append(f"and {len(predictions) - _SHOWN} more: --json prints all")
    warnings = []
    if far:
        warnings.append(
            f"{far} of {len(predictions)} are extrapolated: far from all that was measured on {info.target}, so their "
            "intervals are no promise"
        )
    data = {
        "predictions": [
            {
                "id": one.architecture.id,
                "architecture": one.architecture,
                "latency_s": one.latency_s,
                "low_s": one.low_s,
                "high_s": one.high_s,
                "extrapolated": one.extrapolated,
                "source": source_of(info),
            }
            for one in predictions
        ],
        "device": info.target,
        "table": str(folder),
        "workload": info.workload,
        "kind": info.model.kind,
        "percentile": quantity.percentile,
        "error": info.error,
        "compared": info.compared,
        "coverage": info.coverage,
        "transfer": info.transfer,
        "findings": info.findings,
        "blocks": {name: seconds.tolist() for name, seconds in blocks.items()},
    }
    return data, warnings, [*lines, *error_in_words(info)]


def _check(options: dict[str, Any]) -> _Answer:
    from toolchain.pipeline.check import check_table
    from toolchain.pipeline.project import Project

    project = Project(Path())
    path = options["check"]
    space = None if path.is_dir() else _run_and_space(project, options)[1]
    done = check_table(path, space, unit=options["unit"], columns=_columns(options), length=options["length"])
    lines = [f"{path}: {done.rows} latencies, {done.left_out} left out, {done.corrected} corrected"]
    found = findings_in_words(done.findings)
    lines += found if found or done.notes else ["nothing is wrong with the order they were measured in"]
    data = {
        "table": str(path),
        "rows": done.rows,
        "left_out": done.left_out,
        "corrected": done.corrected,
        "findings": done.findings,
    }
    return data, list(done.notes), lines


def _import(options: dict[str, Any]) -> _Answer:
    from toolchain.errors import UsageError
    from toolchain.pipeline.exchange import import_table
    from toolchain.pipeline.latencies import is_table, read_header
    from toolchain.pipeline.project import Project
    from toolchain.records import Workload

    project = Project(Path())
    source, space = options["import"], _run_and_space(project, options)[1]
    if options["device"] is None:
        raise UsageError("whose latencies are they?", hint="name the device: --device pi")
    if not source.is_dir() and options["length"] is None:
        raise UsageError("at which length were they measured?", hint="say how many tokens: --length 30")
    workload = Workload(batch=options["batch"] or 1, sequence_length=options["length"] or 1)
    if source.is_dir() and is_table(source) and options["length"] is None:
        workload = read_header(source).workload
    done = import_table(
        project,
        source,
        space,
        options["device"],
        workload,
        precision=options["precision"],
        threads=options["threads"],
        unit=options["unit"],
        columns=_columns(options),
    )
    lines = [
        f"{done.folder}: {done.rows_added} latencies imported, {done.rows_already} were there already",
        f"next: mostool predict --check {typed(done.folder)}",
    ]
    data: dict[str, Any] = {"table": str(done.folder), "added": done.rows_added, "already": done.rows_already}
    data["source"] = read_header(done.folder).source  # a measured table's rows stay so
    return data, list(done.notes), lines


def _export(options: dict[str, Any]) -> _Answer:
    from toolchain.pipeline.asked import find_table
    from toolchain.pipeline.exchange import export_table
    from toolchain.pipeline.project import Project

    project = Project(Path())
    _, space = _run_and_space(project, options)
    folder = find_table(project, space, options["device"], batch=options["batch"], length=options["length"])
    rows = export_table(folder, options["export"])
    data = {"table": str(folder), "out": str(options["export"]), "rows": rows}
    return data, [], [f"{options['export']}: {rows} latencies of {folder}"]


def _run_and_space(project: Any, options: dict[str, Any]) -> tuple[Any, Any]:
    """The run that is meant and its space; with --space none is needed, and where there is none a table's is taken."""
    from toolchain.errors import UsageError
    from toolchain.pipeline.asked import named_space
    from toolchain.pipeline.run_records import RunRecords

    if options["space"] is not None:
        if options["run"] is not None:
            raise UsageError("--space and --run both name a space", hint="leave one of them out")
        return None, named_space(options["space"])
    if options["run"] is None and not project.has_runs():
        space = project.newest_space(options["device"])
        if space is not None:
            return None, space
    run = RunRecords(project.find_run(options["run"]))
    return run, run.info.space


def _columns(options: dict[str, Any]) -> dict[str, str]:
    from toolchain.errors import UsageError

    pairs = [one.partition("=") for one in options["column"]]
    for axis, equals, name in pairs:
        if not (axis and equals and name):
            raise UsageError(f"--column {axis}{equals}{name} names no column", hint="write it like hidden=h")
    return {axis: name for axis, _, name in pairs}
