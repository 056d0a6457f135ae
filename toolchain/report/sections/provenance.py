"""Where everything came from: warnings, data, files by sha256, machines, versions, seeds."""

from __future__ import annotations

from collections.abc import Iterator

from toolchain.records import Data, Environment, names_of
from toolchain.report.blocks import Block, Paragraph, Points, Section, Table
from toolchain.report.evidence import latency_source, warnings
from toolchain.report.story import Story
from toolchain.report.units import amount, capital, count, percent, significant

Row = tuple[str, ...]


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
        yield "Predictor errors", f"measured against {count(story.predictor.error.n)} held-out rows"
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
    checkpoint, predictor, search, manifest = story.checkpoint, story.predictor, story.search, story.manifest
    yield "Data", checkpoint.data.sha256
    yield from ((f"Data file {name}", sha256) for name, sha256 in checkpoint.data.files.items())
    yield f"Weights {checkpoint.weights}", checkpoint.weights_sha256
    yield "Tokenizer", checkpoint.tokenizer_sha256
    if predictor is not None:
        yield "Latency table behind the predictor", predictor.table_sha256
    if search is not None:
        yield "Checkpoint searched", search.checkpoint_sha256
        yield "Predictor used by the search", search.predictor_sha256 or "none"
        if len(search.devices) > 1:
            for device in search.devices:
                yield f"Predictor of {device.target} ({device.source})", device.predictor_sha256
    if manifest is not None:
        artifact = manifest.artifact
        yield "Checkpoint shipped", manifest.checkpoint_sha256
        yield f"Shipped file {artifact.file}", artifact.sha256
        if artifact.checkpoint_sha256:
            yield f"Checkpoint of {artifact.file}", artifact.checkpoint_sha256
        if manifest.data.sha256 != checkpoint.data.sha256:
            yield "Data of the shipped file", manifest.data.sha256
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
