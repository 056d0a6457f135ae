"""Where everything came from: warnings, data, files by sha256, machines, versions, seeds."""

from __future__ import annotations

from collections.abc import Iterator

from toolchain.records import Data, Environment, Manifest, names_of
from toolchain.report.blocks import Block, Paragraph, Points, Section, Table
from toolchain.report.evidence import latency_source, warnings
from toolchain.report.story import Story
from toolchain.report.units import amount, capital, count, percent, significant

Row = tuple[str, ...]

_WORDS = {
    "measured": "clocked or judged by this tool: a latency on the real device it names, a quality on held-out items",
    "predicted": "what a model fitted on measured rows says of a subnet that was not measured",
    "simulated": "what a made-up device gives, for tests: nothing was run",
    "emulated": "clocked on another processor that pretends to be the device's: says nothing about a real one",
    "imported": "taken from a table that others published: nobody here has measured it",
    "counted": "follows from the file or from the subnet's shape, without doubt",
}


def provenance(story: Story) -> Section:
    """The warnings first, then the tables that let a reader check the page against the files."""
    found = warnings(story)
    blocks: list[Block] = (
        [Paragraph("Warnings:", "warning"), Points(found, "warning")]
        if found
        else [Paragraph("No warnings: the records agree with each other.", "good")]
    )
    blocks += [
        Table("Where each number comes from", ("Number", "Source"), list(_sources(story))),
        Table("What the source words mean", ("Word", "Meaning"), list(_WORDS.items())),
        Table("Data", ("What", "Value"), list(_data(story.checkpoint.data))),
        Table("Files and inputs", ("What", "sha256"), list(_digests(story)), codes=frozenset({1})),
        Table("Settings", ("What", "Value"), list(_settings(story))),
    ]
    machines = _machines(story)
    if machines:
        blocks.append(machines)
    blocks.append(_versions(story))
    return Section("provenance", "Provenance", blocks)


def _sources(story: Story) -> Iterator[Row]:
    if story.manifest is not None:
        source = latency_source(story.manifest)
        yield "Latency of the shipped file", f"{source} on {story.manifest.target}, after export"
        yield "Quality of the shipped file", f"measured on the {story.manifest.quality.split} split"
        yield "Size and parameters of the shipped file", "counted"
        if story.manifest.predicted_s is not None:
            yield "Latency expected before export", "predicted"
    if story.search is not None:
        everyone = (story.search.winner, story.search.smallest, story.search.largest, *story.search.evaluations)
        seen = sorted({(key, cost.source) for each in everyone for key, cost in each.costs.items()})
        for key, name in names_of(key for key, _ in seen).items():
            words = ", ".join(source for other, source in seen if other == key)
            yield f"{capital(name)} in the search", words
        splits = ", ".join(sorted({each.quality.split for each in everyone}))
        yield "Quality in the search", f"measured inside the supernet, {splits} split"
    if story.predictor is not None:
        held_out = f"{count(story.predictor.error.n)} held-out rows, {story.predictor.source}"
        yield "Predictor errors", f"counted against {held_out}"
    for table in story.tables:
        yield (
            f"Latencies in the table of {table.target}",
            f"{table.source}, {count(sum(row.median_s is not None for row in table.rows))} rows",
        )
    yield "Training losses and quality", "measured during the run"


def _data(data: Data) -> Iterator[Row]:
    yield "Title", data.title
    yield "Train, validation, test", " / ".join(count(number) for number in (data.train, data.validation, data.test))
    if data.labels:
        yield "Labels", ", ".join(data.labels)
    if data.majority_share is not None:
        yield "Share of the commonest label", percent(data.majority_share)
    for note in data.notes:
        yield "Note", note


def _digests(story: Story) -> Iterator[Row]:
    """Every digest that the records hold: of what was read, of what was made from it, of what was shipped."""
    yield from _digests_of_training(story)
    yield from _digests_of_tables(story)
    if story.search is not None:
        yield "Checkpoint searched", story.search.checkpoint_sha256
        yield "Predictor used by the search", story.search.predictor_sha256 or "none"
        for device in story.search.devices:
            yield f"Predictor of {device.target} ({device.source})", device.predictor_sha256
    if story.manifest is not None:
        yield from _digests_of_bundle(story.manifest, story.checkpoint.data)


def _digests_of_training(story: Story) -> Iterator[Row]:
    checkpoint = story.checkpoint
    yield "Data", checkpoint.data.sha256
    yield from ((f"Data file {name}", sha256) for name, sha256 in checkpoint.data.files.items())
    yield f"Weights {checkpoint.weights}", checkpoint.weights_sha256
    yield "Tokenizer", checkpoint.tokenizer_sha256
    yield "Prepared data", checkpoint.prepared_sha256
    for role, origin in (("Started from", checkpoint.origin), ("Teacher", checkpoint.teacher)):
        if origin is not None:
            yield f"{role}: {origin.title}", origin.sha256


