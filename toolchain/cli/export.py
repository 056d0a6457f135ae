"""The subcommand that compiles: export."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolchain.cli import completing
from toolchain.cli.app import app, common
from toolchain.cli.options import FILE, FOLDER, dry_run_option, run_option, strict_option
from toolchain.cli.output import ProgressPrinter, ms, plain, print_result
from toolchain.cli.values import DROP
from toolchain.cli.words import manifest_in_words

if TYPE_CHECKING:
    from toolchain.pipeline.choices import ExportPlan
    from toolchain.pipeline.project import Project
    from toolchain.pipeline.shipped import Exported
    from toolchain.progress import ProgressListener

_PRECISIONS = ["auto", "fp32", "fp16", "int8", "int8-static", "int4"]
_OF_A_RUN = ("run", "arch")


@app.command(
    short_help="compile a subnet into a bundle, and measure it",
    headings={"--run": "What is compiled", "--device": "Where and how it runs", "--out": "The bundle"},
)
@click.option(
    "--format",
    type=click.Choice(["onnx", "tensorrt"]),
    default="onnx",
    show_default=True,
    help="onnx: a file for ONNX Runtime; tensorrt: an engine, built by the device that will run it.",
)
@click.option(
    "--precision",
    type=click.Choice(_PRECISIONS),
    help="auto: the fastest that keeps --max-drop, measured on the device. [as it was searched, else fp32]",
)
@click.option(
    "--max-drop",
    type=DROP,
    default="1%",
    show_default=True,
    help="Of auto: the share of the fp32 file's quality that may be given up.",
)
@run_option
@click.option(
    "--arch",
    shell_complete=completing.architectures,
    help="JSON, a file, an id, smallest, largest. [the last search's winner]",
)
@click.option("--onnx", type=FILE, help="Bring your own: compile this ONNX file instead of a subnet. [none]")
@click.option(
    "--hf", type=FOLDER, help="Bring your own: a local Hugging Face checkpoint, encoder or translation model. [none]"
)
@click.option("--tokenizer", type=FILE, help="The tokenizer.json of --onnx. [beside it, where there is one]")
@click.option(
    "--device",
    shell_complete=completing.devices,
    help="Where the file is measured. [the search's device, else the last profiled, else cpu; what is brought: cpu]",
)
@click.option(
    "--batch", type=click.IntRange(1), help="Sequences in one pass. [the search's, else the last profiled, else 1]"
)
@click.option(
    "--length",
    type=click.IntRange(1),
    help="Tokens in a sequence. [the search's, else the last profiled, else the model's longest, at most 128]",
)
@click.option("--out", type=FOLDER, help="The bundle's folder. [bundles/RUN-ID, bundles/NAME]")
@click.option("--licence", default="", help="What the model card says of the licence, as Apache-2.0. [nothing]")
@strict_option
@dry_run_option
@common
def export(json: bool, quiet: bool, **options: Any) -> None:
    """Compile a subnet into a bundle, and measure the file that ships on the device.

    \b
    mostool export --format onnx                                   # the last search's winner
    mostool export --precision auto --max-drop 1%                  # the fastest file that is hardly worse
    mostool export --arch largest --out bundles/largest            # another subnet
    mostool export --hf my-bert --precision int8                   # a checkpoint of your own
    mostool export --onnx model.onnx --tokenizer tokenizer.json    # an ONNX file of your own
    mostool export --dry-run                                       # what, for which device, and where to
    """
    from toolchain.cli.plans import NOTHING, export_in_words
    from toolchain.pipeline.project import Project
    from toolchain.pipeline.shipped import Exported
    from toolchain.targets import Local, read_target

    project = Project(Path())
    brought = bool(options["onnx"] or options["hf"])
    with ProgressPrinter(quiet=quiet) as listener:
        made = _brought(project, options, listener) if brought else _subnet(project, options, listener)
    if not isinstance(made, Exported):
        lines = [*export_in_words(made), NOTHING]
        print_result(plain(made._asdict()), [], lines, as_json=json, quiet=quiet)
        return
    target = read_target(made.manifest.target, project.root)
    data = {"bundle": str(made.folder), "manifest": made.manifest, "replaced": made.replaced}
    where = "" if isinstance(target.connection, Local) else f" --device {target.id}"
    *lines, following = manifest_in_words(made.folder, made.manifest, where)
    lines += [*_before(made), following]
    print_result(plain(data), made.warnings, lines, as_json=json, quiet=quiet)


def _before(made: Exported) -> Iterator[str]:
    """What was known of the subnet, and what stood in the bundle's place."""
    if made.foreseen is not None and made.foreseen.table_s is not None and made.manifest.predicted_s:
        yield f"before: {ms(made.foreseen.table_s)} {made.foreseen.source} in the device's latency table"
    if made.replaced is not None:
        yield f"replaces {made.folder}: {made.replaced}"


