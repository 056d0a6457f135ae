"""Questions at the edge of what can be answered: tables that tell little, texts too long, what must not be told."""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from fake_board import FakeBoard
from made_compiled import EXPORT, Translator, alone, encoders, hasty, translator
from made_project import CLASSIFY, DEVICE, Made, call, made, one_thread, project, refused, require, write_inputs
from made_runs import runs
from tokenizers import Tokenizer

from toolchain.journal import Journal
from toolchain.profiling import read_table
from toolchain.records import Measurement, Round, Timed

__all__ = ["encoders", "hasty", "made", "one_thread", "project", "runs", "translator"]
pytestmark = pytest.mark.usefixtures("hasty")

# -- tables that tell little -------------------------------------------------------------------------------------------

Rows = list[Measurement]


@pytest.fixture
def table(project: Path, made: Made) -> Path:
    return project / made.table.relative_to(made.root)


def rewrite(table: Path, change: Callable[[Rows], Rows]) -> None:
    """Change a table's rows and keep its header; the predictor that was fitted on the others goes."""
    _, rows = read_table(table)
    (table / "journal.jsonl").unlink()
    (table / "predictor.json").unlink()
    with Journal(table / "journal.jsonl", Measurement) as journal:
        for row in change(rows):
            journal.append(row)


def asked(project: Path) -> dict[str, tuple[str, ...]]:
    """Every command that reads a table."""
    return {
        "predict": ("predict", "--n", "2", "--seed", "1"),
        "search": ("search", "--latency", "10s", "--evaluations", "3", "--remeasure", "0", "--fresh"),
        "report": ("report", "-o", str(project / "page.html")),
        "check": ("predict", "--check", str(next(project.glob("profiles/quick/*")))),
    }


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(0, marks=pytest.mark.fault("table-empty"), id="none"),
        pytest.param(1, marks=pytest.mark.fault("table-one"), id="one"),
    ],
)
def test_too_few_rows_are_told_and_more_are_measured(project: Path, table: Path, count: int) -> None:
    rewrite(table, lambda rows: rows[:count])
    for name, command in asked(project).items():
        if name == "report":
            require(call(project, *command))
        else:
            refused(call(project, *command), 2, "holds no latency" if not count else "too few")
    kept = (table / "journal.jsonl").read_bytes()
    done = call(project, "profile", "--device", "quick", "--n", "9", "--json").data
    assert (done["measured_now"], done["timed"]) == (9 - count, 9)
    assert (table / "journal.jsonl").read_bytes().startswith(kept)
    require(call(project, "predict", "--n", "2"))


def _flagged(rows: Rows) -> Rows:
    """All of them in doubt, and nothing else about them changed."""
    return [
        msgspec.structs.replace(row, outcome=msgspec.structs.replace(row.outcome, flags=("unstable", "not-steady")))
        for row in rows
        if isinstance(row.outcome, Timed)
    ]


@pytest.mark.fault("table-flagged")
def test_a_table_of_doubtful_rows_is_used_and_called_that(project: Path, table: Path) -> None:
    rewrite(table, _flagged)
    for name, command in asked(project).items():
        told = require(call(project, *command))
        if name == "report":
            assert "unstable" in (project / "page.html").read_text()
    told = call(project, "profile", "--device", "quick", "--n", "10", "--json").envelope
    assert told["data"]["measured_now"] == 0
    assert any("unstable" in warning or "doubt" in warning for warning in told["warnings"]), told["warnings"]
    before = (table / "journal.jsonl").read_bytes()
    refused(call(project, "profile", "--device", "quick", "--n", "10", "--strict"), 6)
    assert (table / "journal.jsonl").read_bytes() == before


def _constant(rows: Rows) -> Rows:
    """Every call of every subnet took 1 ms, and so did the reference's."""
    turn = Round(
        wall_s=(1e-3,) * 4,
        cpu_s=(1e-3,) * 4,
        delay_s=(0.0,) * 4,
        reference_wall_s=1e-3,
        reference_cpu_s=1e-3,
        reference_fastest_s=1e-3,
    )
    timed = Timed(rounds=(turn,) * 5, session_s=0.1, first_run_s=0.1)
    return [msgspec.structs.replace(row, outcome=timed) for row in rows]


@pytest.mark.fault("table-constant")
def test_a_table_of_one_latency_is_not_believed(project: Path, table: Path) -> None:
    rewrite(table, _constant)
    for name, command in asked(project).items():
        if name == "report":
            require(call(project, *command))
        else:
            refused(call(project, *command), 2, "latency_s is constant", "--fresh")
    kept = (table / "journal.jsonl").read_bytes()
    refused(call(project, "profile", "--device", "quick", "--n", "10"), 2, "latency_s is constant", "--fresh")
    assert (table / "journal.jsonl").read_bytes() == kept


