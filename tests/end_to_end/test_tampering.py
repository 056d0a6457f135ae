"""Files that are not what they say they are: exit code 5, nothing of theirs is run, nothing of ours is lost."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from made_project import Made, call, copied, journal_lines, measured_ids, refused, require, rewritten

from toolchain.journal import Journal
from toolchain.profiling import read_table
from toolchain.records import Measurement, write_record


@pytest.fixture
def bundle(made: Made, tmp_path: Path) -> Path:
    return copied(made.bundle, tmp_path / "bundle")


@pytest.fixture
def run(project: Path, made: Made) -> Path:
    return project / made.classify.relative_to(made.root)


@pytest.fixture
def table(project: Path, made: Made) -> Path:
    """As profiling left it: ten rows, without those that the search has measured."""
    table = project / made.table.relative_to(made.root)
    rows = (table / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (table / "journal.jsonl").write_bytes(b"".join(rows[:10]))
    return table


class Payload:
    """Unpickling it would leave a file named `executed`."""

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return eval, ("open('executed', 'w')",)


def flipped(path: Path) -> None:
    """One bit in the middle is another."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edited(path: Path) -> None:
    """One bit of the last byte, so that the file still reads."""
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Payload()))


def removed(path: Path) -> None:
    path.unlink()


DAMAGE = [flipped, shortened, emptied, pickled, removed]


# -- bundles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "parity.safetensors", "run_example.py", "README.md"])
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_file_of_a_bundle_is_named(bundle: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(bundle / name)
    refused(call(bundle.parent, "verify", bundle, "--no-speed"), 5, name)
    assert not (bundle.parent / "executed").exists()


def test_a_file_nobody_vouches_for_is_named(bundle: Path) -> None:
    (bundle / "extra.py").write_text("")
    refused(call(bundle.parent, "verify", bundle), 5, "extra.py")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "sub/../../secret", "..", ".", "", "a\0b", "n" * 400])
def test_a_manifest_leads_nowhere_else(bundle: Path, name: str) -> None:
    (bundle.parent / "secret").write_text("mine")
    rewritten(bundle / "manifest.json", lambda found: found | {"files": found["files"] | {name: "0" * 64}})
    refused(call(bundle.parent, "verify", bundle), 5)


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to], ids=["symlink", "hard link"])
def test_links_are_not_followed(bundle: Path, link: Callable[[Path, Path], None]) -> None:
    original = bundle.parent / "elsewhere.md"
    (bundle / "README.md").rename(original)
    link(bundle / "README.md", original)
    refused(call(bundle.parent, "verify", bundle), 5, "link")


@pytest.mark.fault("schema-newer", "schema-older")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda found: found | {"schema": 99}, 5),
        (lambda found: found | {"schema": 0}, 5),
        (lambda found: found | {"surprise": 1}, 5),
        (lambda found: {key: value for key, value in found.items() if key != "latency"}, 5),
        (lambda found: found | {"artifact": found["artifact"] | {"file": "../model.onnx"}}, 5),
        (lambda found: found | {"artifact": found["artifact"] | {"file": "README.md"}}, 5),
        (lambda found: [found], 5),
    ],
    ids=["newer", "no schema", "unknown field", "missing field", "model outside", "model is no model", "a list"],
)
def test_a_changed_manifest_is_refused(bundle: Path, change: Callable[[Any], Any], code: int) -> None:
    rewritten(bundle / "manifest.json", change)
    refused(call(bundle.parent, "verify", bundle), code)


def test_what_is_no_bundle_is_a_mistake_of_the_user(made: Made, bundle: Path) -> None:
    for wrong in ("nothing-here", made.classify, made.root / "data.tsv", made.root):
        refused(call(made.root, "verify", wrong), 2, "is not a bundle")
    (bundle / "manifest.json").write_bytes(b"")
    refused(call(made.root, "verify", bundle), 5, "manifest.json")


