"""A file of latencies: read as what it says where it is sound, refused by file, row and field where it is not."""

from __future__ import annotations

import gzip
import json
import re
import statistics
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.space import Axis, SearchSpace
from toolchain.supernet.families import declaration
from toolchain.tables import opening, read_file, to_axis_arrays

from .made_tables import (
    EXPECTED,
    HAT_NAMES,
    HAT_ROWS,
    HAT_SPACE,
    NAMES,
    ROWS,
    SPACE,
    pairs,
    read_or_refusal,
    refusal,
    sheet,
    write,
)


def approx(rows: list[tuple[dict[str, object], float]]) -> list[tuple[dict[str, object], object]]:
    return [(axes, pytest.approx(latency)) for axes, latency in rows]


# -- forms -----------------------------------------------------------------------------------------------------------

JSON_AXES = [{name: value for name, value in axes.items() if name != "heads"} for axes, _ in EXPECTED]
FORMS = {
    "csv": ("table.csv", sheet()),
    "gzipped": ("table.csv.gz", gzip.compress(sheet().encode())),
    "byte order mark": ("table.csv", b"\xef\xbb\xbf" + sheet().encode()),
    "windows": ("TABLE.CSV", sheet().replace("\n", "\r\n")),
    "blank lines and spaces": ("table.csv", sheet().replace("\n", "\n\n").replace(",", " , ")),
    "dots": ("table.csv", sheet(NAMES.replace("_1", ".1").replace("_2", ".2").replace("_3", ".3"))),
    "bare numbers": ("table.csv", sheet("embedding,depth,hidden1,hidden2,hidden3,latency_ms")),
    "layers in any order": (
        "table.csv",
        "hidden_3,hidden_1,latency_ms,depth,hidden_2,embedding\n,8,2.5,1,,16\n24,8,7.25,3,16,32\n,16,5,2,16,32\n",
    ),
    "no depth": (
        "table.csv",
        "embedding,hidden_1,hidden_2,hidden_3,latency_ms\n16,8,,,2.5\n32,8,16,24,7.25\n32,16,16,,5\n",
    ),
    "json lists": (
        "table.jsonl",
        "\n".join(
            json.dumps(axes | {"latency_us": us}) for axes, us in zip(JSON_AXES, (2500, 7250, 5000), strict=True)
        ),
    ),
    "as sample prints": (
        "table.ndjson",
        "\n".join(
            json.dumps({"latency_s": s, "family": "bert", "axes": axes})
            for axes, s in zip(JSON_AXES, (0.0025, 0.00725, 0.005), strict=True)
        ),
    ),
    "as sample --json prints": (
        "table.jsonl.gz",
        gzip.compress(
            "\n".join(
                json.dumps({"id": str(s), "architecture": {"family": "bert", "axes": axes}, "latency_s": s})
                for axes, s in zip(JSON_AXES, (0.0025, 0.00725, 0.005), strict=True)
            ).encode()
        ),
    ),
    "json lists without a depth": (
        "table.jsonl",
        "\n".join(
            json.dumps({name: value for name, value in axes.items() if name != "depth"} | {"latency_ms": ms})
            for axes, ms in zip(JSON_AXES, (2.5, 7.25, 5), strict=True)
        ),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_table_reads_as_the_same(form: str, tmp_path: Path) -> None:
    name, content = FORMS[form]
    read = read_file(write(tmp_path, content, name), SPACE)
    assert pairs(read.rows) == approx(EXPECTED)
    assert read.form == ("csv" if "csv" in name.lower() else "jsonl")
    assert read.columns["hidden"] == "hidden"


def test_one_column_stands_for_all_layers(tmp_path: Path) -> None:
    read = read_file(write(tmp_path, "embedding,depth,hidden,latency_s\n16,1,8,0.1\n32,3,12.5,0.2\n"), SPACE)
    assert [row.axes["hidden"] for row in read.rows] == [(8.0,), (12.5, 12.5, 12.5)]
    assert any("1 of 2 rows hold values between" in note for note in read.notes)
    assert any("heads" in note for note in read.notes)


def test_columns_of_another_name_are_mapped(tmp_path: Path) -> None:
    path = write(tmp_path, "e,d,h1,h2,h3,took,latency_ms\n16,1,8,,,2.5,1\n32,2,8,8,,5,2\n")
    columns = {"embedding": "e", "depth": "d", "hidden": "h", "latency_ms": "took"}
    read = read_file(path, SPACE, columns=columns)
    assert [row.latency_s for row in read.rows] == pytest.approx([0.0025, 0.005])
    assert read.columns == {"embedding": "e", "depth": "d", "hidden": "h", "latency": "took"}
    assert any("not read: latency_ms" in note for note in read.notes)
    columns["latency"] = columns.pop("latency_ms")
    assert read_file(path, SPACE, unit="ms", columns=columns).rows == read.rows


def test_the_unit_that_is_given_counts_more_than_the_name(tmp_path: Path) -> None:
    path = write(tmp_path, sheet())
    assert [row.latency_s for row in read_file(path, SPACE, unit="s").rows] == [2.5, 7.25, 5]
    assert read_file(path, SPACE).unit == "ms"
    plain = write(tmp_path, sheet(NAMES.replace("latency_ms", "latency")), "plain.csv")
    assert read_file(plain, SPACE, unit="us").rows[0].latency_s == pytest.approx(2.5e-6)
    assert "which unit" in refusal(plain).what


def test_spreads_are_read_where_they_are_told(tmp_path: Path) -> None:
    read = read_file(write(tmp_path, "embedding,depth,hidden,latency_ms,spread_ms\n16,1,8,1,0.5\n16,1,8,2,\n"), SPACE)
    assert [row.spread_s for row in read.rows] == [pytest.approx(0.0005), None]
    negative = write(tmp_path, "embedding,depth,hidden,latency_ms,spread_ms\n16,1,8,1,0.5\n16,1,8,2,-1\n")
    assert "row 2: spread_ms is -1" in refusal(negative).what


def test_what_all_rows_share_is_told(tmp_path: Path) -> None:
    names = f"{NAMES},target,precision,threads,batch,sequence_length"
    path = write(tmp_path, sheet(names, tuple(f"{row},pi,fp32,4,1,{30.0}" for row in ROWS)))
    read = read_file(path, SPACE)
    assert read.told == {"device": "pi", "precision": "fp32", "threads": "4", "batch": "1", "sequence_length": "30"}
    assert not any("not read" in note for note in read.notes)


# -- HAT -------------------------------------------------------------------------------------------------------------


def test_hats_tables_are_known_by_their_header(tmp_path: Path) -> None:
    read = read_file(write(tmp_path, sheet(HAT_NAMES, HAT_ROWS)), HAT_SPACE)
    assert (read.form, read.unit) == ("hat", "ms")
    first = read.rows[0]
    assert first.latency_s == pytest.approx(7.92265)
    assert first.spread_s == pytest.approx(0.005)
    assert first.axes == {
        "encoder_embedding": 512,
        "decoder_embedding": 640,
        "encoder_depth": 6,
        "decoder_depth": 3,
        "encoder_ffn": (1877.33,) * 6,
        "encoder_heads": (6,) * 6,
        "decoder_ffn": (1706.67,) * 3,
        "decoder_heads": (6,) * 3,
        "cross_heads": (2.66667,) * 3,
        "cross_layers": (1.33333,) * 3,
    }
    assert read.columns["cross_layers"] == "decoder_arbitrary_ende_attn_avg"
    assert read.columns["latency"] == "latency_mean_encoder + latency_mean_decoder"


def test_hats_tables_need_a_translation_space_that_holds_them(tmp_path: Path) -> None:
    path = write(tmp_path, sheet(HAT_NAMES, HAT_ROWS))
    assert "HAT's networks translate" in refusal(path).what
    error = refusal(path, declaration("translation").SPACES["tiny"])
    assert "row 1: encoder_embedding is 512" in error.what


@pytest.mark.shared
@pytest.mark.parametrize("name", ["cpu_raspberrypi", "cpu_xeon", "gpu_titanxp"])
def test_hats_published_tables(shared: Path, name: str) -> None:
    start = time.perf_counter()
    read = read_file(shared / "hat_latency" / f"wmt14ende_{name}.csv.gz", HAT_SPACE)
    assert time.perf_counter() - start < 5  # a fifth of a second on an idle machine
    median_s = {"cpu_raspberrypi": 5.781, "cpu_xeon": 0.271, "gpu_titanxp": 0.174}[name]  # its README.md
    assert len(read.rows) == 2000
    assert statistics.median(row.latency_s for row in read.rows) == pytest.approx(median_s, rel=0.005)
    arrays = to_axis_arrays(HAT_SPACE, read.rows)
    assert arrays["encoder_ffn"].shape == (2000, 6)
    assert np.all((arrays["cross_layers"] > 0).sum(axis=1) == arrays["decoder_depth"])


@pytest.mark.shared
@pytest.mark.parametrize("name", ["corei7_9thgen_bs128", "gcp_xeon_2core_bs1", "k80_bs128"])
def test_supershapers_published_tables(shared: Path, name: str) -> None:
    space = declaration("bert").SPACES["supershaper"]
    path = shared / "mos_bert_latency" / f"{name}.csv.gz"
    read = read_file(path, space, columns={"hidden": "h"})
    assert len(read.rows) == {"corei7_9thgen_bs128": 950, "gcp_xeon_2core_bs1": 2996, "k80_bs128": 1000}[name]
    assert read.rows[0].axes["hidden"] == (120.0,) * 12
    error = refusal(path, space)
    assert "axis 'hidden'" in error.what
    assert "h1, h2" in error.why


# -- refusals --------------------------------------------------------------------------------------------------------

SHORT = "embedding,depth,hidden,latency_ms"
REFUSED = {
    "empty": ("", "is empty"),
    "only a byte order mark": (b"\xef\xbb\xbf", "no row beside the header"),
    "header only": (sheet(rows=()), "no row beside the header"),
    "one row": (sheet(rows=ROWS[:1]), "a single row"),
    "constant": (f"{SHORT}\n16,1,8,2\n16,1,16,2\n", "all latencies are the same"),
    "nan": (f"{SHORT}\n16,1,8,2\n16,1,16,nan\n", "row 2: latency_ms is 'nan', no finite"),
    "inf": (f"{SHORT}\n16,1,8,inf\n16,1,16,2\n", "row 1: latency_ms is 'inf', no finite"),
    "huge": (f"{SHORT}\n16,1,8,1e999\n16,1,16,2\n", "row 1: latency_ms is '1e999', no finite"),
    "negative": (f"{SHORT}\n16,1,8,2\n16,1,16,-2\n", "row 2: latency_ms is -2"),
    "zero": (f"{SHORT}\n16,1,8,0\n16,1,16,2\n", "row 1: latency_ms is 0"),
    "no latency in a row": (f"{SHORT}\n16,1,8,\n16,1,16,2\n", "row 1: latency_ms is empty"),
    "text": (f"{SHORT}\n16,1,8,fast\n16,1,16,2\n", "row 1: latency_ms is 'fast', not a number"),
    "text in an axis": (f"{SHORT}\n16,1,8,1\n16,one,16,2\n", "row 2: depth is 'one', not a number"),
    "python's own numbers": (f"{SHORT}\n1_6,1,8,1\n16,1,16,2\n", "row 1: embedding is '1_6'"),
    "other digits": (f"{SHORT}\n١٦,1,8,1\n16,1,16,2\n", "row 1: embedding is '١٦'"),
    "too long a time": (
        f"{SHORT}\n16,1,8,1\n16,1,16,2\n16,1,16,1e30\n",
        "row 3: latency_ms makes a latency of 1e+27 s",
    ),
    "missing axis": ("depth,hidden,latency_ms\n1,8,1\n1,16,2\n", "no column tells the axis 'embedding'"),
    "missing depth": ("embedding,hidden,latency_ms\n16,8,1\n16,16,2\n", "no column tells the axis 'depth'"),
    "empty axis": (f"{SHORT}\n16,1,,1\n16,1,16,2\n", "row 1: hidden is empty"),
    "ragged": (f"{SHORT}\n16,1,8,2\n16,1,16\n", "row 2: 3 cells under 4 names"),
    "too wide": (f"{SHORT}\n16,1,8,2,9\n16,1,16,3\n", "row 1: 5 cells under 4 names"),
    "twice": (f"{SHORT},depth\n16,1,8,2,1\n16,1,16,3,1\n", "two columns are called 'depth'"),
    "layer twice": ("embedding,hidden_1,hidden1,latency_s\n16,8,8,1\n16,8,8,2\n", "both tell layer 1 of 'hidden'"),
    "axis twice": ("embedding,depth,hidden,hidden_1,latency_s\n16,1,8,8,1\n16,1,8,8,2\n", "both tell 'hidden'"),
    "from zero": ("embedding,hidden_0,hidden_1,latency_s\n16,8,8,1\n16,8,8,2\n", "'hidden' are numbered 0, 1"),
    "a gap": ("embedding,hidden_1,hidden_3,latency_s\n16,8,8,1\n16,8,8,2\n", "'hidden' are numbered 1, 3"),
    "no latency column": ("embedding,depth,hidden\n16,1,8\n16,1,16\n", "no latency column"),
    "two latency columns": (f"{SHORT},latency_s\n16,1,8,2,1\n16,1,16,3,1\n", "latency_s and latency_ms are two"),
    "too small a value": (f"{SHORT}\n16,1,1,1\n16,1,16,2\n", "row 1: hidden is 1, the space 'small' has 8 to 24"),
    "too large a value": (
        f"{SHORT}\n16,1,8,1\n999,1,16,2\n",
        "row 2: embedding is 999, the space 'small' has 16 to 32",
    ),
    "half a layer": (f"{SHORT}\n16,1.5,8,1\n16,1,16,2\n", "row 1: depth is 1.5, no whole number"),
    "too deep": (f"{SHORT}\n16,1000000000,8,1\n16,1,16,2\n", "row 1: depth is 1e+09, the space"),
    "a layer too many": (sheet(rows=(*ROWS[:2], "16,1,8,8,,1")), "row 3: hidden has 2 values for 1 layers"),
    "a layer too few": (sheet(rows=(*ROWS[:2], "16,3,8,8,,1")), "row 3: hidden has 2 values for 3 layers"),
    "a hole": (sheet(rows=(*ROWS[:2], "16,3,8,,8,1")), "row 3: hidden_2 is empty, and a later layer is not"),
    "no layer": ("embedding,hidden_1,latency_s\n16,8,1\n16,,2\n", "row 2: depth is 0"),
    "other family": (f"{SHORT},family\n16,1,8,1,bert\n16,1,8,2,gpt\n", "row 2: the network is of family 'gpt'"),
    "other device in a row": (f"{SHORT},device\n16,1,8,1,a\n16,1,8,2,b\n", "device is not the same in all rows"),
    "other threads in a row": (f"{SHORT},threads\n16,1,8,1,1\n16,1,8,2,4\n", "threads is not the same in all rows"),
    "two devices": (f"{SHORT},device,target\n16,1,8,1,a,b\n16,1,8,2,a,b\n", "device and target differ"),
    "half a thread": (f"{SHORT},threads\n16,1,8,1,1.5\n16,1,8,2,1.5\n", "row 1: threads is 1.5"),
    "semicolons": ("embedding;depth;latency_ms\n16;1;2\n16;2;3\n", "not parted by commas"),
    "open quote": (f'{SHORT}\n16,1,8,"1\n', "is not CSV"),
    "a NUL": (f"{SHORT}\n16,1,8\0,1\n16,1,8,2\n", ""),
    "latin-1": (f"{SHORT},device\n16,1,8,1,caf\xe9\n".encode("latin-1"), "is not UTF-8"),
    "gzip by another name": (gzip.compress(sheet().encode()), "is not UTF-8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_csv_that_is_no_table_is_refused_by_row_and_field(case: str, tmp_path: Path) -> None:
    content, said = REFUSED[case]
    assert said in refusal(write(tmp_path, content)).what


def test_values_somewhat_beyond_the_space_count_and_are_told(tmp_path: Path) -> None:
    """What an embedding of 40 takes tells of one of 32 too."""
    read = read_file(write(tmp_path, f"{SHORT}\n16,1,8,1\n40,1,16,2\n"), SPACE)
    assert read.rows[1].axes["embedding"] == 40
    assert any("1 of 2 rows hold values beyond the space" in note for note in read.notes)


ROW = {"embedding": 16, "depth": 1, "hidden": [8], "latency_ms": 1}
REFUSED_JSON = {
    "empty": ("\n\n", "is empty"),
    "one row": ([ROW], "a single row"),
    "no JSON": ("{]\n", "row 1 is not JSON"),
    "no object": ("[1]\n[2]\n", "row 1 is no JSON object"),
    "NaN": (json.dumps(ROW | {"latency_ms": float("nan")}), "row 1 is not JSON"),
    "text in a number": ([ROW, ROW | {"latency_ms": "2"}], "row 2: latency_ms is '2', not a number"),
    "true": ([ROW, ROW | {"embedding": True}], "row 2: embedding is True, not a number"),
    "beyond floats": (json.dumps(ROW) + "\n" + json.dumps(ROW | {"embedding": 10**400}), "row 2: embedding is 1000"),
    "null": ([ROW, ROW | {"latency_ms": None}], "row 2: latency_ms is empty"),
    "missing in a row": ([ROW, {"depth": 1}], "row 2: 'embedding' is not in every row"),
    "list for a number": ([ROW, ROW | {"embedding": [16]}], "row 2: embedding is a list"),
    "list in a list": ([ROW, ROW | {"hidden": [[8]]}], "row 2: hidden[0] is [8], not a number"),
    "too long a list": ([ROW, ROW | {"hidden": [8, 8]}], "row 2: hidden has 2 values for 1 layers"),
    "twice": ('{"depth": 1, "depth": 2}\n', "row 1: 'depth' is there twice"),
    "in and out": ([ROW | {"axes": {"depth": 1}}] * 2, "row 1: 'depth' is there twice, once in 'axes'"),
    "other family": ([{**ROW, "family": "gpt"}] * 2, "row 1: the network is of family 'gpt'"),
    "a list of devices": ([ROW | {"device": ["a"]}] * 2, "row 1: device is ['a'], not a name"),
    "depth untold": (
        [{"embedding": 16, "hidden": 8, "latency_ms": ms} for ms in (1, 2)],
        "row 1: nothing tells the axis 'depth'",
    ),
    "deep": ("[" * 100_000, "row 1 is not JSON"),
}


@pytest.mark.parametrize("case", REFUSED_JSON)
def test_json_lines_that_are_no_table_are_refused_by_row_and_field(case: str, tmp_path: Path) -> None:
    content, said = REFUSED_JSON[case]
    text = content if isinstance(content, str) else "\n".join(map(json.dumps, content))
    assert said in refusal(write(tmp_path, text, "table.jsonl")).what


def test_files_that_are_none_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "unknown kind of table" in refusal(write(tmp_path, sheet(), "table.xlsx")).what
    assert "unknown kind of table" in refusal(write(tmp_path, sheet(), "table.gz")).what
    assert "unknown kind of table" in refusal(write(tmp_path, sheet(), "table.parquet.gz")).what
    assert "there is no file" in refusal(tmp_path / "absent.csv").what
    assert "there is no file" in refusal(tmp_path.with_suffix(".csv")).what
    assert "no whole gzip file" in refusal(write(tmp_path, sheet(), "plain.csv.gz")).what
    cut = gzip.compress(sheet().encode())[:-12]
    assert "no whole gzip file" in refusal(write(tmp_path, cut, "cut.csv.gz")).what
    assert "no Parquet file" in refusal(write(tmp_path, sheet(), "table.parquet")).what
    monkeypatch.setattr(opening, "LARGEST_BYTES", 1000)
    assert "too large" in refusal(write(tmp_path, sheet(rows=ROWS * 100))).what
    bomb = write(tmp_path, gzip.compress(sheet(rows=ROWS * 100).encode()), "bomb.csv.gz")
    assert bomb.stat().st_size < 1000
    assert "too large" in refusal(bomb).what


def test_what_a_file_says_cannot_steer_a_terminal(tmp_path: Path) -> None:
    rows = [{"embedding": 16, "hidden": [8], "depth": 1, "\x1b[2J\ud800": 1, "device": "\x1b[0m\ud800"}] * 2
    content = "\n".join(json.dumps(row | {"latency_s": 0.1 * n}) for n, row in enumerate(rows, start=1))
    read = read_file(write(tmp_path, content, "table.jsonl"), SPACE)
    assert read.told == {"device": r"\x1b[0m\ud800"}
    assert any(note.endswith(r"not read: \x1b[2J\ud800") for note in read.notes)
    error = refusal(write(tmp_path, content.replace("latency_s", "took"), "table.jsonl"))
    assert (error.what + error.why).isprintable()


def test_mappings_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, sheet())
    assert "unknown axis" in refusal(path, columns={"hiden": "h"}).what
    assert "there is no column 'h'" in refusal(path, columns={"hidden": "h"}).what
    assert "there is no column 'took'" in refusal(path, columns={"latency_s": "took"}).what
    assert "cannot tell both" in refusal(path, columns={"depth": "embedding"}).what
    assert "cannot be an axis and the latency" in refusal(path, columns={"latency_s": "embedding"}).what
    assert "two latencies" in refusal(path, columns={"latency_s": "latency_ms", "latency_ms": "latency_ms"}).what


def test_an_axis_whose_name_ends_in_a_number_is_not_taken_for_a_layer(tmp_path: Path) -> None:
    space = SearchSpace(
        "odd",
        "bert",
        (*SPACE.axes[1:3], Axis("hidden1", (1, 2)), Axis("hidden_2", (1, 2))),
    )
    path = write(tmp_path, "depth,hidden,hidden1,hidden_2,latency_s\n1,8,1,2,1\n2,16,2,1,2\n")
    assert read_file(path, space).rows[1].axes == {"depth": 2, "hidden": (16, 16), "hidden1": 2, "hidden_2": 1}


@pytest.mark.parametrize("scale", [1e-6, 1e8])
def test_no_pass_takes_so_little_or_so_long(scale: float, tmp_path: Path) -> None:
    latencies = [f"{scale * value:g}" for value in (1.0, 2.0, 3.0)]
    path = write(tmp_path, sheet(SHORT, tuple(f"16,1,8,{latency}" for latency in latencies)))
    error = refusal(path)
    assert re.search("can .* be milliseconds", error.what)
    assert ("--unit s" if scale < 1 else "--unit us") in error.hint
    assert read_file(path, SPACE, unit="ms").rows  # said, so believed


# -- anything --------------------------------------------------------------------------------------------------------

CELLS = st.sampled_from(["1", "2", "8", "16", "0", "", "nan", "-1", "1e9", '"', "x", "\0", "é", "1.5", "[8]"])
TABLES = st.lists(st.lists(CELLS, min_size=4, max_size=5).map(",".join), max_size=4).map(
    lambda rows: "\n".join([SHORT, *rows]).encode()
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    st.lists,
    max_leaves=4,
)
LINES = st.lists(
    st.fixed_dictionaries({name: VALUES | st.sampled_from([1, 8, 16, [8]]) for name in ROW}).map(json.dumps), max_size=3
).map(lambda lines: "\n".join(lines).encode())
NAMED = st.sampled_from(["t.csv", "t.jsonl", "t.ndjson", "t.csv.gz", "t.jsonl.gz", "t.parquet", "t.txt"])


@given(content=st.binary(max_size=200) | TABLES | LINES, name=NAMED, packed=st.booleans())
def test_whatever_a_file_holds_it_is_a_table_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str, packed: bool
) -> None:
    path = write(tmp_path_factory.getbasetemp(), gzip.compress(content) if packed else content, name)
    read = read_or_refusal(path)
    if read is not None:
        assert len(read.rows) > 1
        assert all(row.latency_s > 0 for row in read.rows)
