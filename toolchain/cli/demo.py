"""The subcommand demo: the whole path on built-in real input."""

from __future__ import annotations

from pathlib import Path

import click

from toolchain.cli import completing
from toolchain.cli.app import app, common
from toolchain.cli.options import FOLDER
from toolchain.cli.output import ProgressPrinter, plain, print_result
from toolchain.cli.words import demo_in_words


@app.command(short_help="the whole path on text your machine has")
@click.option("--out", type=FOLDER, default=Path("mostool-demo"), show_default=True, help="A folder for all of it.")
@click.option(
    "--device",
    default="cpu",
    show_default=True,
    shell_complete=completing.devices,
    help="The target it is for: see mostool devices list.",
)
@click.option("--fresh", is_flag=True, help="Start anew; what is there is moved aside.")
@common
def demo(out: Path, device: str, fresh: bool, json: bool, quiet: bool, debug: bool) -> None:  # noqa: ARG001
    """The whole path on built-in real input, in minutes: train, profile, search, export, verify, report.

    \b
    mostool demo                                # in mostool-demo/; run again, it goes on where it was
    mostool demo --out /tmp/tried --fresh       # elsewhere, from the start
    mostool demo --device rpi                   # measured on a board behind ssh
    """
    from toolchain.errors import MostoolError
    from toolchain.files import disk_errors
    from toolchain.pipeline.demo import demo as run_demo
    from toolchain.pipeline.project import Project
    from toolchain.targets import read_target

    read_target(device, out)  # a name that nobody knows is told before minutes are spent
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    with ProgressPrinter(quiet=quiet) as listener:
        made = run_demo(Project(out), device, fresh=fresh, listener=listener)
    passed = all(made.verdicts.values())
    data = {
        "passed": passed,
        "verdicts": made.verdicts,
        "bundle": str(made.exported.folder),
        "report": str(made.report),
        "manifest": made.exported.manifest,
        "largest": made.largest,
        "smallest": made.smallest,
        "prediction_error": made.prediction_error,
    }
    warnings = [*made.searched.warnings, *made.exported.warnings]
    if passed or not json:  # one object, and a failure is the one that counts
        print_result(plain(data), warnings, demo_in_words(made, out), as_json=json, quiet=quiet)
    if not passed:
        failed = [name for name, held in made.verdicts.items() if not held]
        raise MostoolError(
            "the demo did not pass", why=f"not so: {'; '.join(failed)}", hint="on a busy machine, run it again"
        )
