"""profile in two steps: --build-only makes a folder of files, --artifacts measures it; both refuse what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_project import DEVICE, Made, call, copied, journal_lines, refused, require, rewritten, started, wait_until

from toolchain.files import sha256_file
from toolchain.pipeline.artifacts import ARTIFACTS_FILE
from toolchain.pipeline.growing import plan
from toolchain.records import ArtifactsInfo, read_record

_FEW = 3


@pytest.fixture(scope="module")
def built(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a few ready files: look, do not touch."""
    folder = tmp_path_factory.mktemp("built") / "files"
    require(build(made, folder))
    return folder


def build(made: Made, folder: Path, *more: str) -> Any:
    given = ("--run", made.classify, "--device", "quick", "--build-only", folder)
    return call(made.root, "profile", *given, *(more or ("--n", str(_FEW))))


@pytest.fixture
def files(built: Path, tmp_path: Path) -> Path:
    """A folder of ready files in a project without a run."""
    (tmp_path / "project" / "targets").mkdir(parents=True)
    (tmp_path / "project" / "targets" / "quick.toml").write_text(DEVICE)
    return copied(built, tmp_path / "project" / "files")


def measure(files: Path, *more: str) -> Any:
    return call(files.parent, "profile", "--artifacts", "files", "--device", "quick", *more)


# -- building ----------------------------------------------------------------------------------------------------------


def test_the_record_says_what_a_table_needs(built: Path, made: Made) -> None:
    info = read_record(built / ARTIFACTS_FILE, ArtifactsInfo)
    header = json.loads((made.table / "table.json").read_text())
    assert info.recipe == header["recipe"]
    assert info.reference.sha256 == header["reference_sha256"]
    assert len(info.planned) == len(info.artifacts) == _FEW
    assert info.waiting == []
    for artifact in (info.reference, *info.artifacts):
        path = built / artifact.file
        assert (sha256_file(path), path.stat().st_size) == (artifact.sha256, artifact.size_bytes)
    names = {artifact.file for artifact in info.artifacts}
    assert {path.name for path in built.iterdir()} - {".lock"} == names | {"reference.onnx", ARTIFACTS_FILE}


def test_the_plan_is_that_of_profile(built: Path) -> None:
    info = read_record(built / ARTIFACTS_FILE, ArtifactsInfo)
    assert list(info.planned) == plan(info.space, _FEW)
    assert [one.architecture for one in info.artifacts] == list(info.planned)


def test_what_is_built_is_not_built_again_and_a_longer_plan_goes_on(made: Made, built: Path, tmp_path: Path) -> None:
    folder = copied(built, tmp_path / "files")
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.onnx")}
    assert ": 0 built now" in require(build(made, folder)).out
    assert ": 1 built now" in require(build(made, folder, "--n", str(_FEW + 1))).out
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.onnx")}
    assert before.items() <= after.items()
    added = require(build(made, folder, "--arch", "largest", "--json")).data
    assert len(added["artifacts"]) == _FEW + 1


def test_a_file_that_was_damaged_is_built_again(made: Made, built: Path, tmp_path: Path) -> None:
    folder = copied(built, tmp_path / "files")
    info = read_record(folder / ARTIFACTS_FILE, ArtifactsInfo)
    damaged, lost = (folder / artifact.file for artifact in info.artifacts[:2])
    damaged.write_bytes(damaged.read_bytes()[:-1])
    lost.unlink()
    (folder / "reference.onnx").unlink()
    assert ": 2 built now" in require(build(made, folder)).out
    for artifact in (info.reference, *info.artifacts):
        assert sha256_file(folder / artifact.file) == artifact.sha256


