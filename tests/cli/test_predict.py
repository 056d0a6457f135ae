"""predict as a user types it: one, many, a file of them; checking, importing and exporting tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_project import Made, call, journal_lines, refused, require


def test_a_file_of_architectures_is_predicted_line_by_line(made: Made, tmp_path: Path) -> None:
    lines = require(call(made.root, "sample", "--n", "5", "--seed", "3")).out
    listed = tmp_path / "some.jsonl"
    listed.write_text("\n" + lines)
    told = call(made.root, "predict", "--file", listed, "--json").data
    drawn = call(made.root, "predict", "--n", "5", "--seed", "3", "--json").data
    assert told["predictions"] == drawn["predictions"]
    assert len(told["predictions"]) == 5
    assert all(one["low_s"] < one["latency_s"] < one["high_s"] for one in told["predictions"])
    assert not any(one["extrapolated"] for one in told["predictions"])


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "holds no architecture"), ("{}\n", "line 1"), ('{"family": "bert", "axes": {}}\n', "'embedding'")],
)
def test_a_file_that_holds_none_is_refused(made: Made, tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "none.jsonl").write_text(content)
    refused(call(made.root, "predict", "--file", tmp_path / "none.jsonl"), 2, said)
    refused(call(made.root, "predict", "--file", tmp_path / "missing.jsonl"), 2, "missing.jsonl")


def test_blocks_add_up_to_what_they_explain(made: Made) -> None:
    told = call(made.root, "predict", "--n", "3", "--kind", "blocks", "--json").data
    assert told["kind"] == "blocks"
    for row, one in enumerate(told["predictions"]):
        parts = [seconds[row] for seconds in told["blocks"].values()]
        assert sum(parts) == pytest.approx(one["latency_s"])
        assert min(parts) >= 0
    assert told["blocks"].keys() == {"embedding", "layers", "head"}
    assert "layers" in require(call(made.root, "predict", "--n", "3", "--kind", "blocks")).out


@pytest.mark.parametrize("kind", ["linear", "log", "process"])
def test_a_kind_is_used_when_it_is_asked_for(made: Made, kind: str) -> None:
    before = (made.table / "predictor.json").read_bytes()
    told = call(made.root, "predict", "--arch", "smallest", "--kind", kind, "--json").data
    assert told["compared"].keys() == {kind}
    assert (made.table / "predictor.json").read_bytes() == before


def test_what_was_exported_comes_in_again_as_imported(project: Path, made: Made) -> None:
    require(call(project, "predict", "--export", "table.csv"))
    refused(
        call(project, "predict", "--import", "table.csv", "--device", "other", "--length", "16"), 2, "device", "quick"
    )
    text = (project / "table.csv").read_text().replace(",quick,", ",other,")
    (project / "table.csv").write_text(text)
    refused(call(project, "predict", "--import", "table.csv", "--device", "other"), 2, "--length")
    refused(call(project, "predict", "--import", "table.csv"), 2, "--device")
    told = call(project, "predict", "--import", "table.csv", "--device", "other", "--length", "16", "--json").data
    rows = len(journal_lines(made.table))
    assert told["added"] == rows >= 10
    again = call(project, "predict", "--import", "table.csv", "--device", "other", "--length", "16", "--json").data
    assert (again["added"], again["already"]) == (0, rows)
    own = call(project, "predict", "--device", "quick", "--n", "4", "--json").data
    other = call(project, "predict", "--device", "other", "--n", "4", "--json").data
    assert [one["latency_s"] for one in other["predictions"]] == pytest.approx(
        [one["latency_s"] for one in own["predictions"]]
    )
    assert "(imported)" in require(call(project, "predict", "--device", "other", "--n", "1")).out
    assert call(project, "predict", "--n", "1", "--json").data["device"] == "quick"  # what was measured comes first
    searched = require(call(project, "search", "--device", "other", "--evaluations", "5"))
    assert "imported" in searched.err


def test_milliseconds_that_were_seconds_are_asked_about(project: Path) -> None:
    require(call(project, "predict", "--export", "table.csv"))
    text = (project / "table.csv").read_text().replace(",quick,", ",other,").replace("latency_s", "latency_ms")
    (project / "table.csv").write_text(text)
    refused(call(project, "predict", "--import", "table.csv", "--device", "other", "--length", "16"), 2, "--unit s")
    assert not (project / "profiles" / "other").exists()


def test_a_table_is_looked_through(project: Path, made: Made) -> None:
    table = Path("profiles/quick") / made.table.name
    told = require(call(project, "predict", "--check", table))
    assert f"{len(journal_lines(made.table))} latencies, 0 left out" in told.out
    assert "too few to say anything of their order" in told.err
    refused(call(project, "predict", "--check", "runs"), 2, "no latency table")


def test_a_slow_stretch_is_named_and_left_out(project: Path) -> None:
    """A file of 60 latencies whose rows 20 to 34 were measured hot."""
    axes = json.loads(require(call(project, "sample", "--n", "1")).out)["axes"]
    drawn = [json.loads(line) for line in require(call(project, "sample", "--n", "60", "--seed", "1")).out.splitlines()]
    predicted = call(project, "predict", "--n", "60", "--seed", "1", "--json").data["predictions"]
    rows = []
    for number, (one, said) in enumerate(zip(drawn, predicted, strict=True)):
        noise = 1 + 0.01 * ((7 * number) % 5 - 2)
        slow = 1.4 if 20 <= number < 35 else 1.0
        rows.append(json.dumps({**one["axes"], "latency_s": said["latency_s"] * noise * slow}))
    assert axes.keys() <= json.loads(rows[0]).keys()
    (project / "hot.jsonl").write_text("\n".join(rows))
    told = call(project, "predict", "--check", "hot.jsonl", "--json").data
    (found,) = told["findings"]
    assert found["kind"] == "outlier-block"
    assert (found["first"], found["last"]) == (20, 34)
    assert found["ratio"] == pytest.approx(1.4, rel=0.05)
    assert (told["rows"], told["left_out"]) == (60, 15)
    assert "outlier block: rows 20 to 34" in require(call(project, "predict", "--check", "hot.jsonl")).out


def test_a_predictor_leans_on_another_device_until_told_not_to(project: Path) -> None:
    require(call(project, "predict", "--export", "table.csv"))
    (project / "table.csv").write_text((project / "table.csv").read_text().replace(",quick,", ",other,"))
    require(call(project, "predict", "--import", "table.csv", "--device", "other", "--length", "16"))
    told = require(call(project, "predict", "--device", "quick", "--n", "1", "--transfer", "other")).out
    assert "leaning on other" in told
    kept = call(project, "predict", "--device", "quick", "--n", "1", "--json").data
    assert kept["transfer"]["target"] == "other"
    assert kept["transfer"]["together"] <= kept["transfer"]["alone"]  # its own latencies: they cannot mislead
    none = call(project, "predict", "--device", "quick", "--n", "1", "--transfer", "none", "--json").data
    assert none["transfer"] is None
    refused(call(project, "predict", "--n", "1", "--transfer", "nobody"), 2, "nobody")
    refused(call(project, "predict", "--device", "quick", "--n", "1", "--transfer", "quick"), 2, "lean on itself")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--check", "x", "--import", "y"), "one thing at a time"),
        (("--n", "3", "--export", "t.csv"), "--n does not go with --export"),
        (("--n", "3", "--unit", "ms"), "--unit goes with --import or --check"),
        (("--space", "bert", "--n", "1"), "names no space"),
        (("--space", "bert/nothing", "--n", "1"), "nothing"),
        (("--space", "bert/tiny", "--run", "runs/words", "--n", "1"), "leave one of them out"),
        (("--import", "data.tsv", "--device", "d", "--length", "8"), "unknown kind of table"),
        (("--check", "data.tsv", "--column", "hidden"), "write it like"),
        (("--n", "1", "--length", "3"), "no latency table"),
        ((), "no architecture to predict"),
    ],
)
def test_what_makes_no_sense_is_refused(made: Made, arguments: tuple[str, ...], said: str) -> None:
    refused(call(made.root, "predict", *arguments), 2, said)


def test_a_space_needs_no_run(tmp_path: Path) -> None:
    """A table of a published file, and predictions from it, in an empty folder."""
    rows = [
        f"{embedding},{depth},{hidden},{heads},{ffn},{1e-3 * (1 + depth * hidden * (hidden + ffn) / 3e4)}"
        for embedding in (32, 128)
        for depth in (1, 3)
        for hidden in (16, 128)
        for heads in (1, 4)
        for ffn in (64, 512)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["embedding,depth,hidden,heads,ffn,latency_s", *rows]))
    named = ("--space", "bert/tiny")
    told = call(tmp_path, "predict", "--import", "t.csv", "--device", "board", "--length", "32", *named, "--json").data
    assert told["added"] == len(rows)
    answer = call(tmp_path, "predict", *named, "--n", "3", "--arch", "largest", "--json").data
    assert len(answer["predictions"]) == 4
    refused(call(tmp_path, "predict", *named, "--arch", "winner"), 2, "'winner'")
