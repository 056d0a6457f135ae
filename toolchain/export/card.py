"""The model card: the manifest in words, for whoever is handed the folder."""

from __future__ import annotations

from toolchain.records import (
    DEVICE_METRICS,
    AnyManifest,
    BudgetOutcome,
    ModelInput,
    Origin,
    Training,
    names_of,
    spelled,
)


def render_card(manifest: AnyManifest) -> str:
    """Markdown; every figure says where it comes from."""
    sections = [
        f"# {manifest.name}\n\n{_what(manifest)}",
        f"## Use\n{_use(manifest)}",
        f"## Speed and size\n{_speed(manifest)}",
        "## Budgets\n" + ("\n".join(_budget(outcome) for outcome in manifest.budgets) or "- none was set"),
        f"## Quality\n{_quality(manifest)}\n{_agreement(manifest)}",
    ]
    architecture = manifest.artifact.architecture
    if manifest.tried:
        sections.append(f"## Chosen from\n{_tried(manifest)}")
    if architecture is not None:
        axes = "\n".join(f"- {name}: {_entries(value)}" for name, value in architecture.axes.items())
        sections.append(f"## Architecture {architecture.id}\n{axes}")
    if manifest.training is not None:
        sections.append(f"## Training\n{_training(manifest, manifest.training)}")
    elif manifest.origin is not None:
        sections.append(f"## Origin\n{_origin(manifest.origin)}")
    return "\n\n".join([*sections, f"## Data and licence\n{_data(manifest)}"]) + "\n"


def _what(manifest: AnyManifest) -> str:
    """What kind of model it is, what it reads and what it answers with."""
    if manifest.training is None:
        made = "brought as a file and compiled by mostool, which did not train it"
    else:
        made = f"{'trained as one architecture' if manifest.alone else 'cut out of a Mixture-of-Supernets'} by mostool"
    reads = " It reads pairs of texts." if manifest.pairs else ""
    labels = f"one of {len(manifest.labels)} labels: {', '.join(manifest.labels)}"
    answers = {
        "regress": "It answers with a number.",
        "mlm": "It fills in masked words.",
        "classify": f"It answers with {labels}.",
        "translate": f"It translates{_languages(manifest)}.",
        "encode": "What its answers mean it does not say.",
    }[manifest.task]
    kind = "encoder-decoder" if manifest.task == "translate" else "encoder"
    return f"A Transformer {kind}, {made}.{reads} {answers}"


def _languages(manifest: AnyManifest) -> str:
    languages = manifest.data.languages if manifest.data is not None else ()
    return f" {' to '.join(languages)}" if languages else ""


def _use(manifest: AnyManifest) -> str:
    given = '"first text" "second text"' if manifest.pairs else '"your text"'
    beam = "; `--beam 4` searches longer for better words" if manifest.task == "translate" else ""
    example = f"`python run_example.py {given}` (needs onnxruntime, numpy and tokenizers{beam}). "
    inputs = ", ".join(f"`{one.name}` ({_shape(one)})" for one in manifest.inputs)
    output = "`output_ids`, the words" if manifest.task == "translate" else "`logits`"
    said = f"""{example if _RUNS in manifest.files else ""}`mostool verify .` checks this folder.
Inputs {inputs}, at most {manifest.maximum_length} tokens;
output {output}."""
    loads = ["`optimum.onnxruntime`"] if "config.json" in manifest.files else []
    if "model.safetensors" in manifest.files:
        loads.append(f"`transformers`{_trusting(manifest)}")
    if loads:
        said += f"\nThe folder is loaded (`from_pretrained`) by {' and '.join(loads)}."
    return said


_RUNS = "run_example.py"


def _trusting(manifest: AnyManifest) -> str:
    """Layers of differing sizes are no model that transformers has: the folder brings the code."""
    brings = any(name.startswith("modeling_") for name in manifest.files)
    return ", with `trust_remote_code=True`: layers of differing sizes need the modeling file" if brings else ""


def _shape(one: ModelInput) -> str:
    return f"{one.dtype} [1]" if one.role in ("least", "most") else f"{one.dtype} [batch, sequence]"


def _speed(manifest: AnyManifest) -> str:
    artifact, environment, workload = manifest.artifact, manifest.environment, manifest.workload
    size = f"- {artifact.size_bytes / 2**20:.2f} MiB, {artifact.parameters:,} parameters (counted)"
    engine = ""
    if manifest.engine is not None:
        one = manifest.engine
        engine = (
            f"- {artifact.file} was built by {one.builder} {one.builder_version} "
            f"for GPUs of compute capability {one.compute_capability}\n"
        )
    latency = manifest.latency
    if latency is None:
        return f"- not measured: the machine that built it cannot run it\n{engine}{size}"
    spread = f" ± {100 * latency.half_width_s / latency.median_s:.2f} %" if latency.median_s > 0 else ""
    p99 = f"; p99 {_ms(latency.p99_s)}" if latency.p99_s is not None else ""
    predicted = f" (predicted before it was built: {_ms(manifest.predicted_s)})" if manifest.predicted_s else ""
    return f"""- {_ms(latency.median_s)}{spread} (p50{p99}; n={latency.n} calls in {latency.rounds} rounds)
  {environment.source} on {manifest.target}: {environment.cpu}, {environment.engine} {environment.engine_version},
  {artifact.precision}, {manifest.threads} thread(s), batch {workload.batch},
  {workload.sequence_length} tokens{predicted}
{engine}{size}"""