def test_building_goes_on_where_it_was_killed(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    given = ("profile", "--run", made.classify, "--n", "30", "--build-only", folder)

    def begun() -> bool:
        return folder.is_dir() and len(list(folder.glob("[0-9a-f]*.onnx"))) > 1

    with started(made.root, *given) as process:
        wait_until(begun, process)
        process.kill()
        process.wait()
    info = read_record(folder / ARTIFACTS_FILE, ArtifactsInfo)
    assert 0 < len(info.waiting) < 30
    (tmp_path / "targets").mkdir()
    refused(call(tmp_path, "profile", "--artifacts", folder), 2, "is not finished", "goes on where it was")
    done = require(call(made.root, *given, "--json")).data
    assert done["built_now"] == len(info.waiting)
    assert len(done["artifacts"]) == 30
    assert not list(folder.glob(".*.part"))


def test_a_folder_of_something_else_is_kept(made: Made, built: Path, tmp_path: Path) -> None:
    folder = copied(built, tmp_path / "files")
    refused(build(made, folder, "--length", "8"), 2, "something else", "workload")
    other = ("--run", made.mlm, "--device", "quick", "--n", "1", "--build-only", folder)
    refused(call(made.root, "profile", *other), 2, "something else", "checkpoint_sha256")
    assert read_record(folder / ARTIFACTS_FILE, ArtifactsInfo).run == made.classify.name
    require(build(made, folder, "--length", "8", "--n", "1", "--fresh"))
    assert len(list(tmp_path.glob("files.*.old"))) == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    refused(build(made, tmp_path / "mine"), 2, "holds no artifacts")
    refused(build(made, tmp_path / "mine" / "letter.txt"), 2)


def test_mixed_files_are_for_one_kind_of_processor(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    done = require(build(made, folder, "--precision", "mixed", "--n", "2", "--json")).data
    assert {one["precision"] for one in done["artifacts"]} == {"int8", "fp32"}
    assert read_record(folder / ARTIFACTS_FILE, ArtifactsInfo).machine == "x86_64"


# -- measuring ---------------------------------------------------------------------------------------------------------


def test_a_run_finds_what_was_measured_from_files_and_measures_nothing_twice(
    made: Made, built: Path, tmp_path: Path
) -> None:
    project = copied(made.root, tmp_path / "project")
    shutil.rmtree(project / "profiles")
    told = require(call(project, "profile", "--artifacts", built, "--device", "quick", "--json")).data
    assert told["measured_now"] == _FEW
    run = ("--run", project / "runs" / made.classify.name, "--device", "quick")
    again = require(call(project, "profile", *run, "--n", str(_FEW), "--json")).data
    assert (again["measured_now"], again["timed"], again["table"]) == (0, _FEW, told["table"])
    more = require(call(project, "profile", *run, "--n", str(_FEW + 1), "--json")).data
    assert more["measured_now"] == 1
    (table,) = (project / "profiles" / "quick").iterdir()
    mine, theirs = rows_of(table), rows_of(made.table)
    assert len(mine) == _FEW + 1
    assert mine.items() <= theirs.items()


def rows_of(table: Path) -> dict[str, Any]:
    """By architecture: what of a row is not measured but known."""
    known = ("artifact_sha256", "recipe", "size_bytes", "parameters", "workload", "target", "precision", "threads")
    records = [json.loads(line)["record"] for line in journal_lines(table)]
    return {json.dumps(one["architecture"], sort_keys=True): {name: one[name] for name in known} for one in records}


def test_a_file_that_was_changed_is_measured_nowhere(files: Path) -> None:
    info = read_record(files / ARTIFACTS_FILE, ArtifactsInfo)
    path = files / info.artifacts[-1].file
    path.write_bytes(path.read_bytes() + b"\0")
    refused(measure(files), 5, path.name, "sha256")
    assert not (files.parent / "profiles").exists()


def test_a_reference_that_was_changed_is_refused(files: Path) -> None:
    (files / "reference.onnx").write_bytes(b"")
    refused(measure(files), 5, "reference.onnx")


@pytest.mark.parametrize("name", ["reference.onnx", ARTIFACTS_FILE, "one of them"])
def test_a_file_that_is_missing_is_named(files: Path, name: str) -> None:
    name = read_record(files / ARTIFACTS_FILE, ArtifactsInfo).artifacts[0].file if name == "one of them" else name
    (files / name).unlink()
    refused(measure(files), 2, "files")
    refused(call(files.parent, "profile", "--artifacts", "nowhere"), 2, "there are no artifacts in nowhere")


def outside(info: Any) -> Any:
    info["artifacts"][0]["file"] = "../secret"
    return info


def absolute(info: Any) -> Any:
    info["reference"]["file"] = "/etc/hostname"
    return info


def unknown(info: Any) -> Any:
    return info | {"more": 1}


def twice(info: Any) -> Any:
    return info | {"artifacts": info["artifacts"] * 2}


def unplanned(info: Any) -> Any:
    return info | {"planned": info["planned"][:1]}


def no_model(info: Any) -> Any:
    info["space"]["family"] = "unheard-of"
    return info


def impossible(info: Any) -> Any:
    info["space"]["fixed"]["width"] = -1
    return info


def newer(info: Any) -> Any:
    return info | {"schema": 2}


@pytest.mark.parametrize(
    "change", [outside, absolute, unknown, twice, unplanned, no_model, impossible, newer], ids=lambda one: one.__name__
)
def test_a_record_that_was_tampered_with_is_refused(files: Path, change: Callable[[Any], Any]) -> None:
    (files.parent / "secret").write_bytes(b"secret")
    rewritten(files / ARTIFACTS_FILE, change)
    refused(measure(files), 5)
    assert not (files.parent / "profiles").exists()


def test_a_link_among_the_files_is_refused(files: Path) -> None:
    path = files / read_record(files / ARTIFACTS_FILE, ArtifactsInfo).artifacts[0].file
    path.rename(files.parent / "elsewhere.onnx")
    path.symlink_to(files.parent / "elsewhere.onnx")
    refused(measure(files), 5, "is a link")


def test_files_for_another_engine_or_processor_are_refused(files: Path) -> None:
    (files.parent / "targets" / "card.toml").write_text(
        DEVICE.replace('"quick"', '"card"') + '\n[runtime]\nprovider = "CUDAExecutionProvider"\n'
    )
    refused(call(files.parent, "profile", "--artifacts", "files", "--device", "card"), 2, "not for card", "CUDA")
    rewritten(files / ARTIFACTS_FILE, lambda info: info | {"machine": "riscv64"})
    refused(measure(files), 4, "riscv64")


def test_a_subnet_that_could_not_be_built_is_a_failed_row(files: Path) -> None:
    def fails(info: Any) -> Any:
        lost = info["artifacts"].pop(0)
        return info | {"failed": [{"architecture": lost["architecture"], "error": "it said 2, not 1"}]}

    rewritten(files / ARTIFACTS_FILE, fails)
    told = require(measure(files, "--json")).data
    assert (told["timed"], told["failed"]) == (_FEW - 1, 1)
    (table,) = (files.parent / "profiles" / "quick").iterdir()
    assert "it said 2, not 1" in (table / "journal.jsonl").read_text()


STRAYS = [
    ("--artifacts", "files", "--build-only", "files"),
    *[
        ("--artifacts", "files", *more)
        for more in (
            ("--n", "3"),
            ("--arch", "largest"),
            ("--run", "x"),
            ("--precision", "mixed"),
            ("--batch", "1"),
            ("--length", "8"),
            ("--target-error", "3%"),
            ("--budget", "1min"),
        )
    ],
    *[
        ("--build-only", "files", *more)
        for more in (
            ("--target-error", "3%"),
            ("--budget", "1min"),
            ("--transfer", "cpu"),
            ("--thermal", "guard"),
            ("--self-test",),
            ("--strict",),
            ("--device", "cpu", "--device", "quick"),
        )
    ],
]


@pytest.mark.parametrize("given", STRAYS, ids=" ".join)
def test_options_that_have_no_say_are_refused(given: tuple[str, ...], files: Path) -> None:
    refused(call(files.parent, "profile", *given), 2)
    assert sorted(path.name for path in files.parent.iterdir()) == ["files", "targets"]