def test_export_replaces_a_bundle_and_nothing_else(project: Path, made: Made, tmp_path: Path) -> None:
    (project / "letters").mkdir()
    (project / "letters" / "mine.txt").write_text("dear all")
    refused(call(project, "export", "--out", "letters"), 2, "is not a bundle", "--out")
    refused(call(project, "export", "--out", "data.tsv"), 2, "--out")
    assert (project / "letters" / "mine.txt").read_text() == "dear all"
    bundle = project / made.bundle.relative_to(made.root)
    flipped(bundle / "model.onnx")
    require(call(project, "export"))
    require(call(project, "verify", bundle, "--no-speed"))
    assert [path for path in project.rglob("*") if path.name.endswith((".part", ".old"))] == []


# -- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.fault("checkpoint-cut", "checkpoint-empty", "pickle")
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damaged_weights_are_refused_and_nothing_in_them_runs(
    project: Path, run: Path, damage: Callable[[Path], None]
) -> None:
    (weights,) = run.glob("weights-*.safetensors")
    damage(weights)
    refused(call(project, "evaluate"), 5, weights.name)
    assert not (project / "executed").exists()


@pytest.mark.parametrize("name", ["data/data.safetensors", "data/examples.json", "data/data.json"])
def test_held_out_data_with_one_bit_changed_is_refused(project: Path, run: Path, name: str) -> None:
    edited(run / name)
    refused(call(project, "evaluate"), 5, Path(name).name)


@pytest.mark.fault("table-length")
def test_a_search_for_one_length_does_not_judge_another(project: Path) -> None:
    done = require(call(project, "export", "--length", "8", "--out", "short", "--json"))
    told = json.loads(done.out)
    assert told["data"]["manifest"]["budgets"] == []
    assert any("not judged" in warning for warning in told["warnings"])


def test_a_table_set_aside_is_no_table(project: Path, table: Path) -> None:
    table.rename(table.with_name(f"{table.name}.20300101T000000.old"))
    refused(call(project, "search", "--latency", "1s"), 2, "mostool profile")


@pytest.mark.fault("table-threads")
def test_a_target_with_other_threads_is_not_searched_with_the_old_table(project: Path) -> None:
    path = project / "targets" / "quick.toml"
    path.write_text(path.read_text().replace("[measure]", "[runtime]\nthreads = 2\n\n[measure]", 1))
    assert "threads = 2" in path.read_text()
    refused(call(project, "search"), 4, "threads", "--fresh")
    refused(call(project, "export"), 4, "threads", "--fresh")


def test_remembered_architectures_that_are_damaged_are_repaired(project: Path, run: Path) -> None:
    path = run / "architectures.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0].replace(b"record", b"recorb") + b"".join(lines[1:]))
    require(call(project, "sample", "--n", "2"))
    assert path.with_name("architectures.jsonl.damaged").exists()


def test_damaged_weights_end_a_profile_and_fail_no_subnet(project: Path, run: Path, table: Path) -> None:
    (weights,) = run.glob("weights-*.safetensors")
    sound, before = weights.read_bytes(), journal_lines(table)
    edited(weights)
    refused(call(project, "profile", "--device", "quick", "--n", "11"), 5, weights.name)
    assert journal_lines(table) == before
    weights.write_bytes(sound)
    require(call(project, "profile", "--device", "quick", "--n", "11"))
    assert len(journal_lines(table)) == len(before) + 1