# -- tables of something else ------------------------------------------------------------------------------------------


@pytest.mark.fault("table-length")
def test_a_table_of_one_length_answers_for_no_other(project: Path, table: Path) -> None:
    before = (table / "journal.jsonl").read_bytes()
    refused(call(project, "predict", "--n", "1", "--length", "8"), 2, "no latency table", "8 tokens", "mostool profile")
    rewrite_header = json.loads((table / "table.json").read_text())
    rewrite_header["workload"]["sequence_length"] = 8
    (table / "table.json").write_text(json.dumps(rewrite_header))
    refused(call(project, "search", "--latency", "1s"), 5)
    refused(call(project, "profile", "--device", "quick", "--n", "11"), 4, "workload", "--fresh")
    assert (table / "journal.jsonl").read_bytes() == before


@pytest.mark.fault("table-device", "table-precision", "table-threads")
@pytest.mark.parametrize(
    ("field", "value", "code"),
    [("target", "other", (2, 4, 5)), ("precision", "int8", (4, 5)), ("threads", 2, (4, 5))],
)
def test_a_table_that_says_it_is_of_something_else_is_not_used(
    project: Path, table: Path, field: str, value: object, code: tuple[int, ...]
) -> None:
    before = (table / "journal.jsonl").read_bytes()
    header = json.loads((table / "table.json").read_text())
    (table / "table.json").write_text(json.dumps(header | {field: value}))
    (table / "predictor.json").unlink()
    for command in (
        ("search", "--latency", "1s", "--device", "quick"),
        ("predict", "--n", "1", "--device", "quick"),
        ("profile", "--device", "quick", "--n", "11"),
    ):
        told = call(project, *command)
        refused(told, told.code)
        assert told.code in code, (command, told)
    assert (table / "journal.jsonl").read_bytes() == before


@pytest.mark.fault("far-outside")
def test_what_is_far_from_all_that_was_measured_is_called_that(project: Path) -> None:
    """A table of another device with shallow and narrow subnets alone."""
    lines = require(call(project, "sample", "--n", "80", "--seed", "4")).out.splitlines()
    small = []
    for line in lines:
        axes = json.loads(line)["axes"]
        if axes["depth"] == 1 and axes["ffn"][0] <= 32 and axes["hidden"][0] <= 16:
            work = axes["hidden"][0] * axes["ffn"][0] + axes["embedding"] + 5 * axes["heads"][0]
            small.append(json.dumps({**axes, "latency_s": 1e-3 + 1e-7 * work}))
    assert len(set(small)) >= 9
    (project / "small.jsonl").write_text("\n".join(dict.fromkeys(small)))
    require(call(project, "predict", "--import", "small.jsonl", "--device", "other", "--length", "16"))
    told = call(project, "predict", "--device", "other", "--arch", "largest", "--json").data["predictions"][0]
    assert told["extrapolated"] is True
    assert told["low_s"] < told["latency_s"] < told["high_s"]
    assert "extrapolated" in require(call(project, "predict", "--device", "other", "--arch", "largest")).out
    found = call(project, "search", "--device", "other", "--latency", "1s", "--evaluations", "5", "--json")
    assert found.data["winner"]["costs"]["latency_s@other"]["source"] != "measured"


# -- texts -------------------------------------------------------------------------------------------------------------


def of_length(tokenizer: Tokenizer, count: int) -> str:
    """A text of so many tokens, special ones included."""
    word = next(word for word in ("the", "a", "sea", "ba", "b") if _adds_one(tokenizer, word))
    text = " ".join([word] * (count - len(tokenizer.encode("").ids)))
    assert len(tokenizer.encode(text).ids) == count
    return text


def _adds_one(tokenizer: Tokenizer, word: str) -> bool:
    lengths = [len(tokenizer.encode(" ".join([word] * count)).ids) for count in range(4)]
    return lengths == list(range(lengths[0], lengths[0] + 4))


