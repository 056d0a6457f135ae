"""The subcommands that look at what is there: evaluate, sample, verify, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from toolchain.cli import completing
from toolchain.cli.app import app, common
from toolchain.cli.options import FOLDER, run_option, seed_option
from toolchain.cli.output import ProgressPrinter, plain, print_result

if TYPE_CHECKING:
    from toolchain.pipeline.verify import Check
    from toolchain.targets import Target


@app.command(
    short_help="quality of a subnet, or of a bundle's file",
    headings={"--arch": "What is judged", "--dump-logits": "What is written", "--beam": "Of a translation"},
)
@run_option
@click.option(
    "--arch",
    multiple=True,
    shell_complete=completing.architectures,
    help="JSON, a file, an id, smallest, largest, winner. Repeatable. [winner]",
)
@click.option(
    "--source",
    type=click.Choice(["supernet", "subnet", "bundle"]),
    default="supernet",
    show_default=True,
    help="In which form: inside the supernet, extracted from it, or the file that ships.",
)
@click.option(
    "--bundle",
    type=FOLDER,
    shell_complete=completing.bundles,
    help="With --source bundle: its folder. [the architecture's in bundles/]",
)
@click.option(
    "--split",
    type=click.Choice(["validation", "test"]),
    default="test",
    show_default=True,
    help="The items it is judged by; a search looks at validation items alone.",
)
@click.option("--dump-logits", type=click.Path(path_type=Path), help="Write the first batch's logits here, as .npy.")
@click.option("--beam", type=click.IntRange(1), help="Beginnings kept at each step; 1 is greedy. [1]")
@click.option("--limit", type=click.IntRange(1), help="Only so many items of the split, its first. [all]")
@click.option("--dump-text", type=click.Path(path_type=Path), help="Write what it says here, a line for each item.")
@common
def evaluate(json: bool, quiet: bool, **options: Any) -> None:
    """Quality of a subnet: inside the supernet, materialized, or as the file that ships.

    \b
    mostool evaluate --arch winner --source supernet             # as it was searched
    mostool evaluate --source bundle --bundle bundles/NAME       # as the file that ships: the same figure
    mostool evaluate --arch largest --source subnet --beam 4 --dump-text said.txt    # what it translates
    """
    from toolchain.errors import UsageError
    from toolchain.export import read_subnet_manifest
    from toolchain.pipeline.evaluate import Words
    from toolchain.pipeline.evaluate import evaluate as evaluate_subnet
    from toolchain.pipeline.project import Project
    from toolchain.pipeline.runs import Run

    project = Project(Path())
    run = Run(project.find_run(options["run"]))
    source, bundle, given = options["source"], options["bundle"], list(options["arch"])
    if bundle is not None and source != "bundle":
        raise UsageError("--bundle goes with --source bundle", hint="add --source bundle")
    for flag in ("dump_logits", "dump_text"):
        if options[flag] is not None and len(given) > 1:
            raise UsageError(f"--{flag.replace('_', '-')} goes with one --arch", hint="give one --arch")
    if bundle is not None and not given:
        architectures = [read_subnet_manifest(bundle).artifact.architecture]
    else:
        architectures = [run.read_architecture(one) for one in given or ["winner"]]
    words = None
    if any(options[name] is not None for name in ("beam", "limit", "dump_text")):
        words = Words(options["beam"] or 1, options["limit"], options["dump_text"])
    if words is not None and words.beam > 1 and source == "supernet":
        raise UsageError("inside the supernet a translation is greedy", hint="--source subnet with --beam")
    with ProgressPrinter(quiet=quiet) as listener:
        done = [
            evaluate_subnet(
                project,
                run,
                one,
                source,
                options["split"],
                bundle=bundle,
                dump_logits=options["dump_logits"],
                words=words,
                listener=listener,
            )
            for one in architectures
        ]
    lines = [f"{one.architecture.id}  {one.form}  {one.quality}, loss {one.quality.loss:.4f}" for one in done]
    data = [{"id": one.architecture.id, "source": one.form, "quality": one.quality} for one in done]
    built = [one.architecture.id for one in done if one.built]
    warnings = [f"no bundle of {name} in bundles/: this is the file that export would put into one" for name in built]
    warnings += [
        f"{one.architecture.id} in fp32: the {one.form} knows nothing of its bits; --source bundle does"
        for one in done
        if one.bits_ignored
    ]
    print_result(plain(data), warnings, lines, as_json=json, quiet=quiet)


@app.command(short_help="draw architectures, one JSON object a line")
@run_option
@click.option("--n", type=click.IntRange(1), default=1, show_default=True, help="Architectures to draw.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "mixed"]),
    default="fp32",
    show_default=True,
    help="mixed: int8 or fp32 weights by layer, drawn too.",
)
@seed_option
@common
def sample(json: bool, quiet: bool, **options: Any) -> None:
    """Draw architectures from a run's space, one JSON object per line.

    \b
    mostool sample --n 20 --seed 1             # the same twenty every time
    mostool sample --n 5 --precision mixed     # with int8 or fp32 drawn by layer
    mostool sample --n 1000 > drawn.jsonl      # for mostool predict --file drawn.jsonl
    """
    import msgspec
    import numpy as np

    from toolchain.pipeline.project import Project
    from toolchain.pipeline.run_records import RunRecords

    run = RunRecords(Project(Path()).find_run(options["run"]))
    rng = np.random.default_rng(options["seed"])
    space = run.bits_space if options["precision"] == "mixed" else run.info.space
    drawn = [space.sample(rng) for _ in range(options["n"])]
    run.remember(drawn)
    lines = [msgspec.json.encode(one).decode() for one in drawn]
    data = [{"id": one.id, "architecture": one} for one in drawn]
    print_result(plain(data), [], lines, as_json=json, quiet=quiet, verbatim=True)


@app.command(short_help="check bundles: their files, answers and speed")
@click.argument("folders", metavar="[BUNDLE]...", nargs=-1, type=FOLDER, shell_complete=completing.bundles)
@click.option("--no-speed", is_flag=True, help="Check files and answers, and measure nothing.")
@click.option("--device", shell_complete=completing.devices, help="Let this target run the file. [this machine]")
@common
def verify(folders: tuple[Path, ...], json: bool, quiet: bool, **options: Any) -> None:
    """Check a bundle: integrity, parity, speed. Exit code 5 when a file or an answer is wrong.

    Without a BUNDLE it is the newest in bundles/; of several the first that fails ends it.

    \b
    mostool verify                                 # the newest bundle, here
    mostool verify bundles/NAME --device rpi       # on the board it is for
    mostool verify bundles/* --no-speed            # all, in seconds, on a machine that is busy
    """
    from toolchain.errors import MostoolError
    from toolchain.pipeline.project import Project
    from toolchain.targets import read_target

    target = read_target(options["device"], Path()) if options["device"] else None
    remark = [] if folders else ["the newest bundle in bundles/:"]
    done: list[dict[str, Any]] = []
    for folder in folders or (Project(Path()).newest_bundle(),):
        try:
            checks = _verified(folder, target, speed=not options["no_speed"], quiet=quiet)
        except MostoolError as error:
            error.data = plain(done) if done else error.data
            raise
        found = [f"ok  {check.name}: {check.detail}" for check in checks]
        lines = [*([""] if done else []), *remark, *found, f"{folder}: verified"]
        done.append({"bundle": str(folder), "checks": [check._asdict() for check in checks]})
        if not json:
            print_result(None, [], lines, as_json=False, quiet=quiet)
    if json:
        print_result(plain(done if len(done) > 1 else done[0]), [], [], as_json=True, quiet=quiet)


def _verified(folder: Path, target: Target | None, *, speed: bool, quiet: bool) -> list[Check]:
    """The checks of one bundle, which all passed.

    Raises:
        MostoolError: one did not.
    """
    from toolchain.errors import MostoolError
    from toolchain.pipeline.verify import verify as verify_bundle

    with ProgressPrinter(quiet=quiet) as listener:
        done = verify_bundle(folder, speed=speed, target=target, listener=listener)
    if not done.passed:
        failed = next(check for check in done.checks if not check.passed)
        passed = ", ".join(check.name for check in done.checks if check.passed)
        raise MostoolError(
            f"{folder} fails on {failed.name}",
            why=f"{failed.detail}; {passed} passed",
            hint="is the machine busy? run it again",
        )
    return done.checks


@app.command(short_help="a run as one self-contained HTML page")
@click.argument("which", metavar="[RUN]", required=False, type=FOLDER, shell_complete=completing.runs)
@run_option
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The page. [report.html in the run's folder]")
@common
def report(json: bool, quiet: bool, **options: Any) -> None:
    """One self-contained HTML page of a run: the newest in runs/, unless RUN names another.

    \b
    mostool report -o report.html            # of the newest run
    mostool report reviews -o report.html    # of runs/reviews
    mostool report runs/reviews              # into runs/reviews/report.html
    """
    from toolchain.errors import UsageError
    from toolchain.pipeline.project import Project
    from toolchain.pipeline.report import report as write_report
    from toolchain.pipeline.run_records import RunRecords

    which, named = options["which"], options["run"]
    if click.get_current_context().get_parameter_source("run") is not ParameterSource.COMMANDLINE:
        named = None if which is not None else named  # what is typed beats a variable and a settings file
    if which is not None and named is not None and which != named:
        raise UsageError(f"two runs are named: {which} and {named}", hint="name one, with --run or without")
    if which is not None and (which / "manifest.json").is_file():
        raise UsageError(f"{which} is a bundle, and a report is of a run", hint="name its run: mostool report RUN")
    project = Project(Path())
    done = write_report(project, RunRecords(project.find_run(which or named)), options["out"])
    data = {"report": str(done.path), "size_bytes": done.size_bytes, "warnings": len(done.warnings)}
    print_result(data, done.remarks, [str(done.path)], as_json=json, quiet=quiet)
