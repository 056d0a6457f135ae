from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import toolchain.export.bundle as bundle_module
from toolchain.errors import IntegrityError, MostoolError, UsageError
from toolchain.export import check_parity, open_session, read_manifest, verify_files, write_bundle
from toolchain.export.bundle import CHECKS_FILE, MANIFEST_FILE
from toolchain.export.parity import load_checks
from toolchain.files import sha256_file
from toolchain.records import Manifest, Origin, Training, write_record

from .made_bundle import Ingredients

FILES = {"README.md", "examples.json", "manifest.json", "model.onnx", "parity.safetensors", "run_example.py"}


@pytest.fixture(scope="module")
def ingredients(tmp_path_factory: pytest.TempPathFactory) -> Ingredients:
    return Ingredients(tmp_path_factory.mktemp("ingredients"))


def write(ingredients: Ingredients, folder: Path, **changes: object) -> Manifest:
    manifest = msgspec.structs.replace(ingredients.manifest, **changes)
    return write_bundle(
        folder, manifest, ingredients.model, ingredients.tokenizer, ingredients.checks, ingredients.examples
    )


@pytest.fixture
def bundle(ingredients: Ingredients, tmp_path: Path) -> Path:
    write(ingredients, tmp_path / "bundle")
    return tmp_path / "bundle"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_bundle_comes_back_whole(ingredients: Ingredients, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "bundle"
    written = write(ingredients, folder)
    manifest = read_manifest(folder)
    assert manifest == written
    assert msgspec.structs.replace(manifest, files={}) == ingredients.manifest
    assert {path.name for path in folder.iterdir()} == FILES | {"tokenizer.json"}
    assert set(manifest.files) == FILES - {"manifest.json"} | {"tokenizer.json"}
    assert manifest.files == {name: sha256_file(folder / name) for name in manifest.files}
    verify_files(folder, manifest)
    checks = load_checks(folder / CHECKS_FILE)
    assert check_parity(open_session(folder / manifest.artifact.file, manifest.options), checks) < 1e-4
    assert (folder / "model.onnx").read_bytes() == ingredients.model.read_bytes()
    assert json.loads((folder / "examples.json").read_text()) == ingredients.examples
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {"0o644"}
    assert folder.stat().st_mode & 0o777 == 0o755


def test_the_same_inputs_give_the_same_bytes(ingredients: Ingredients, tmp_path: Path) -> None:
    write(ingredients, tmp_path / "one")
    write(ingredients, tmp_path / "other")
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_nothing_in_a_bundle_tells_of_this_machine(bundle: Path) -> None:
    for name, data in contents(bundle).items():
        for trace in (
            str(bundle.parent),
            str(Path.home()),
            str(Path(__file__).resolve().parents[2]),
            os.uname().nodename,
        ):
            assert trace.encode() not in data, (name, trace)


def test_the_card_says_what_the_manifest_says(bundle: Path) -> None:
    card = (bundle / "README.md").read_text()
    for said in (
        "# made",
        "1.234 ms ± 0.81 % (p50; n=90 calls in 15 rounds)\n  measured on made: A Processor",
        "predicted before it was built: 1.100 ms",
        "limit 2.000 ms on made: met",
        "87.5 % on 16 test items",
        "25.0 %",
        "label 0, label 1, label 2",
        "- depth: 2",
        "12 training, 2 validation, 2 test",
    ):
        assert said in card, said


def test_a_missed_budget_and_masked_words_are_said_too(ingredients: Ingredients, tmp_path: Path) -> None:
    missed = tuple(
        msgspec.structs.replace(
            ingredients.manifest.budgets[0],
            budget=msgspec.structs.replace(ingredients.manifest.budgets[0].budget, metric=metric, limit=limit),
            value=2 * limit,
            met=False,
        )
        for metric, limit in (("size_bytes", 2**20), ("parameters", 5000))
    )
    write(ingredients, tmp_path / "b", budgets=missed, task="mlm", labels=(), predicted_s=None, trivial_quality=None)
    card = (tmp_path / "b" / "README.md").read_text()
    assert "size: 2.00 MiB, limit 1.00 MiB: MISSED" in card
    assert "parameters: 10,000, limit 5,000: MISSED" in card
    assert "masked words" in card
    assert "predicted" not in card
    write(ingredients, tmp_path / "b", budgets=())
    assert "none was set" in (tmp_path / "b" / "README.md").read_text()


def test_a_supernet_s_subnet_says_how_it_was_trained(bundle: Path) -> None:
    card = (bundle / "README.md").read_text()
    assert "cut out of a Mixture-of-Supernets by mostool. It answers with one of 3 labels" in card
    assert "- 1000 updates of a supernet, 64 items each" in card
    assert "started from" not in card
    assert "learned from the answers" not in card
    assert '`python run_example.py "your text"`' in card


def test_pairs_numbers_an_origin_and_a_teacher_are_said(ingredients: Ingredients, tmp_path: Path) -> None:
    origin, teacher = (
        Origin(title="abc of words", sha256="a" * 64, notes=("no head",)),
        Origin(title="def of large", sha256="d" * 64),
    )
    training = Training(task="regress", updates=70, batch_size=8, accumulate=2, distill=0.25)
    changes = {"task": "regress", "labels": (), "trivial_quality": None, "pairs": True, "alone": True}
    write(ingredients, tmp_path / "b", training=training, origin=origin, teacher=teacher, **changes)
    card = (tmp_path / "b" / "README.md").read_text()
    for said in (
        "trained as one architecture by mostool. It reads pairs of texts. It answers with a number.",
        '`python run_example.py "first text" "second text"` (needs onnxruntime',
        "- 70 updates of it alone, 16 items each",
        "- started from abc of words (sha256 aaaaaaaaaaaa); no head",
        "- learned from the answers of def of large (sha256 dddddddddddd), which weighed 25 %",
    ):
        assert said in card, said
    assert "masked words" not in card
    verify_files(tmp_path / "b", read_manifest(tmp_path / "b"))


def test_pairs_are_kept_as_pairs_for_the_example(ingredients: Ingredients, tmp_path: Path) -> None:
    files = (ingredients.model, ingredients.tokenizer, ingredients.checks)
    write_bundle(tmp_path / "b", ingredients.manifest, *files, [("one", "other"), ("a", "b")])
    assert json.loads((tmp_path / "b" / "examples.json").read_text()) == [["one", "other"], ["a", "b"]]


# -- tampering -------------------------------------------------------------------------------------------------------


def change_a_byte(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)

    return change


def _link(folder: Path) -> None:
    (folder / "model.onnx").rename(folder.parent / "elsewhere")
    (folder / "model.onnx").symlink_to(folder.parent / "elsewhere")


def _hard_link(folder: Path) -> None:
    os.link(folder / "model.onnx", folder.parent / "elsewhere")


def _folder_for_file(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").mkdir()


def _rename_in_manifest(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        manifest = read_manifest(folder)
        files = {new if name == old else name: sha256 for name, sha256 in manifest.files.items()}
        shutil.copyfile(folder / old, folder.parent / "outside")
        write_record(folder / MANIFEST_FILE, msgspec.structs.replace(manifest, files=files))

    return change


def _forget(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        manifest = read_manifest(folder)
        files = {kept: sha256 for kept, sha256 in manifest.files.items() if kept != name}
        write_record(folder / MANIFEST_FILE, msgspec.structs.replace(manifest, files=files))

    return change


def _another_model(folder: Path) -> None:
    manifest = read_manifest(folder)
    (folder / "model.onnx").write_bytes(b"another model")
    files = manifest.files | {"model.onnx": sha256_file(folder / "model.onnx")}
    write_record(folder / MANIFEST_FILE, msgspec.structs.replace(manifest, files=files))


TAMPERED: dict[str, tuple[Callable[[Path], None], str]] = {
    **{f"a byte of {name}": (change_a_byte(name), name) for name in (FILES | {"tokenizer.json"}) - {"manifest.json"}},
    "a file missing": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json"),
    "a file too many": (lambda folder: (folder / "setup.py").write_text("import os"), "setup.py"),
    "a hidden file too many": (lambda folder: (folder / ".extra").write_text(""), ".extra"),
    "a folder too many": (lambda folder: (folder / "more").mkdir(), "more"),
    "a symlink": (_link, "model.onnx"),
    "a hard link": (_hard_link, "model.onnx"),
    "a folder in a file's place": (_folder_for_file, "tokenizer.json"),
    "a name that leads out": (_rename_in_manifest("README.md", "../outside"), "../outside"),
    "an absolute name": (_rename_in_manifest("README.md", "/etc/hostname"), "/etc/hostname"),
    "an empty name": (_rename_in_manifest("README.md", ""), "''"),
    "a model nobody vouches for": (_forget("model.onnx"), "model.onnx"),
    "checks nobody vouches for": (_forget(CHECKS_FILE), CHECKS_FILE),
    "a card nobody vouches for": (_forget("README.md"), "README.md"),
    "another model, vouched for": (_another_model, "sha256"),
}


@pytest.mark.parametrize("case", sorted(TAMPERED))
def test_tampering_is_noticed_and_named(bundle: Path, case: str) -> None:
    tamper, named = TAMPERED[case]
    verify_files(bundle, read_manifest(bundle))
    tamper(bundle)
    with pytest.raises(IntegrityError) as refusal:
        verify_files(bundle, read_manifest(bundle))
    assert named in str(refusal.value)
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("latency", "median_s"), 1e-4, "card"),
        (("latency", "n"), 10**6, "card"),
        (("quality", "value"), 0.999, "card"),
        (("trivial_quality",), 0.1, "card"),
        (("budgets", 0, "budget", "limit"), 1.0, "card"),
        (("budgets", 0, "met"), False, "contradicts itself about latency_s"),
        (("artifact", "architecture", "axes", "depth"), 99, "card"),
        (("artifact", "parity_max_abs_error"), 0.0, "card"),
        (("parity_tolerance",), 1.0, "card"),
        (("task",), "regress", "card"),
        (("pairs",), True, "card"),
        (("alone",), True, "card"),
        (("origin",), {"title": "a better one", "sha256": "0"}, "card"),
        (("training", "updates"), 10**6, "card"),
        (("artifact", "parameters"), 1, "card"),
        (("artifact", "size_bytes"), 1, "the model's size"),
    ],
    ids=str,
)
def test_a_figure_changed_in_the_manifest_alone_is_noticed(
    bundle: Path, path: tuple[str | int, ...], value: object, said: str
) -> None:
    fields = json.loads((bundle / MANIFEST_FILE).read_text())
    place = fields
    for key in path[:-1]:
        place = place[key]
    assert place[path[-1]] != value
    place[path[-1]] = value
    (bundle / MANIFEST_FILE).write_text(json.dumps(fields))
    with pytest.raises(IntegrityError, match=said) as refusal:
        verify_files(bundle, read_manifest(bundle))
    assert refusal.value.hint


def test_a_manifest_of_a_newer_schema_is_refused(bundle: Path) -> None:
    fields = json.loads((bundle / MANIFEST_FILE).read_text())
    (bundle / MANIFEST_FILE).write_text(json.dumps(fields | {"schema": 2, "more": 1}))
    with pytest.raises(IntegrityError, match="newer") as refusal:
        read_manifest(bundle)
    assert "upgrade" in refusal.value.hint


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', "\x00" * 50, "[" * 100_000])
def test_a_manifest_that_is_none_is_refused(bundle: Path, text: str) -> None:
    (bundle / MANIFEST_FILE).write_text(text)
    with pytest.raises(IntegrityError, match="cannot be read"):
        read_manifest(bundle)


def test_a_manifest_that_is_a_link_is_refused(bundle: Path) -> None:
    (bundle / MANIFEST_FILE).rename(bundle.parent / "elsewhere")
    (bundle / MANIFEST_FILE).symlink_to(bundle.parent / "elsewhere")
    with pytest.raises(IntegrityError, match="link"):
        read_manifest(bundle)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(UsageError, match="not a bundle"):
            read_manifest(folder)


# -- replacing -------------------------------------------------------------------------------------------------------


def test_a_bundle_is_replaced_by_the_next(ingredients: Ingredients, bundle: Path) -> None:
    (bundle / "left over").write_text("")
    write(ingredients, bundle, threads=2)
    assert read_manifest(bundle).threads == 2
    verify_files(bundle, read_manifest(bundle))
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_what_is_no_bundle_is_not_replaced(ingredients: Ingredients, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("more work")
    for name in ("theirs", "file"):
        with pytest.raises(UsageError, match="not a bundle"):
            write(ingredients, tmp_path / name)
    assert contents(tmp_path / "theirs") == {"thesis.tex": b"years of work"}
    assert (tmp_path / "file").read_text() == "more work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "theirs"]


def test_a_bundle_behind_a_link_or_a_dot_is_replaced_where_it_is(
    ingredients: Ingredients, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bundle.parent / "latest").symlink_to(bundle)
    write(ingredients, bundle.parent / "latest", threads=2)
    assert read_manifest(bundle).threads == 2
    assert (bundle.parent / "latest").is_symlink()
    monkeypatch.chdir(bundle)
    write(ingredients, Path(), threads=3)
    assert read_manifest(bundle).threads == 3


@pytest.mark.parametrize("step", ["save_checks", "render_card", "write_record", "write_text", "sha256_file"])
@pytest.mark.parametrize("fault", [OSError(28, "No space left"), KeyboardInterrupt()], ids=["full disk", "Ctrl-C"])
@pytest.mark.parametrize("replaced", [True, False])
def test_a_failure_in_the_middle_leaves_what_was_there(
    ingredients: Ingredients,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    fault: BaseException,
    replaced: bool,
) -> None:
    if replaced:
        write(ingredients, tmp_path / "bundle")
    before = contents(tmp_path / "bundle") if replaced else None

    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(bundle_module, step, fail)
    with pytest.raises((MostoolError, KeyboardInterrupt)):
        write(ingredients, tmp_path / "bundle", threads=2)
    assert [path.name for path in tmp_path.iterdir()] == (["bundle"] if replaced else [])
    if before:
        assert contents(tmp_path / "bundle") == before


def test_a_failure_of_the_very_last_step_puts_the_old_one_back(
    ingredients: Ingredients, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, replace = contents(bundle), Path.replace

    def fail_at_the_end(self: Path, target: Path) -> Path:
        if self.name.endswith(".part") and self.is_dir():
            raise OSError(28, "No space left")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_at_the_end)
    with pytest.raises(MostoolError, match="no space left"):
        write(ingredients, bundle, threads=2)
    monkeypatch.undo()
    assert contents(bundle) == before
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]