@pytest.mark.parametrize("damage", [shortened, emptied, pickled], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", ["checkpoint.json", "data/tokenizer.json", "data/data.safetensors"])
def test_a_damaged_run_is_refused(project: Path, run: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(run / name)
    refused(call(project, "evaluate"), 5, Path(name).name)
    assert not (project / "executed").exists()


@pytest.mark.fault("checkpoint-foreign")
def test_weights_of_another_run_do_not_fit(project: Path, made: Made, run: Path) -> None:
    (weights,) = run.glob("weights-*.safetensors")
    (others,) = made.mlm.glob("weights-*.safetensors")
    weights.write_bytes(others.read_bytes())
    refused(call(project, "evaluate"), 5, weights.name)
    info = json.loads((made.mlm / "checkpoint.json").read_text())
    rewritten(run / "checkpoint.json", lambda found: found | {"weights_sha256": info["weights_sha256"]})
    refused(call(project, "evaluate"), 5, "another model")


def test_a_checkpoint_leads_nowhere_else(project: Path, run: Path) -> None:
    rewritten(run / "checkpoint.json", lambda found: found | {"weights": "../../data.tsv"})
    refused(call(project, "evaluate"), 5)


def test_a_damaged_search_result_is_named(project: Path, run: Path) -> None:
    shortened(run / "search" / "result.json")
    refused(call(project, "export"), 5, "result.json")
    require(call(project, "search", "--evaluations", "3"))
    require(call(project, "evaluate"))


# -- latency tables --------------------------------------------------------------------------------------------------


@pytest.mark.fault("journal-bit")
def test_a_flipped_bit_in_the_journal_costs_one_row(project: Path, table: Path) -> None:
    before = journal_lines(table)
    flipped(table / "journal.jsonl")
    refused(call(project, "search"), 5, "checksum", "run the command that fills it again")
    done = call(project, "profile", "--device", "quick", "--n", "10", "--json")
    assert done.data["measured_now"] == 1
    assert "set aside" in done.envelope["warnings"][0]
    after = journal_lines(table)
    assert len(set(before) & set(after)) == 9
    assert len(set(measured_ids(table))) == 10
    require(call(project, "search", "--evaluations", "3"))


@pytest.mark.fault("journal-tail")
def test_a_torn_tail_is_repaired(project: Path, table: Path) -> None:
    before = journal_lines(table)
    journal = table / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-40])
    require(call(project, "search", "--evaluations", "3", "--remeasure", "0"))
    told = require(call(project, "profile", "--device", "quick", "--n", "10"))
    assert "1 measured now, 10 in all" in told.out
    assert "warning: " in told.err
    assert "cut short" in told.err
    assert journal_lines(table)[:9] == before[:9]


@pytest.mark.fault("table-device")
@pytest.mark.parametrize("field", ["cpu", "machine", "engine_version", "os"])
def test_a_table_of_another_machine_is_not_added_to(project: Path, table: Path, field: str) -> None:
    before = journal_lines(table)
    changed = {field: "another"}
    rewritten(table / "table.json", lambda found: found | {"environment": found["environment"] | changed})
    told = refused(call(project, "profile", "--device", "quick", "--n", "11"), 4, field, "--fresh")
    assert "another" in told.err
    assert journal_lines(table) == before
    refused(call(project, "search"), 5, "fingerprint", "--fresh")
    refused(call(project, "export"), 4, field, "--fresh")


@pytest.mark.fault("table-device")
def test_a_whole_table_of_another_machine_is_no_anchor_for_an_export(project: Path, table: Path) -> None:
    info, rows = read_table(table)
    other = msgspec.structs.replace(info, environment=msgspec.structs.replace(info.environment, cpu="another"))
    (table / "journal.jsonl").unlink()
    with Journal(table / "journal.jsonl", Measurement) as journal:
        for row in rows:
            journal.append(msgspec.structs.replace(row, fingerprint=other.environment.fingerprint))
    write_record(table / "table.json", other)
    refused(call(project, "profile", "--device", "quick", "--n", "11"), 4, "cpu", "--fresh")
    refused(call(project, "export", "--out", "elsewhere"), 4, "environment.", "--fresh")
    assert not (project / "elsewhere").exists()


def test_the_governor_and_the_boot_may_change(project: Path, table: Path) -> None:
    changed = {"boot_id": "another", "governor": "another"}
    rewritten(table / "table.json", lambda found: found | {"environment": found["environment"] | changed})
    require(call(project, "profile", "--device", "quick", "--n", "10"))


def test_a_changed_reference_is_refused(project: Path, table: Path) -> None:
    flipped(table / "reference.onnx")
    refused(call(project, "profile", "--device", "quick", "--n", "11"), 4, "reference_sha256", "--fresh")


@pytest.mark.fault("table-empty", "table-one")
def test_few_latencies_are_said_to_be_too_little(project: Path, table: Path) -> None:
    journal = table / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    for kept, said in ((0, "holds no latency"), (1, "too few"), (7, "too few")):
        journal.write_bytes(b"".join(lines[:kept]))
        refused(call(project, "search", "--latency", "5ms"), 2, said, "mostool profile")
        refused(call(project, "predict", "--n", "2"), 2, said, "mostool profile")
    made = call(project, "export", "--arch", "smallest", "--json").data["manifest"]
    assert made["predicted_s"] is None
    assert np.isfinite(made["latency"]["median_s"])
