"""The subcommand that measures subnets: profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from toolchain.cli import completing
from toolchain.cli.app import app, common
from toolchain.cli.options import FOLDER, dry_run_option, run_option, strict_option
from toolchain.cli.output import ProgressPrinter, mib, plain, print_result, typed
from toolchain.cli.values import ERROR, SPAN
from toolchain.cli.words import on_run, profiled_in_words


@app.command(
    short_help="measure subnets on a device",
    headings={
        "--n": "What is measured",
        "--precision": "The work",
        "--thermal": "How it is measured",
        "--fresh": "The table",
        "--build-only": "In two steps, where torch is not",
    },
)
@click.option(
    "--device",
    multiple=True,
    shell_complete=completing.devices,
    help="A target: see mostool devices list. Repeatable: several are measured at once. [cpu]",
)
@run_option
@click.option(
    "--n", type=click.IntRange(1), help="Subnets the table is to hold, with a goal at most. [40; with a goal 200]"
)
@click.option(
    "--target-error", type=ERROR, help="Goal: measure until the predictor errs so little (MAPE), as 3%. [none]"
)
@click.option("--budget", type=SPAN, help="Goal: measure so long at most, as 10min (s, min, h). [none]")
@click.option(
    "--transfer",
    shell_complete=completing.devices,
    help="Lean on the table of this device, where that helps: then 10 to 20 subnets do.",
)
@click.option(
    "--arch",
    multiple=True,
    shell_complete=completing.architectures,
    help="Measure this architecture instead: JSON, a file, an id, winner, smallest, largest. Repeatable.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "mixed"]),
    default="fp32",
    show_default=True,
    help="mixed: int8 or fp32 weights by layer, drawn with the subnets; a table of its own.",
)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Sequences in one pass.")
@click.option("--length", type=click.IntRange(1), help="Tokens in a sequence. [the run's longest, at most 128]")
@click.option(
    "--thermal",
    type=click.Choice(["guard", "sustained"]),
    help="What is done about heat: wait, or measure it hot. [the target's]",
)
@click.option("--self-test", is_flag=True, help="Measure the table's noise floor (anew).")
@click.option("--fresh", is_flag=True, help="Start a new table; the old one is moved aside.")
@click.option("--retry-failed", is_flag=True, help="Measure again what could not be measured.")
@strict_option
@dry_run_option
@click.option(
    "--build-only",
    type=FOLDER,
    help="Measure nothing: write the model files into this folder, for a machine without torch.",
)
@click.option("--artifacts", type=FOLDER, help="Measure the files of such a folder: needs no run and no torch.")
@common
def profile(json: bool, quiet: bool, **options: Any) -> None:
    """Measure subnets on a device; grow its latency table. What the table holds is not measured again.

    \b
    mostool profile --device cpu                                     # 40 subnets, on this machine
    mostool profile --device cpu --n 100 --length 32                 # more of them, at 32 tokens
    mostool profile --device cpu --target-error 3% --budget 10min    # until the predictor is that good
    mostool profile --device cpu --precision mixed                   # int8 or fp32, layer by layer
    mostool profile --device rpi                                     # on a board behind ssh
    mostool profile --device rpi --dry-run                           # what it would measure, and how long
    mostool profile --build-only files --n 40                        # only build, where torch is
    mostool profile --artifacts files                                # measure those, where it is not
    """
    from toolchain.errors import MostoolError
    from toolchain.pipeline.profile import Profiled, profile_all
    from toolchain.pipeline.profile import profile as profile_one
    from toolchain.pipeline.project import Project

    project = Project(Path())
    targets = _targets(project, options)
    _refuse_strays(options)
    if options["build_only"] is not None:
        _build_only(project, targets, options, as_json=json, quiet=quiet)
        return
    if options["artifacts"] is not None:
        supply, request, following = _ready(targets, options)
    else:
        supply, request, following = _of_run(project, options)
    if options["dry_run"]:
        _print_plans(project, supply, targets, request, as_json=json, quiet=quiet)
        return
    outcomes: list[Profiled | MostoolError]
    with ProgressPrinter(quiet=quiet) as listener:
        if len(targets) == 1:
            outcomes = [profile_one(project, supply, targets[0], request, strict=options["strict"], listener=listener)]
        else:
            outcomes = profile_all(project, supply, targets, request, strict=options["strict"], listener=listener)
    done = [one for one in outcomes if not isinstance(one, MostoolError)]
    lines = [line for one in done for line in profiled_in_words(supply.folder, one)]
    named = f" --device {done[0].info.target}" if len(done) == 1 and options["device"] else ""
    lines.append(f"next: mostool {following.format(named)}")
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


_Asked = tuple[Any, Any, str]
"""A run or a folder of files, what is asked of it, and the command that follows, with room for the device."""

_OF_FILES = ("run", "n", "arch", "precision", "batch", "length", "target_error", "budget")
_OF_MEASURING = ("target_error", "budget", "transfer", "thermal", "self_test", "strict", "artifacts", "dry_run")


def _print_plans(project: Any, supply: Any, targets: list[Any], request: Any, *, as_json: bool, quiet: bool) -> None:
    from toolchain.cli.plans import NOTHING, profile_in_words
    from toolchain.pipeline.plans import plan_profile

    plans = [plan_profile(project, supply, target, request) for target in targets]
    lines = [line for plan in plans for line in profile_in_words(plan)]
    data = [plain(plan._asdict()) for plan in plans]
    print_result(data[0] if len(plans) == 1 else data, [], [*lines, NOTHING], as_json=as_json, quiet=quiet)


def _refuse_strays(options: dict[str, Any]) -> None:
    """Options that have no say where files are only built, or are ready."""
    from toolchain.errors import UsageError

    context = click.get_current_context()
    for mode, strays in (("build_only", _OF_MEASURING), ("artifacts", _OF_FILES)):
        for name in strays:
            given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
            if options[mode] is not None and given:
                why = "nothing is measured" if mode == "build_only" else "what is measured is what the folder holds"
                flags = (f"--{one.replace('_', '-')}" for one in (name, mode))
                raise UsageError("{} does not go with {}".format(*flags), why=why, hint="leave it out")


def _targets(project: Any, options: dict[str, Any]) -> list[Any]:
    import msgspec

    from toolchain.targets import read_target

    targets = [read_target(name, project.root) for name in dict.fromkeys(options["device"] or ("cpu",))]
    if not options["thermal"]:
        return targets
    measure = {"thermal": options["thermal"]}
    return [msgspec.structs.replace(one, measure=msgspec.structs.replace(one.measure, **measure)) for one in targets]


def _of_run(project: Any, options: dict[str, Any]) -> _Asked:
    from toolchain.errors import UsageError
    from toolchain.pipeline.growing import MOST, SUBNETS, Goal
    from toolchain.pipeline.profile import Request
    from toolchain.pipeline.runs import Run
    from toolchain.pipeline.workloads import usual_workload
    from toolchain.records import Workload

    run, goal = Run(project.find_run(options["run"])), None
    if options["target_error"] is not None or options["budget"] is not None:
        if options["arch"]:
            raise UsageError("a goal chooses what is measured", hint="leave --arch out, or --target-error and --budget")
        goal = Goal(options["target_error"], options["budget"], options["n"] or MOST)
    length = options["length"] or usual_workload(run.info.space).sequence_length
    request = Request(
        Workload(batch=options["batch"], sequence_length=length),
        options["n"] or SUBNETS,
        [run.read_architecture(one) for one in options["arch"]],
        goal=goal,
        like=options["transfer"],
        fresh=options["fresh"],
        retry_failed=options["retry_failed"],
        self_test=options["self_test"],
        mixed=options["precision"] == "mixed",
    )
    following = "search{} --latency TIME" if run.info.space.point is None else "export{}"
    return run, request, following + on_run(options["run"])


def _ready(targets: list[Any], options: dict[str, Any]) -> _Asked:
    from toolchain.pipeline.artifacts import ReadyArtifacts

    ready = ReadyArtifacts(options["artifacts"])
    for target in targets:
        ready.check_runtime(target)
    request = ready.request(
        like=options["transfer"],
        fresh=options["fresh"],
        retry_failed=options["retry_failed"],
        self_test=options["self_test"],
    )
    return ready, request, "predict{} --n 20"


def _build_only(project: Any, targets: list[Any], options: dict[str, Any], *, as_json: bool, quiet: bool) -> None:
    from toolchain.errors import UsageError
    from toolchain.pipeline.artifacts import build_artifacts

    if len(targets) > 1:
        raise UsageError("a folder of files is for one kind of device", hint="name one --device for each --build-only")
    run, request, _ = _of_run(project, options)
    (target,), folder = targets, options["build_only"]
    with ProgressPrinter(quiet=quiet) as listener:
        done = build_artifacts(run, run.folder.name, target, request, folder, listener=listener)
    info = done.info
    size = sum(one.size_bytes for one in (info.reference, *info.artifacts))
    device, there = f" --device {target.id}" if options["device"] else "", typed(Path(folder.name))
    lines = [
        f"{folder}: {done.made_now} built now, {len(info.artifacts)} in all and their reference, {mib(size)}; "
        f"for {info.engine} {info.provider}".rstrip(),
        f"next: copy it to where it is measured, and there: mostool profile --artifacts {there}{device}",
    ]
    data = {
        "folder": str(folder),
        "built_now": done.made_now,
        "artifacts": info.artifacts,
        "reference": info.reference,
        "failed": info.failed,
        "size_bytes": size,
    }
    warnings = [f"{one.architecture.id} could not be built: {one.error}" for one in info.failed]
    print_result(plain(data), warnings, lines, as_json=as_json, quiet=quiet)