@pytest.fixture(scope="module")
def bundles(encoders: Path, translator: Translator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    encoder = tmp_path_factory.mktemp("asked") / "encoder"
    require(call(encoders, *EXPORT, "--out", encoder))
    return {"encoder": encoder, "translator": translator.bundle}


@pytest.mark.parametrize("kind", ["encoder", "translator"])
@pytest.mark.parametrize(
    "which",
    [
        pytest.param("empty", marks=pytest.mark.fault("no-sentence")),
        pytest.param("unknown", marks=pytest.mark.fault("unknown-token")),
        pytest.param("shortest", marks=pytest.mark.fault("length-1")),
        pytest.param("longest", marks=pytest.mark.fault("length-most")),
        pytest.param("longer", marks=pytest.mark.fault("length-more")),
    ],
)
def test_a_bundle_answers_a_text_of_any_length(bundles: dict[str, Path], kind: str, which: str) -> None:
    bundle = bundles[kind]
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    most = json.loads((bundle / "manifest.json").read_text())["maximum_length"]
    least = len(tokenizer.encode("").ids)
    text = {
        "empty": lambda: "",
        "unknown": lambda: "\U0001f40c\u6f22",
        "shortest": lambda: of_length(tokenizer, least + 1),
        "longest": lambda: of_length(tokenizer, most),
        "longer": lambda: of_length(tokenizer, most + 1),
    }[which]()
    printed = alone(bundle, text, text).splitlines()
    half = len(printed) // 2
    assert printed[0] == printed[half] == text
    assert printed[:half] == printed[half:]
    if which == "longer":
        shown = alone(bundle, of_length(tokenizer, most)).splitlines()
        assert len(shown) == half


@pytest.mark.fault("length-1", "length-most", "length-more")
@pytest.mark.parametrize("length", [1, 16, 17])
def test_a_workload_of_any_length_is_measured_or_refused(project: Path, length: int) -> None:
    """16 is what this model takes at the most."""
    before = set(project.rglob("*"))
    told = call(project, *EXPORT, "--length", str(length), "--out", "new", "--json")
    if length <= 16:
        assert told.data["manifest"]["workload"]["sequence_length"] == length
        require(call(project, "verify", "new", "--no-speed"))
        return
    assert (told.error["code"], told.error["kind"]) == (2, "usage")
    refused(call(project, *EXPORT, "--length", "17", "--out", "new"), 2, "16")
    refused(call(project, "profile", "--device", "quick", "--length", "17"), 2, "16")
    refused(call(project, "predict", "--n", "1", "--length", "17"), 2)
    assert set(project.rglob("*")) == before


# -- what must not be told ---------------------------------------------------------------------------------------------

SECRETS = {
    "HF_TOKEN": "hf_qx7planted7token",
    "WANDB_API_KEY": "wandb9planted9key",
    "AWS_SECRET_ACCESS_KEY": "aws5planted5secret",
    "USER": "planteduser",
    "LOGNAME": "planteduser",
}
BOARD = f"""\
{DEVICE.replace('"quick"', '"board"')}
[connection]
kind = "ssh"
host = "plantedalias"
user = "plantedlogin"
python = "{{python}}"
"""


@pytest.mark.fault("secrets")
def test_secrets_and_names_of_machines_are_in_nothing_that_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole path, on a board behind an alias, from a home folder, with tokens set: then every byte is looked at."""
    home = tmp_path / "plantedhome"
    root = write_inputs(home / "project")
    board = FakeBoard(tmp_path / "board")
    monkeypatch.setenv("PATH", f"{board.bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(socket, "gethostname", lambda: "plantedhost")
    monkeypatch.setattr(platform, "node", lambda: "plantedhost")
    board.know(root, "plantedalias")
    (root / "targets" / "board.toml").write_text(BOARD.format(python=sys.executable))
    variables = SECRETS | {"HOME": str(home)}

    def done(*arguments: str) -> str:
        return require(call(root, *arguments, "--json", variables=variables)).out

    data = ("train", "--data", str(root / "data.tsv"), *CLASSIFY[3:])
    told = done(*data)
    told += done("profile", "--device", "board", "--n", "9")
    told += done("search", "--latency", "1s", "--evaluations", "3", "--remeasure", "0")
    told += done("export", "--device", "board")
    (bundle,) = (root / "bundles").iterdir()
    told += done("verify", f"bundles/{bundle.name}", "--no-speed")
    told += done("predict", "--n", "2") + done("sample", "--n", "2")
    done("report", "-o", "page.html")
    made = [path for name in ("bundles", "profiles", "runs", "page.html") for path in (root / name).rglob("*")]
    written = {path: path.read_bytes() for path in [*made, root / "page.html"] if path.is_file()}
    assert any(path.name == "journal.jsonl" for path in written)
    planted = re.compile(rb"planted|" + re.escape(str(tmp_path).encode()))
    found = {str(path.relative_to(root)): planted.findall(content) for path, content in written.items()}
    assert {path: words for path, words in found.items() if words} == {}
    assert planted.findall(told.encode()) == []
