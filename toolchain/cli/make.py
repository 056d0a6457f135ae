"""The subcommand that measures subnets: profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from toolchain.cli.app import app, common
from toolchain.cli.options import run_option, strict_option
from toolchain.cli.output import (
    ProgressPrinter,
    plain,
    print_result,
)
from toolchain.cli.values import ERROR, SPAN
from toolchain.cli.words import on_run, profiled_in_words


@app.command()
@click.option(
    "--device",
    multiple=True,
    help="A target: see mostool devices list. Repeatable: several are measured at once. [cpu]",
)
@run_option
@click.option("--n", type=click.IntRange(1), help="Subnets the table is to hold, with a goal at most. [40; 200]")
@click.option("--target-error", type=ERROR, help="Goal: measure until the predictor is this good (MAPE), as 3%.")
@click.option("--budget", type=SPAN, help="Goal: measure so long at most, as 10min.")
@click.option("--transfer", help="Lean on the table of this device, where that helps: then 10 to 20 subnets do.")
@click.option("--arch", multiple=True, help="Measure this architecture instead. Repeatable.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "mixed"]),
    default="fp32",
    show_default=True,
    help="mixed: int8 or fp32 weights by layer, drawn with the subnets; a table of its own.",
)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Sequences in one pass.")
@click.option("--length", type=click.IntRange(1), help="Tokens in a sequence. [the run's longest, at most 128]")
@click.option("--thermal", type=click.Choice(["guard", "sustained"]), help="Of heat and throttling. [the target's]")
@click.option("--self-test", is_flag=True, help="Measure the table's noise floor (anew).")
@click.option("--fresh", is_flag=True, help="Start a new table; the old one is moved aside.")
@click.option("--retry-failed", is_flag=True, help="Measure again what could not be measured.")
@strict_option
@common
def profile(json: bool, quiet: bool, **options: Any) -> None:
    """Measure subnets on a device; grow its latency table. What the table holds is not measured again.

    \b
    mostool profile --device cpu
    mostool profile --device cpu --n 100 --length 32
    mostool profile --device cpu --target-error 3% --budget 10min
    mostool profile --device cpu --precision mixed
    mostool profile --device rpi
    """
    import msgspec

    from toolchain.errors import MostoolError, UsageError
    from toolchain.pipeline.growing import MOST, SUBNETS, Goal
    from toolchain.pipeline.profile import Profiled, Request, profile_all
    from toolchain.pipeline.profile import profile as profile_run
    from toolchain.pipeline.project import Project
    from toolchain.pipeline.runs import Run
    from toolchain.pipeline.workloads import usual_workload
    from toolchain.records import Workload
    from toolchain.targets import read_target

    project = Project(Path())
    targets = [read_target(name, project.root) for name in dict.fromkeys(options["device"] or ("cpu",))]
    if options["thermal"]:
        measure = {"thermal": options["thermal"]}
        targets = [
            msgspec.structs.replace(one, measure=msgspec.structs.replace(one.measure, **measure)) for one in targets
        ]
    run = Run(project.find_run(options["run"]))
    goal = None
    if options["target_error"] is not None or options["budget"] is not None:
        if options["arch"]:
            raise UsageError("a goal chooses what is measured", hint="leave --arch out, or --target-error and --budget")
        goal = Goal(options["target_error"], options["budget"], options["n"] or MOST)
    request = Request(
        Workload(batch=options["batch"], sequence_length=options["length"] or usual_workload(run).sequence_length),
        options["n"] or SUBNETS,
        [run.read_architecture(one) for one in options["arch"]],
        goal=goal,
        like=options["transfer"],
        fresh=options["fresh"],
        retry_failed=options["retry_failed"],
        self_test=options["self_test"],
        mixed=options["precision"] == "mixed",
    )
    outcomes: list[Profiled | MostoolError]
    with ProgressPrinter(quiet=quiet) as listener:
        if len(targets) == 1:
            outcomes = [profile_run(project, run, targets[0], request, strict=options["strict"], listener=listener)]
        else:
            outcomes = profile_all(project, run, targets, request, strict=options["strict"], listener=listener)
    done = [one for one in outcomes if not isinstance(one, MostoolError)]
    lines = [line for one in done for line in profiled_in_words(run.folder, one)]
    named = f" --device {done[0].info.target}" if len(done) == 1 and options["device"] else ""
    following = f"search{named} --latency TIME" if run.info.space.point is None else f"export{named}"
    lines.append(f"next: mostool {following}{on_run(options['run'])}")
    data = [
        {
            "device": one.info.target,
            "table": str(one.folder),
            "measured_now": one.measured_now,
            "timed": one.timed,
            "failed": one.failed,
            "source": one.info.environment.source,
            "noise_floor": one.info.noise_floor,
            "called_s": one.called_s,
            "elapsed_s": one.elapsed_s,
            "environment": one.info.environment,
            "predictor_error": one.predictor.error if one.predictor else None,
            "goal_met": one.standing.meets(one.goal) if one.goal and one.goal.target_error and one.standing else None,
        }
        for one in done
    ]
    warnings = [warning for one in done for warning in one.warnings]
    failures = [one for one in outcomes if isinstance(one, MostoolError)]
    if failures:  # the others' tables are kept, and told of where a person reads
        print_result(plain(data), warnings, lines[:-1], as_json=False, quiet=quiet or json)
        raise failures[0]
    print_result(plain(data[0] if len(targets) == 1 else data), warnings, lines, as_json=json, quiet=quiet)
