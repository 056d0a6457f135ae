"""The model card: the manifest in words, for whoever is handed the folder."""

from __future__ import annotations

from toolchain.records import DEVICE_METRICS, BudgetOutcome, Manifest, names_of, spelled


def render_card(manifest: Manifest) -> str:
    """Markdown; every figure says where it comes from."""
    artifact, latency = manifest.artifact, manifest.latency
    environment, workload, data = manifest.environment, manifest.workload, manifest.data
    axes = "\n".join(f"- {name}: {_entries(value)}" for name, value in artifact.architecture.axes.items())
    spread = f" ± {100 * latency.half_width_s / latency.median_s:.2f} %" if latency.median_s > 0 else ""
    p99 = f"; p99 {_ms(latency.p99_s)}" if latency.p99_s is not None else ""
    predicted = f" (predicted before it was built: {_ms(manifest.predicted_s)})" if manifest.predicted_s else ""
    trivial = (
        f" Always answering the most frequent label would score {100 * manifest.trivial_quality:.1f} %."
        if manifest.trivial_quality is not None
        else ""
    )
    budgets = "\n".join(_budget(outcome) for outcome in manifest.budgets) or "- none was set"
    notes = "".join(f"- {note}\n" for note in data.notes)
    return f"""# {manifest.name}

{_what(manifest)}

## Use
`python run_example.py {'"first text" "second text"' if manifest.pairs else '"your text"'}` (needs onnxruntime, numpy \
and tokenizers). `mostool verify .` checks this folder.
Inputs `input_ids` and `attention_mask`, int64 [batch, sequence], at most {manifest.maximum_length} tokens;
output `logits`.

## Speed and size
- {_ms(latency.median_s)}{spread} (p50{p99}; n={latency.n} calls in {latency.rounds} rounds)
  {environment.source} on {manifest.target}: {environment.cpu}, {environment.engine} {environment.engine_version},
  {artifact.precision}, {manifest.threads} thread(s), batch {workload.batch},
  {workload.sequence_length} tokens{predicted}
- {artifact.size_bytes / 2**20:.2f} MiB, {artifact.parameters:,} parameters (counted)

## Budgets
{budgets}

## Quality
{manifest.quality} (measured on this file).{trivial}
{_agreement(manifest)}

## Architecture {artifact.architecture.id}
{axes}

## Training
{_training(manifest)}

## Data
{data.title}: {data.train} training, {data.validation} validation, {data.test} test items.
{notes}
The data's own licence holds for what was learned from it; mostool does not know it. Not checked: fairness, safety, or
any use but the task above.
"""


def _what(manifest: Manifest) -> str:
    """What kind of model it is, what it reads and what it answers with."""
    made = "trained as one architecture" if manifest.alone else "cut out of a Mixture-of-Supernets"
    reads = " It reads pairs of texts." if manifest.pairs else ""
    if manifest.task == "regress":
        answers = "It answers with a number."
    elif manifest.labels:
        answers = f"It answers with one of {len(manifest.labels)} labels: {', '.join(manifest.labels)}."
    else:
        answers = "It fills in masked words."
    return f"A Transformer encoder, {made} by mostool.{reads} {answers}"


def _agreement(manifest: Manifest) -> str:
    """What the answers were compared with."""
    artifact = manifest.artifact
    parity = "not stated" if artifact.parity_max_abs_error is None else f"{artifact.parity_max_abs_error:.1e}"
    if artifact.quantised_max_abs_error is None:
        return (
            f"Its answers differ from those of the module it was made from by {parity} at most\n"
            f"({manifest.parity_tolerance:.0e} allowed)."
        )
    differs, allowed = artifact.quantised_max_abs_error, manifest.parity_tolerance
    return f"""The fp32 file it was quantised from differs from its module by {parity} at most, this file by
{differs:.1e}. Another machine must repeat this file's answers (parity.safetensors) within {allowed:.0e}.
Activations are quantised over a whole batch, so an answer depends a little on what it is batched with."""


def _training(manifest: Manifest) -> str:
    """How its weights came to be: on its own or inside a supernet, from what start, and taught by whom."""
    training, origin, teacher = manifest.training, manifest.origin, manifest.teacher
    what = "it alone" if manifest.alone else "a supernet"
    items = training.batch_size * training.accumulate
    said = [f"- {training.updates} updates of {what}, {items} items each"]
    if origin is not None:
        said.append("; ".join((f"- started from {origin.title} (sha256 {origin.sha256[:12]})", *origin.notes)))
    if teacher is not None:
        weight = f"which weighed {100 * training.distill:.0f} %"
        said.append(f"- learned from the answers of {teacher.title} (sha256 {teacher.sha256[:12]}), {weight}")
    return "\n".join(said)


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