def _subnet(project: Project, options: dict[str, Any], listener: ProgressListener) -> Exported | ExportPlan:
    from toolchain.errors import UsageError
    from toolchain.pipeline.choices import plan_export
    from toolchain.pipeline.export import budgets_of, usual_device
    from toolchain.pipeline.export import export as export_run
    from toolchain.pipeline.runs import Run
    from toolchain.pipeline.shipping import Wanted
    from toolchain.records import Workload
    from toolchain.targets import read_target

    if options["tokenizer"]:
        raise UsageError("a subnet has the tokenizer of its run", hint="leave --tokenizer out, or add --onnx")
    run = Run(project.find_run(options["run"]))
    architecture = run.read_architecture(options["arch"] or "winner")
    device, usual = usual_device(project, run, architecture)
    workload = Workload(
        batch=options["batch"] or usual.batch, sequence_length=options["length"] or usual.sequence_length
    )
    wanted = Wanted(
        precision=options["precision"],
        max_drop=options["max_drop"],
        budgets=budgets_of(run, architecture),
        strict=options["strict"],
        licence=options["licence"],
        format=options["format"],
    )
    target = read_target(options["device"] or device, project.root)
    if options["dry_run"]:
        return plan_export(project, run, architecture, target, workload, wanted, out=options["out"])
    return export_run(project, run, architecture, target, workload, wanted, out=options["out"], listener=listener)


def _brought(project: Project, options: dict[str, Any], listener: ProgressListener) -> Exported | ExportPlan:
    from toolchain.errors import UsageError
    from toolchain.pipeline.brought import export_brought
    from toolchain.pipeline.choices import plan_brought
    from toolchain.pipeline.shipping import Wanted
    from toolchain.targets import read_target

    given = [name for name in _OF_A_RUN if options[name]]
    if given or (options["onnx"] and options["hf"]):
        raise UsageError(
            "a model that was brought is of no run", hint="give one of --onnx and --hf, without --run, --arch"
        )
    _check_given(options["onnx"], options["hf"], options["tokenizer"])
    wanted = Wanted(
        precision=options["precision"],
        max_drop=options["max_drop"],
        strict=options["strict"],
        licence=options["licence"],
        format=options["format"],
    )
    given, target = options["onnx"] or options["hf"], read_target(options["device"] or "cpu", project.root)
    if options["dry_run"]:
        return plan_brought(project, given, target, wanted, out=options["out"])
    return export_brought(
        project,
        given,
        target,
        wanted,
        tokenizer=options["tokenizer"],
        batch=options["batch"],
        length=options["length"],
        out=options["out"],
        listener=listener,
    )


def _check_given(onnx: Path | None, folder: Path | None, tokenizer: Path | None) -> None:
    """Raise UsageError where a file is given for a folder, or the other way round."""
    from toolchain.errors import UsageError

    if onnx is not None and onnx.is_dir():
        raise UsageError(f"{onnx} is a folder", hint="--onnx takes a file; the folder of a checkpoint goes with --hf")
    if folder is not None and not folder.is_dir():
        raise UsageError(
            f"there is no folder {folder}", hint="--hf takes a checkpoint's folder: config.json, safetensors"
        )
    if folder is not None and tokenizer is not None:
        raise UsageError("a checkpoint has its own tokenizer", hint="leave --tokenizer out, or put it into the folder")
