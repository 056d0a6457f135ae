"""The subcommands that train: train and finetune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from toolchain.cli import completing
from toolchain.cli.app import app, common
from toolchain.cli.options import FOLDER, FilesAfterData, data_options, dry_run_option, first_of_ranks, training_options
from toolchain.cli.output import ProgressPrinter, percent, plain, print_note, print_result, table, typed
from toolchain.cli.recipes import config_option
from toolchain.cli.values import NOT_NEGATIVE, SHARE

if TYPE_CHECKING:
    from toolchain.pipeline.data import Source
    from toolchain.pipeline.runs import Run
    from toolchain.pipeline.train import Start
    from toolchain.records import Mixture, Training
    from toolchain.space import SearchSpace


@app.command(
    cls=FilesAfterData,
    short_help="train a supernet on text",
    headings={
        "--config": "What is learned",
        "--data": "The text",
        "--space": "The space and the supernet",
        "--recipe": "The training",
        "--out": "The run",
    },
)
@config_option
@click.option(
    "--task",
    type=click.Choice(["classify", "regress", "mlm", "translate"]),
    default="classify",
    show_default=True,
    help="regress: the label is a number.",
)
@data_options(
    "Files, also .gz; repeatable. classify, regress: .tsv .csv .jsonl, or hf:NAME of the datasets library; "
    "mlm: .txt or folders; translate: two files line by line, or `system` for this machine's catalogues. "
    "[docstrings of this machine's Python]"
)
@click.option(
    "--space",
    shell_complete=completing.spaces,
    help="A shipped space (tiny, small; base, supershaper; hat-wmt, hat-iwslt) or a TOML file. [small; with --init the "
    "checkpoint's]",
)
@click.option("--init", metavar="FOLDER|NAME", help="Start from a BERT or RoBERTa checkpoint in Hugging Face's format.")
@click.option("--init-weights-only-pt", is_flag=True, help="Let --init read pytorch_model.bin; of it, tensors alone.")
@click.option(
    "--only",
    metavar="ARCH",
    shell_complete=completing.architectures,
    help="Train this architecture alone: JSON, a file, smallest, middle, largest.",
)
@click.option(
    "--mixture",
    type=click.Choice(["plain", "layer", "neuron"]),
    default="neuron",
    show_default=True,
    help="What a router mixes of its experts: nothing, whole layers, or every neuron.",
)
@click.option("--experts", type=click.IntRange(2), help="Full-size weights behind a mixed one. [2]")
@click.option(
    "--router-width", type=click.IntRange(1), default=128, show_default=True, help="Units of the router's hidden layer."
)
@click.option(
    "--router-spread",
    type=NOT_NEGATIVE,
    default=0.0,
    show_default=True,
    help="How far apart architectures are routed at the start: the std of the softmax's input over the space.",
)
@click.option(
    "--router-sees",
    type=click.Choice(["all", "averages"]),
    default="all",
    show_default=True,
    help="Every axis of every layer, or averages over layers as in HAT.",
)
@click.option("--mix-attention", is_flag=True, help="Mix attention's projections too, not the feed-forward alone.")
@click.option(
    "--recipe",
    type=click.Choice(["sandwich", "single-path", "progressive"]),
    help="Which subnets an update trains. [progressive for mlm without --init, else sandwich]",
)
@click.option(
    "--distill",
    type=SHARE,
    default=0.0,
    show_default=True,
    help="Weight of the largest subnet's answers, 0 to below 1.",
)
@click.option(
    "--sequence-length", type=click.IntRange(8), default=64, show_default=True, help="Tokens in a text, at most."
)
@click.option(
    "--vocabulary-size",
    type=click.IntRange(64),
    default=8000,
    show_default=True,
    help="Tokens that are known, at most; with --init the checkpoint's are taken.",
)
@click.option("--batch-tokens", type=click.IntRange(0), help="Of translation: tokens in a micro-batch. [2048]")
@training_options(updates=1000, batch_size=64, learning_rate=1e-3, warmup=100, every=200)
@dry_run_option
@common
def train(json: bool, quiet: bool, **options: Any) -> None:
    """Train a supernet. The same command goes on with a run that was stopped.

    \b
    mostool train --data reviews.tsv.gz                                          # a classifier; columns found by name
    mostool train --task mlm --data corpus/ --updates 20000 --out runs/corpus    # masked words of .txt files
    mostool train --task translate --data train.en train.de                      # line i translates line i
    mostool train --task mlm --data corpus/ --init bert-folder/                  # from a BERT checkpoint
    mostool train --config wmt14-hat --data train.en train.de --dry-run          # what the paper's recipe takes
    torchrun --nproc-per-node 2 -m toolchain train --accumulate 2 --data reviews.tsv    # on two processes
    """
    from toolchain.pipeline.project import Project
    from toolchain.pipeline.train import Extras, train_supernet

    training = _training(options, _mixture(options))
    space, training, start = _beginning(options, training)
    if options["dry_run"]:
        _print_estimate(space, training, _source(options), json=json, quiet=quiet)
        return
    if not options["data"] and training.task != "translate" and first_of_ranks():
        print_note("no --data was given: it trains on the docstrings of this machine's Python libraries", quiet=quiet)
    extras = Extras(start=start, track=options["track"], compiled=options["compile"])
    with ProgressPrinter(quiet=quiet) as listener:
        run = train_supernet(
            Project(Path()),
            _source(options),
            space,
            training,
            extras=extras,
            out=options["out"],
            fresh=options["fresh"],
            listener=listener,
        )
    _print_run(run, json=json, quiet=quiet)


@app.command(
    cls=FilesAfterData,
    short_help="train one extracted subnet on",
    headings={
        "--run": "The subnet",
        "--task": "What is learned",
        "--teacher": "A teacher",
        "--sequence-length": "The training",
        "--out": "The run",
    },
)
@click.option(
    "--run",
    type=FOLDER,
    shell_complete=completing.runs,
    help="A run's folder or its name in runs/. [the newest of many subnets]",
)
@click.option(
    "--arch",
    shell_complete=completing.architectures,
    help="The subnet: JSON, a file, an id, smallest, largest, winner. [winner]",
)
@click.option("--task", type=click.Choice(["classify", "regress"]), help="What --data is. [classify]")
@data_options(
    "A labelled task: .tsv .csv .jsonl, also .gz, or hf:NAME of the datasets library; pairs of texts by their column "
    "names. [the run's own task and data]"
)
@click.option(
    "--teacher",
    metavar="RUN[:ARCH]",
    shell_complete=completing.runs,
    help="Learn from this run's answers too. [its largest subnet]",
)
@click.option("--distill", type=SHARE, help="Weight of the teacher's answers, 0 to below 1. [0.5 with --teacher]")
@click.option("--sequence-length", type=click.IntRange(8), help="Tokens in a text, at most. [the run's]")
@training_options(updates=1000, batch_size=32, learning_rate=1e-3, warmup=100, every=200)
@dry_run_option
@common
def finetune(json: bool, quiet: bool, **options: Any) -> None:
    """Cut one subnet out of its supernet and train it on: as it was, or on a labelled task.

    \b
    mostool finetune --arch winner --updates 2000                       # the paper's additional training
    mostool finetune --arch largest --data mrpc.tsv --out runs/mrpc     # a classifier of pairs
    mostool finetune --data reviews.tsv --teacher runs/reviews-large    # learn from a larger model too
    mostool finetune --arch winner --updates 2000 --dry-run             # what it would take
    """
    from toolchain.pipeline.data import NOT_WITHOUT_DATA, refuse_idle
    from toolchain.pipeline.finetune import ALONE, check_fit, find_supernet, read_teacher
    from toolchain.pipeline.finetune import finetune as finetune_subnet
    from toolchain.pipeline.project import Project
    from toolchain.pipeline.runs import Run

    source = _source(options)
    if not source.data:
        refuse_idle(source, "goes with --data", NOT_WITHOUT_DATA)
    project = Project(Path())
    run = Run(find_supernet(project, options["run"]))
    parent, longest = run.info.training, run.info.space.fixed["maximum_length"]
    usual = {
        "task": "classify" if source.data else parent.task,
        "sequence_length": longest if source.data else parent.sequence_length,
        "distill": 0.5 if options["teacher"] else 0.0,
    }
    options |= {name: value for name, value in usual.items() if options[name] is None}
    options |= {"vocabulary_size": parent.vocabulary_size, "batch_tokens": parent.batch_tokens}
    training = _training(options, ALONE)
    architecture = run.read_architecture(options["arch"] or "winner")
    if options["dry_run"]:
        check_fit(run, training, source if source.data else None)
        space = run.info.space.narrowed(run.declared.without_bits(architecture))
        _print_estimate(space, training, source, json=json, quiet=quiet)
        return
    teacher = None
    if options["teacher"] is not None:
        name, _, arch = options["teacher"].partition(":")
        teaching = Run(project.find_run(Path(name)))
        teacher = read_teacher(teaching, teaching.read_architecture(arch or "largest"), run, training)
    with ProgressPrinter(quiet=quiet) as listener:
        made = finetune_subnet(
            project,
            run,
            architecture,
            training,
            source=source if source.data else None,
            teacher=teacher,
            track=options["track"],
            compiled=options["compile"],
            out=options["out"],
            fresh=options["fresh"],
            listener=listener,
        )
    _print_run(made, json=json, quiet=quiet)


# -- what was asked, as records ----------------------------------------------------------------------------------------


def _source(options: dict[str, Any]) -> Source:
    from toolchain.pipeline.data import Source

    columns = (options["text_column"], options["label_column"], options["second_column"])
    return Source(tuple(options["data"]), tuple(options["valid"]), *columns)


def _mixture(options: dict[str, Any]) -> Mixture:
    from toolchain.errors import UsageError
    from toolchain.records import Mixture

    kind, experts = options["mixture"], options["experts"]
    if options["only"] is not None:
        kind, experts = "plain", None
    if kind == "plain" and experts is not None:
        raise UsageError("plain sharing has no experts", hint="leave --experts out, or choose --mixture neuron")
    idle = [name for name in ("router_spread", "mix_attention") if options[name]] if kind == "plain" else []
    if idle:
        flag = f"--{idle[0].replace('_', '-')}"
        raise UsageError(f"plain sharing mixes nothing, and {flag} is about mixing", hint=f"leave {flag} out")
    return Mixture(
        kind=kind,
        experts=1 if kind == "plain" else experts or 2,
        router_width=options["router_width"],
        router_spread=options["router_spread"],
        router_sees=options["router_sees"],
        attention=options["mix_attention"],
    )


def _training(options: dict[str, Any], mixture: Mixture) -> Training:
    import msgspec

    from toolchain.errors import UsageError
    from toolchain.records import Training

    translates = options["task"] == "translate"
    given = {name: options[name] for name in Training.__struct_fields__ if options.get(name) is not None}
    # Masked words are learned in two steps, and a supernet is slow to the second: supernet/README.md.
    afresh = options.get("init", "") is None and options.get("only", "") is None  # finetune has neither option
    progressive = options["task"] == "mlm" and afresh
    usual = {
        "label_smoothing": 0.1 if translates else 0.0,
        "batch_tokens": 2048 if translates else 0,
        "recipe": "progressive" if progressive else "sandwich",
    }
    try:
        return msgspec.convert(usual | given | {"mixture": mixture}, Training)
    except (msgspec.ValidationError, ValueError) as error:
        raise UsageError("the training settings do not fit", why=str(error), hint="see mostool train --help") from error


def _beginning(options: dict[str, Any], training: Training) -> tuple[SearchSpace, Training, Start | None]:
    """The space that is meant, narrowed where one architecture is, the settings, and what to start from."""
    from toolchain.errors import UsageError
    from toolchain.pipeline.spaces import read_space
    from toolchain.pipeline.train import read_only

    family = "translation" if training.task == "translate" else "bert"
    given, start = options["space"], None
    if options["init"] is not None:
        from toolchain.pipeline.pretrained import read_start

        if click.get_current_context().get_parameter_source("vocabulary_size") is ParameterSource.COMMANDLINE:
            raise UsageError("with --init the vocabulary is the checkpoint's", hint="leave --vocabulary-size out")
        pickled = options["init_weights_only_pt"]
        space, training, start = read_start(options["init"], given, training, allow_pickle_import=pickled)
    elif options["init_weights_only_pt"]:
        raise UsageError("--init-weights-only-pt goes with --init", hint="add --init FOLDER, or leave it out")
    else:
        space = read_space(family, given or "small")
    if options["only"] is not None:
        space = space.narrowed(read_only(space, options["only"]))
    return space, training, start


def _print_estimate(space: SearchSpace, training: Training, source: Source, *, json: bool, quiet: bool) -> None:
    from toolchain.cli.plans import estimate_in_words
    from toolchain.pipeline.data import missing_files
    from toolchain.supernet.estimate import estimate

    found = estimate(space, training)
    warnings = [f"there is no {path}: a dry run does without, a training does not" for path in missing_files(source)]
    print_result(plain(found), warnings, estimate_in_words(found, training), as_json=json, quiet=quiet)


# -- what came out, in words -------------------------------------------------------------------------------------------


def _print_run(run: Run, *, json: bool, quiet: bool) -> None:
    if not first_of_ranks():
        return
    from toolchain.pipeline.train import curve_of, warnings_of

    info = run.info
    rows = [[name, percent(one.value), f"{one.loss:.3f}"] for name, one in info.metrics.items()]
    subnets = f"{info.space.size():,} subnets" if info.space.point is None else f"the subnet {info.space.point.id}"
    lines = [
        f"{run.folder}: {info.updates_done} updates of {info.parameters:,} parameters, {subnets}",
        *([f"started from {'; '.join((info.origin.title, *info.origin.notes))}"] if info.origin else []),
        f"data: {'; '.join((info.data.title, *info.data.notes))}",
        *_mixture_in_words(curve_of(run)[-1].mixture),
        *table(["subnet", next(iter(info.metrics.values())).metric.replace("_", " "), "loss"], rows),
        f"next: {_next(run)}",
    ]
    data = {
        "run": str(run.folder),
        "metrics": info.metrics,
        "data": info.data,
        "updates": info.updates_done,
        "origin": info.origin,
    }
    warnings = [*warnings_of(run), *(info.data.notes if json else [])]
    print_result(plain(data), warnings, lines, as_json=json, quiet=quiet)


def _mixture_in_words(state: dict[str, float]) -> list[str]:
    words = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in state.items())
    return [f"mixture at the end: {words}"] if state else []


def _next(run: Run) -> str:
    if run.info.space.point is not None:
        return f"mostool export --run {typed(run.folder)}"
    return f"mostool profile --device cpu --run {typed(run.folder)}"
