"""The training run: how good its subnets became, and how the mixture of experts fared on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from toolchain.records import TrainingPoint
from toolchain.report.blocks import Block, Figure, LegendEntry, Paragraph, Section, Table
from toolchain.report.charts import Axis, Chart, Shape, Spot, mark_swatch
from toolchain.report.story import Story
from toolchain.report.units import count, metric_name, percent, quality_words, significant

_SHAPES: tuple[Shape, ...] = ("circle", "square", "diamond", "triangle")
_MANY = 60
_WORDS = {
    "router_entropy": "router entropy (1 = uniform)",
    "expert_distance": "distance of the experts (0 = equal)",
}

Curves = Mapping[str, Sequence[Spot]]


def training(story: Story) -> Section:
    """Quality, losses and mixture state over the updates, each as a chart, and the looks at the run as a table."""
    blocks: list[Block] = [Paragraph(_summary(story))]
    curve = story.curve
    if not curve:
        blocks.append(Paragraph("No training curve was kept."))
    else:
        blocks += _chart("quality", "Quality on the validation split", f"{_metric(curve)}, %", _quality(curve))
        blocks += _chart("losses", "Training loss since the last look", "loss", _numbers(curve, "losses"))
        blocks += _chart("mixture", "State of the mixture", "value", _numbers(curve, "mixture"))
        blocks.append(_table(curve))
    return Section("training", "Training", blocks)


def _summary(story: Story) -> str:
    checkpoint = story.checkpoint
    plan, mixture = checkpoint.training, checkpoint.training.mixture
    experts = "" if mixture.kind == "plain" else f" of {mixture.experts} experts"
    reached = "; ".join(f"{name} {quality_words(quality)}" for name, quality in checkpoint.metrics.items())
    return (
        f"The supernet {checkpoint.space.name} ({count(checkpoint.parameters)} parameters, "
        f"{mixture.kind} sharing{experts}) was trained by the {plan.recipe} recipe "
        f"for {count(checkpoint.updates_done)} of {count(plan.updates)} updates "
        f"on {checkpoint.data.title}, seed {plan.seed}."
        f"{f' At the end: {reached}.' if reached else ''}"
    )


def _chart(name: str, title: str, label: str, curves: Curves) -> list[Block]:
    """A line for each curve, or a sentence where fewer than two looks have a finite value."""
    curves = {name: [spot for spot in spots if math.isfinite(spot[1])] for name, spots in curves.items()}
    curves = {name: spots for name, spots in curves.items() if spots}
    everywhere = [spot for spots in curves.values() for spot in spots]
    if not everywhere:
        return [Paragraph(f"{title}: nothing was recorded.")]
    if len({update for update, _ in everywhere}) < 2:
        words = ", ".join(f"{_name(name)} {significant(spots[0][1])}" for name, spots in curves.items())
        at = count(everywhere[0][0])
        return [Paragraph(f"{title}: a single look, at update {at}: {words}{' (%)' if label.endswith('%') else ''}.")]
    chart = Chart(
        title,
        Axis.around((update for update, _ in everywhere), "update", room=0.02),
        Axis.around((value for _, value in everywhere), label, room=0.1, ticks=5),
        name,
    )
    legend: list[LegendEntry] = []
    for number, (curve, spots) in enumerate(curves.items()):
        kind, shape, words = f"series-{number % len(_SHAPES)}", _SHAPES[number % len(_SHAPES)], _name(curve)
        chart.line(spots, kind)
        few = len(spots) <= _MANY
        told = [f"{words}, update {count(update)}: {significant(value)}" for update, value in spots] if few else ()
        chart.marks(spots, kind, shape, 4 if few else 2.5, curve, tooltips=told)
        last = f"{words}: {significant(spots[-1][1])} at the end"
        legend.append(LegendEntry(mark_swatch(kind, shape), last))
    return [Figure(chart.svg(), f"{title}.", legend)]


def _name(curve: str) -> str:
    return _WORDS.get(curve, curve.replace("_", " "))


def _quality(curve: Sequence[TrainingPoint]) -> Curves:
    names = dict.fromkeys(name for look in curve for name in look.quality)
    return {
        name: [(look.update, 100 * look.quality[name].value) for look in curve if name in look.quality]
        for name in names
    }


def _numbers(curve: Sequence[TrainingPoint], field: str) -> Curves:
    """The curves of `losses` or `mixture`, by name."""
    held: list[tuple[int, dict[str, float]]] = [(look.update, getattr(look, field)) for look in curve]
    names = dict.fromkeys(name for _, values in held for name in values)
    return {name: [(update, values[name]) for update, values in held if name in values] for name in names}


def _metric(curve: Sequence[TrainingPoint]) -> str:
    return next((metric_name(quality) for look in curve for quality in look.quality.values()), "quality")


def _table(curve: Sequence[TrainingPoint]) -> Table:
    kinds = {
        "quality": dict.fromkeys(name for look in curve for name in look.quality),
        "losses": dict.fromkeys(name for look in curve for name in look.losses),
        "mixture": dict.fromkeys(name for look in curve for name in look.mixture),
    }
    head = [
        "Update",
        "Seconds",
        "Learning rate",
        *(f"Quality, {name}" for name in kinds["quality"]),
        *(f"Loss, {name}" for name in kinds["losses"]),
        *(name.replace("_", " ").capitalize() for name in kinds["mixture"]),
    ]
    rows = [
        [
            count(look.update),
            significant(look.seconds),
            f"{look.learning_rate:.2e}",
            *(percent(look.quality[name].value) if name in look.quality else "–" for name in kinds["quality"]),
            *(significant(look.losses[name]) if name in look.losses else "–" for name in kinds["losses"]),
            *(significant(look.mixture[name]) if name in look.mixture else "–" for name in kinds["mixture"]),
        ]
        for look in curve
    ]
    caption = f"All looks at the run ({count(len(curve))})"
    return Table(caption, head, rows, frozenset(range(len(head))), folded=True)