def _quality(manifest: AnyManifest) -> str:
    if manifest.quality is None:
        return "Nobody has judged it: mostool has no text of its kind."
    trivial = (
        f" Always answering the most frequent label would score {100 * manifest.trivial_quality:.1f} %."
        if manifest.trivial_quality is not None
        else ""
    )
    return f"{manifest.quality} (measured on this file).{trivial}"


def _tried(manifest: AnyManifest) -> str:
    """The files that were measured side by side, and why each but one does not ship."""
    drop = 100 * (manifest.max_drop or 0.0)
    lines = [f"The fastest that gives up no more than {drop:g} % of the fp32 file's quality (on validation items):", ""]
    for one in manifest.tried:
        latency = "not measured" if one.latency is None else _ms(one.latency.median_s)
        quality = "" if one.quality is None else f", {one.quality}"
        lines.append(f"- {one.precision}: {latency}, {one.size_bytes / 2**20:.2f} MiB{quality}: {one.why or 'ships'}")
    return "\n".join(lines)


def _agreement(manifest: AnyManifest) -> str:
    """What the answers were compared with."""
    artifact = manifest.artifact
    parity = "not stated" if artifact.parity_max_abs_error is None else f"{artifact.parity_max_abs_error:.1e}"
    if artifact.quantised_max_abs_error is None and manifest.task == "translate":
        return "Its words are those of the module it was made from, one for one (parity.safetensors)."
    if artifact.quantised_max_abs_error is None:
        return (
            f"Its answers differ from those of the module it was made from by {parity} at most\n"
            f"({manifest.parity_tolerance:.0e} allowed)."
        )
    differs, allowed = artifact.quantised_max_abs_error, manifest.parity_tolerance
    if manifest.task == "translate":
        return f"""{100 * differs:.0f} % of the translations it was asked for have other words than the fp32 model's.
Another machine must repeat its own (parity.safetensors), but for {100 * allowed:.0f} %."""
    proven = (
        f"The fp32 file it was quantised from differs from its module by {parity} at most, this file by\n{differs:.1e}."
        if artifact.parity_max_abs_error is not None
        else f"It differs from the file it was quantised from by {differs:.1e}."
    )
    return f"""{proven} Another machine must repeat this file's answers (parity.safetensors) within {allowed:.0e}.
Activations are quantised over a whole batch, so an answer depends a little on what it is batched with."""


def _training(manifest: AnyManifest, training: Training) -> str:
    """How its weights came to be: on its own or inside a supernet, from what start, and taught by whom."""
    what = "it alone" if manifest.alone else "a supernet"
    items = training.batch_size * training.accumulate
    said = [f"- {training.updates} updates of {what}, {items} items each"]
    if manifest.origin is not None:
        said.append(_origin(manifest.origin))
    if manifest.teacher is not None:
        weight = f"which weighed {100 * training.distill:.0f} %"
        said.append(
            f"- learned from the answers of {manifest.teacher.title} (sha256 {manifest.teacher.sha256[:12]}), {weight}"
        )
    return "\n".join(said)


def _origin(origin: Origin) -> str:
    return "; ".join((f"- started from {origin.title} (sha256 {origin.sha256[:12]})", *origin.notes))


def _data(manifest: AnyManifest) -> str:
    data = manifest.data
    said = ["What it was trained on mostool does not know."]
    if data is not None:
        said = [f"{data.title}: {data.train} training, {data.validation} validation, {data.test} test items."]
        said += [f"- {note}" for note in data.notes]
    licence = (
        f"Licence, as whoever exported it says: {manifest.licence}." if manifest.licence else "No licence is stated."
    )
    return (
        "\n".join(said)
        + f"""

{licence} The data's own licence holds for what was learned from it; mostool does not know it. Not checked: fairness,
safety, or any use but the task above."""
    )


def _budget(outcome: BudgetOutcome) -> str:
    budget = outcome.budget
    value, limit = (_amount(budget.key, one) for one in (outcome.value, budget.limit))
    verdict = "met" if outcome.met else "MISSED"
    name = names_of([budget.key])[budget.key]
    if budget.metric in DEVICE_METRICS:
        return f"- {name}: {value} {outcome.source}, limit {limit} on {budget.target}: {verdict}"
    return f"- {name}: {value}, limit {limit}: {verdict}"


def _amount(key: str, value: float) -> str:
    return spelled(key, value).removesuffix(" parameters")  # the line begins with that word


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3f} ms"


def _entries(value: int | tuple[int, ...]) -> str:
    return str(value) if isinstance(value, int) else ", ".join(map(str, value))
