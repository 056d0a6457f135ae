"""What each section says and draws."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import cast, get_args

import msgspec
import pytest
from example_run import (
    make_curve,
    make_manifest,
    make_predictor,
    make_search,
    make_story,
    of_manifest,
    of_search,
    quality,
)
from report_reader import Page, drawings, sentences, tables

from toolchain import records
from toolchain.report import Story, render_report
from toolchain.report.blocks import Block, Facts, Paragraph, Points
from toolchain.report.evidence import warnings
from toolchain.report.sections.headline import headline
from toolchain.report.sections.latency import latency
from toolchain.report.sections.predictor import predictor
from toolchain.report.sections.provenance import provenance
from toolchain.report.sections.training import training

# -- the headline ----------------------------------------------------------------------------------------------------


def test_the_headline_tells_the_measured_winner(story: Story) -> None:
    manifest = of_manifest(story)
    words = sentences(headline(story))
    assert f"Subnet {manifest.artifact.architecture.id} runs in 23.2 ms ± 0.2 (p50, n = 120), measured on rpi" in words
    assert "22.7 ms was predicted, 2.3 % less than measured" in words
    assert "met with 7.1 % to spare, 23.2 ms measured" in words
    assert "accuracy 87.1 % on 872 test items" in words
    assert "50.7 % on the test items: the shipped file is 36.4 points better" in words
    search = of_search(story)
    for seen in (search.winner, search.largest, search.smallest):
        assert f"{100 * seen.quality.value:.1f} %" in words


def test_figures_of_two_metrics_are_named_and_not_compared(story: Story) -> None:
    assert "two scales" not in sentences(headline(story))
    assert [row[1] for row in tables(headline(story))[0].rows][::4] == [
        "accuracy 87.1\N{NO-BREAK SPACE}%",
        "accuracy 50.7\N{NO-BREAK SPACE}%",
    ]
    bleu = msgspec.structs.replace(quality(0.1128, "test", 872), metric="bleu", also={"accuracy": 0.324})
    translator = in_manifest(story, quality=bleu, trivial_quality=None)
    section = headline(translator)
    (table,) = tables(section)
    assert [row[1] for row in table.rows[:2]] == [
        "BLEU 11.3; accuracy 32.4\N{NO-BREAK SPACE}%",
        f"accuracy {100 * of_search(story).winner.quality.value:.1f}\N{NO-BREAK SPACE}%",
    ]
    assert [row[-1] for row in table.rows[:2]] == ["872 test items", "1,000 validation items"]
    assert "judged by BLEU, the search went by accuracy: two scales, which are not to be compared" in sentences(section)
    assert "BLEU 11.3 on 872 test items" in sentences(section)
    assert not re.search(r"BLEU [\d.]+ %|[Bb]leu", Page(render_report(translator)).text)


def test_the_headline_says_whose_items_flatter_and_what_the_interval_covers(story: Story) -> None:
    words = sentences(headline(story))
    assert "on the same 1,000 validation items for all, the winner has" in words
    assert "they flatter it; the shipped file's figure is of 872 test items, on which nobody searched." in words
    assert "± covers one session" in words
    unshipped = sentences(headline(make_story(manifest=None)))
    assert "they flatter it." in unshipped
    assert "±" not in unshipped


def test_the_headline_says_what_was_missed_and_by_how_much() -> None:
    search = make_search(20)
    story = make_story(search=search, manifest=make_manifest(search.winner, limit=0.02))
    section = headline(story)
    (missed,) = [block for block in section.blocks if isinstance(block, Paragraph) and block.tone == "bad"]
    median_s = of_manifest(story).latency.median_s
    assert f"missed by {100 * (median_s / 0.02 - 1):.1f} %" in missed.text
    assert "1 warning to read first" in sentences(section)


def test_a_latency_from_an_emulated_device_never_goes_without_that_word(story: Story) -> None:
    manifest = of_manifest(story)
    outcome = msgspec.structs.replace(manifest.budgets[0], source="emulated")
    emulated = story._replace(manifest=msgspec.structs.replace(manifest, budgets=(outcome,)))
    assert "emulated on rpi" in sentences(headline(emulated))
    assert "measured on rpi" not in Page(render_report(emulated)).text.lower()


def test_before_the_export_the_winner_is_what_the_search_says() -> None:
    story = make_story(manifest=None)
    words = sentences(headline(story))
    assert "won the search on rpi" in words
    assert "has not been exported yet" in words
    assert "Budget of latency at most 25.0 ms on rpi: met, with 22.7 ms predicted (at most 24.0 ms)." in words


def test_before_the_search_there_is_no_winner() -> None:
    section = headline(make_story(search=None, manifest=None))
    assert "There is no winner yet" in sentences(section)
    assert [row[0] for row in tables(section)[0].rows] == [
        "Largest, after training",
        "Smallest, after training",
        "Trivial baseline",
    ]


# -- the predictor ---------------------------------------------------------------------------------------------------


def test_the_predictor_shows_every_held_out_row_and_its_errors(story: Story) -> None:
    section = predictor(story)
    (chart,) = drawings(section)
    info = cast("records.PredictorInfo", story.predictor)
    off = sum(abs(guess / took - 1) > 0.1 for _, took, guess in info.points)
    assert 0 < off < 60
    assert (chart.tags()["circle"], chart.tags()["path"]) == (60 - off, off)
    assert len(chart.of_class("area", "band")) == 1
    (facts,) = [block for block in section.blocks if isinstance(block, Facts)]
    assert [fact.value for fact in facts.facts] == ["4.6 %", "90.0 %", "0.957", "17.1 %", "±10.1 %"]
    assert facts.facts[1].note == "of n = 60 held-out rows"
    worst, everything = tables(section)
    assert len(worst.rows) == 10
    assert len(everything.rows) == 60


def test_what_was_wrong_with_the_table_stands_beside_the_errors() -> None:
    block = records.Finding(kind="outlier-block", first=0, last=121, ratio=1.43, done="left out")
    single = records.Finding(kind="outlier", first=130, last=130, ratio=1.36, done="left out")
    lean = records.Transfer(target="xeon", table_sha256="0" * 64, alone=0.05, together=0.03, used=True)
    info = msgspec.structs.replace(make_predictor(), findings=(block, single), source="imported", transfer=lean)
    words = sentences(predictor(make_story(predictor=info)))
    assert "122 rows of outlier blocks" in words
    assert "rows it was fitted on are imported" in words
    assert "leans on the table of xeon" in words
    plain = sentences(predictor(make_story(predictor=make_predictor())))
    assert not any(word in plain for word in ("outlier", "imported", "leans"))


def test_a_predictor_of_memory_speaks_of_memory() -> None:
    info = msgspec.structs.replace(
        make_predictor(),
        quantity=records.Quantity(metric="peak_memory_bytes"),
        points=(("a", 2.0**20, 2.0**21), ("b", 2.0**21, 2.0**21)),
    )
    section = predictor(make_story(predictor=info))
    assert section.title == "The peak memory predictor"
    assert "features predicts the peak memory on rpi" in sentences(section)
    (chart,) = drawings(section)
    assert "measured peak memory, MiB" in chart.text
    assert tables(section)[0].rows[0][1:3] == ("1.00 MiB", "2.00 MiB")
    assert "latency" not in " ".join([sentences(section), chart.text])
    p99 = msgspec.structs.replace(make_predictor(), quantity=records.Quantity(percentile=99))
    assert "predicts the latency (p99) on rpi" in sentences(predictor(make_story(predictor=p99)))


def test_a_predictor_without_rows_or_with_one_is_a_sentence() -> None:
    for number, words in ((0, "No held-out row was kept"), (1, "A single row was held out")):
        info = make_predictor(1)
        section = predictor(make_story(predictor=msgspec.structs.replace(info, points=info.points[:number])))
        assert not drawings(section)
        assert words in sentences(section)
    assert "No predictor" in sentences(predictor(make_story(predictor=None)))


# -- the training ----------------------------------------------------------------------------------------------------


def test_the_training_draws_quality_losses_and_mixture(story: Story) -> None:
    merit, losses, mixture = drawings(training(story))
    assert [len(chart.of_class("line")) for chart in (merit, losses, mixture)] == [2, 3, 2]
    assert losses.tags()["title"] == 36  # the tooltips of as many marks
    assert [held["data-series"] for held in losses.of_class("marks")] == ["largest", "smallest", "random"]
    (table,) = tables(training(story))
    assert len(table.rows) == 12
    assert all(len(row) == len(table.head) for row in table.rows)


def test_a_training_with_one_look_is_told_in_words() -> None:
    section = training(make_story(curve=make_curve(1)))
    assert not drawings(section)
    assert (
        "Quality on the validation split: a single look, at update 100: largest 58.5, smallest 52.0 (%)"
        in sentences(section)
    )


def test_a_training_that_diverged_or_has_no_mixture_is_still_drawn() -> None:
    first, *rest = make_curve(5)
    curve = [
        msgspec.structs.replace(first, losses={"largest": float("nan")}, mixture={}, quality={}),
        *(msgspec.structs.replace(look, mixture={}) for look in rest),
    ]
    section = training(make_story(curve=curve))
    assert len(drawings(section)) == 2
    assert "State of the mixture: nothing was recorded." in sentences(section)
    assert "No training curve was kept." in sentences(training(make_story(curve=())))


# -- latency and provenance ------------------------------------------------------------------------------------------


def test_the_latency_table_has_all_figures(story: Story) -> None:
    (table,) = tables(latency(story))
    values = {row[0]: row[1] for row in table.rows}
    assert values["p50, paired with the reference model"] == "23.2 ms ± 0.2"
    assert values["p50, before the file was built"] == "22.7 ms"
    assert values["p99"] == "not enough samples"
    assert values["Samples, n"] == "120"
    assert values["Rounds"] == "20"
    assert values["Share of the samples kept"] == "97.5 %"
    assert values["Status"] == "settled"
    assert "Nothing was exported" in sentences(latency(make_story(manifest=None)))


def test_an_unsettled_latency_is_a_warning_wherever_it_is_shown(story: Story) -> None:
    manifest = of_manifest(story)
    shaky = msgspec.structs.replace(manifest.latency, status=("unstable", "odd"))
    doubtful = story._replace(manifest=msgspec.structs.replace(manifest, latency=shaky))
    assert "unstable (the interval was still too wide" in sentences(latency(doubtful))
    (listed,) = [block for block in provenance(doubtful).blocks if isinstance(block, Points)]
    assert "Latency of the shipped file: odd." in listed.texts
    assert "2 warnings to read first" in sentences(headline(doubtful))


def test_provenance_holds_every_digest_and_seed(story: Story) -> None:
    manifest, search, predicted = of_manifest(story), of_search(story), cast("records.PredictorInfo", story.predictor)
    shown = {cell for table in tables(provenance(story)) for row in table.rows for cell in row}
    assert {
        story.checkpoint.weights_sha256,
        story.checkpoint.tokenizer_sha256,
        story.checkpoint.data.sha256,
        *story.checkpoint.data.files.values(),
        predicted.table_sha256,
        search.checkpoint_sha256,
        cast("str", search.predictor_sha256),
        manifest.artifact.sha256,
        *manifest.files.values(),
    } <= shown
    assert {"evolution, 11", "3", "8,000 / 1,000 / 872", "measured on rpi, after export", "0.1"} <= shown
    assert warnings(story) == []


def test_no_digest_of_the_records_is_missing(story: Story) -> None:
    """Whatever field it is in: the records are walked, so that a new one is not forgotten."""
    origin = records.Origin(title="a run before", sha256="1" * 64)
    teacher = records.Origin(title="a teacher", sha256="2" * 64)
    search = msgspec.structs.replace(
        of_search(story),
        devices=(
            records.SearchDevice(
                target="rpi", workload=records.Workload(), predictor_sha256="3" * 64, source="predicted"
            ),
        ),
    )
    engine = records.Engine(builder="x", builder_version="1", compute_capability="8.6", built_from_sha256="4" * 64)
    manifest = msgspec.structs.replace(of_manifest(story), engine=engine)
    story = in_checkpoint(story._replace(search=search, manifest=manifest), origin=origin, teacher=teacher)
    held = {
        text for part in story for text in texts_in(msgspec.to_builtins(part)) if re.fullmatch("[0-9a-f]{64}", text)
    }
    assert len(held) > 10
    shown = {cell for table in tables(provenance(story)) for row in table.rows for cell in row}
    assert held - shown == set()


def texts_in(plain: object) -> Iterator[str]:
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, (dict, list, tuple)):
        for each in plain.values() if isinstance(plain, dict) else plain:
            yield from texts_in(each)


def test_every_source_word_is_explained() -> None:
    (words,) = [table for table in tables(provenance(make_story())) if table.head[0] == "Word"]
    assert {row[0] for row in words.rows} == set(get_args(records.Source))


def test_a_budget_that_the_shipped_file_was_not_held_to_is_still_told(story: Story) -> None:
    search = of_search(story)
    size = records.Budget(metric="size_bytes", limit=1e9)
    search = msgspec.structs.replace(search, budgets=(*search.budgets, size))
    words = sentences(headline(story._replace(search=search)))
    assert "Budget of size at most 954 MiB: met" in words
    assert "the shipped file was not held to it" in words


def in_checkpoint(story: Story, **changes: object) -> Story:
    return story._replace(checkpoint=msgspec.structs.replace(story.checkpoint, **changes))


def in_manifest(story: Story, **changes: object) -> Story:
    return story._replace(manifest=msgspec.structs.replace(of_manifest(story), **changes))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: in_checkpoint(s, updates_done=400), "Training stopped early: 400 of 1,000"),
        (lambda s: in_manifest(s, checkpoint_sha256="0" * 64), "different checkpoints"),
        (lambda s: in_manifest(s, target="cpu"), "measured on 'cpu'"),
        (lambda s: in_manifest(s, workload=records.Workload(batch=8)), "measured with batch 8"),
        (
            lambda s: in_manifest(
                s, environment=msgspec.structs.replace(of_manifest(s).environment, engine_version="1.22.0")
            ),
            "another machine, system or runtime",
        ),
        (lambda s: s._replace(manifest=make_manifest(of_search(s).evaluations[0])), "the winner of the search is"),
        (
            lambda s: s._replace(predictor=msgspec.structs.replace(s.predictor, target="cpu")),
            "The predictor is of device 'cpu'",
        ),
        (
            lambda s: s._replace(search=make_search(5, limit=1e-4), manifest=None),
            "No subnet met the budgets",
        ),
        (
            lambda s: in_manifest(s, latency=msgspec.structs.replace(of_manifest(s).latency, p99_s=1.0)),
            "The slowest calls take far longer",
        ),
        (
            lambda s: in_checkpoint(s, data=msgspec.structs.replace(s.checkpoint.data, sha256="0" * 64)),
            "made from different data",
        ),
    ],
)
def test_records_that_do_not_belong_together_are_a_warning(story: Story, change: object, words: str) -> None:
    (found,) = [sentence for sentence in warnings(change(story)) if words in sentence]  # type: ignore[operator]
    assert found.endswith(".")
    assert found in sentences_and_points(provenance(change(story)).blocks)  # type: ignore[operator]


def sentences_and_points(blocks: object) -> list[str]:
    return [text for block in cast("list[Block]", blocks) if isinstance(block, Points) for text in block.texts]


def test_the_quality_of_a_masked_language_model_is_named_so(story: Story) -> None:
    masked = msgspec.structs.replace(quality(0.4, "test"), metric="masked_accuracy")
    assert "masked accuracy 40.0 % on 1,000 test items" in sentences(headline(in_manifest(story, quality=masked)))