def _digests_of_tables(story: Story) -> Iterator[Row]:
    known = story.predictor.table_sha256 if story.predictor is not None else ""
    if known:
        yield "Latency table behind the predictor", known
    for table in story.tables:
        digests = [table.sha256, table.predictor.table_sha256 if table.predictor is not None else ""]
        for sha256 in dict.fromkeys(one for one in digests if one and one != known):
            yield f"Latency table of {table.target}", sha256
        if table.info is not None:
            yield f"Reference model on {table.target}", table.info.reference_sha256


def _digests_of_bundle(manifest: Manifest, trained_on: Data) -> Iterator[Row]:
    artifact = manifest.artifact
    yield "Checkpoint shipped", manifest.checkpoint_sha256
    yield f"Shipped file {artifact.file}", artifact.sha256
    if artifact.checkpoint_sha256:
        yield f"Checkpoint of {artifact.file}", artifact.checkpoint_sha256
    if manifest.engine is not None:
        yield "ONNX file the engine was built from", manifest.engine.built_from_sha256
    if manifest.data.sha256 != trained_on.sha256:
        yield "Data of the shipped file", manifest.data.sha256
        yield from ((f"Data file {name} of the shipped file", sha256) for name, sha256 in manifest.data.files.items())
    yield from ((f"In the bundle: {name}", sha256) for name, sha256 in manifest.files.items())


def _settings(story: Story) -> Iterator[Row]:
    checkpoint, plan = story.checkpoint, story.checkpoint.training
    yield "Space", f"{checkpoint.space.name} ({checkpoint.space.digest})"
    yield "Trained", checkpoint.created_at.isoformat()
    yield "Seed of the training", str(plan.seed)
    yield "Task and recipe", f"{plan.task}, {plan.recipe}"
    yield (
        "Mixture",
        (
            f"{plan.mixture.kind}, {plan.mixture.experts} experts, router width {plan.mixture.router_width}, "
            f"expert correlation {significant(plan.mixture.expert_correlation)}"
        ),
    )
    yield "Batch", f"{plan.batch_size} × {plan.accumulate}, {plan.sequence_length} tokens"
    yield "Learning rate", f"{plan.learning_rate:g} after {count(plan.warmup_updates)} updates of warm-up"
    if story.search is not None:
        search = story.search
        yield "Searched", search.created_at.isoformat()
        yield "Searcher and seed of the search", f"{search.searcher}, {search.seed}"
        names = names_of(budget.key for budget in search.budgets)
        for budget in search.budgets:
            yield f"Budget: {names[budget.key]}", f"at most {amount(budget.key, budget.limit)}"
    if story.manifest is not None:
        artifact = story.manifest.artifact
        yield "Built by", f"{artifact.recipe}, {artifact.format} opset {artifact.opset}, {artifact.precision}"
        parity = artifact.parity_max_abs_error
        if parity is not None:
            yield (
                "Parity with the trained subnet",
                (f"largest difference {parity:.2g}, tolerance {story.manifest.parity_tolerance:.2g}"),
            )


def _machines(story: Story) -> Table | None:
    machines: dict[str, Environment] = {}
    if story.predictor is not None and story.predictor.environment is not None:
        machines[f"{story.predictor.target}, for the latency table"] = story.predictor.environment
    for table in story.tables:
        if table.info is not None:
            machines[f"{table.target}, for the latency table"] = table.info.environment
    if story.manifest is not None:
        machines[f"{story.manifest.target}, for the shipped file"] = story.manifest.environment
    if not machines:
        return None
    rows = [
        ("Fingerprint", *(machine.fingerprint for machine in machines.values())),
        ("Machine", *(" ".join(filter(None, (each.machine, each.board))) for each in machines.values())),
        ("Processor", *(f"{each.cpu}, {count(each.cores)} cores" for each in machines.values())),
        ("Memory", *(amount("size_bytes", each.memory_bytes) for each in machines.values())),
        ("System", *(f"{each.os}, {each.kernel}" for each in machines.values())),
        ("Governor", *(each.governor or "unknown" for each in machines.values())),
        ("Engine", *(f"{each.engine} {each.engine_version}, {each.provider}" for each in machines.values())),
        ("Python", *(each.python for each in machines.values())),
        ("Instruction sets", *(" ".join(each.isa) or "unknown" for each in machines.values())),
    ]
    return Table("Machines", ("What", *machines), rows)


def _versions(story: Story) -> Table:
    columns = {"Training": story.checkpoint.versions}
    if story.manifest is not None:
        columns["Export"] = story.manifest.versions
    columns["This report"] = dict(story.versions)
    names = dict.fromkeys(name for versions in columns.values() for name in versions)
    rows = [(name, *(versions.get(name, "–") for versions in columns.values())) for name in names]
    return Table("Versions", ("Software", *columns), rows)
