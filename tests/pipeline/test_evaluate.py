"""What was searched is what ships: the same quality from the supernet, from the subnet and from the bundle."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from made_project import CLASSIFY, Made, call, refused, require

COUNT, EXPORTED = 20, 3


@pytest.fixture(scope="module")
def drawn(made: Made) -> list[str]:
    """Distinct architectures of the classifier's space, as `sample` prints them."""
    return list(dict.fromkeys(sampled(made, 1, COUNT + 10)))[:COUNT]


def sampled(made: Made, seed: int, count: int) -> list[str]:
    lines = require(call(made.root, "sample", "--n", str(count), "--seed", str(seed))).out.splitlines()
    assert len(lines) == count
    return lines


def test_sampling_is_seeded(made: Made, drawn: list[str]) -> None:
    assert sampled(made, 1, 5) == drawn[:5]
    assert sampled(made, 2, 5) != drawn[:5]
    listed = call(made.root, "sample", "--n", "3", "--seed", "1", "--json").data
    assert [one["architecture"] for one in listed] == [msgspec.json.decode(line) for line in drawn[:3]]


@pytest.mark.parametrize(("run", "form"), [("classify", "subnet"), ("classify", "bundle"), ("mlm", "subnet")])
def test_the_supernet_agrees_with_subnets_and_files(made: Made, drawn: list[str], run: str, form: str) -> None:
    folder = getattr(made, run)
    given = [part for one in drawn for part in ("--arch", one)]
    inside, others = (
        call(made.root, "evaluate", "--run", folder, *given, "--source", source, "--json").data
        for source in ("supernet", form)
    )
    assert len({one["id"] for one in inside}) == COUNT
    for shared, own in zip(inside, others, strict=True):
        assert shared["id"] == own["id"]
        assert shared["quality"]["value"] == own["quality"]["value"]
        assert shared["quality"]["loss"] == pytest.approx(own["quality"]["loss"], abs=1e-5)
        assert shared["quality"]["split"] == "test"
    assert len({one["quality"]["loss"] for one in inside}) == COUNT, "two architectures give the same answers"


def test_the_bundle_agrees_with_both(project: Path, drawn: list[str]) -> None:
    logits: dict[tuple[str, str], np.ndarray] = {}
    for one in drawn[:EXPORTED]:
        require(call(project, "export", "--arch", one))
        told = {}
        for source in ("supernet", "subnet", "bundle"):
            (told[source],) = call(
                project, "evaluate", "--arch", one, "--source", source, "--dump-logits", "logits.npy", "--json"
            ).data
            logits[one, source] = np.load(project / "logits.npy", allow_pickle=False)
        values = [found["quality"]["value"] for found in told.values()]
        assert values[0] == values[1] == values[2]
        for source in ("subnet", "bundle"):
            np.testing.assert_allclose(logits[one, source], logits[one, "supernet"], atol=1e-4, rtol=0)
        assert logits[one, "supernet"].shape[1] == 3
        assert float(np.ptp(logits[one, "supernet"], axis=0).max()) > 1e-3, "the answer does not depend on the text"
    first, second = (logits[one, "supernet"] for one in drawn[:2])
    assert float(np.abs(first - second).max()) > 1e-3


def test_a_bundle_of_a_run_trained_anew_is_not_taken_for_the_new_one(project: Path, made: Made) -> None:
    run = made.classify.relative_to(made.root)
    (old,) = call(project, "evaluate", "--source", "bundle", "--arch", "winner", "--json").data
    require(call(project, *CLASSIFY, "--fresh", "--out", run, "--dropout", "0"))
    architecture = made.bundle.name.rpartition("-")[2]
    winner = msgspec.json.encode(
        msgspec.json.decode((made.bundle / "manifest.json").read_text())["artifact"]["architecture"]
    ).decode()
    (shipped,), (inside,) = (
        call(project, "evaluate", "--source", source, "--arch", winner, "--json").data
        for source in ("bundle", "supernet")
    )
    assert shipped["id"] == inside["id"] == architecture
    assert shipped["quality"]["value"] == inside["quality"]["value"]
    assert shipped["quality"]["loss"] == pytest.approx(inside["quality"]["loss"], abs=1e-5)
    assert shipped["quality"]["loss"] != pytest.approx(old["quality"]["loss"], abs=1e-5)


def test_a_bundle_is_evaluated_by_its_folder(made: Made) -> None:
    (by_folder,) = call(made.root, "evaluate", "--source", "bundle", "--bundle", made.bundle, "--json").data
    (by_winner,) = call(made.root, "evaluate", "--source", "bundle", "--json").data
    manifest = msgspec.json.decode((made.bundle / "manifest.json").read_text())
    assert by_folder == by_winner
    assert by_folder["quality"] == manifest["quality"]


def test_the_validation_split_is_another(made: Made) -> None:
    (test,), (validation,) = (
        call(made.root, "evaluate", "--split", split, "--json").data for split in ("test", "validation")
    )
    assert validation["quality"]["split"] == "validation"
    assert validation["quality"]["loss"] != test["quality"]["loss"]


def test_an_architecture_is_json_a_file_a_name_or_an_id(made: Made, drawn: list[str], tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(drawn[0])
    ids = [
        call(made.root, "evaluate", "--source", "supernet", "--arch", given, "--json").data[0]["id"]
        for given in (drawn[0], str(tmp_path / "one.json"))
    ]
    assert ids[0] == ids[1]
    assert call(made.root, "evaluate", "--arch", ids[0], "--json").data[0]["id"] == ids[0]
    assert call(made.root, "evaluate", "--arch", ids[0][:6], "--json").data[0]["id"] == ids[0]
    for name in ("smallest", "middle", "largest", "winner"):
        assert call(made.root, "evaluate", "--arch", name, "--json").data[0]["id"] != ids[0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("larges", "no architecture is known as 'larges'"),
        ("0123456789ab", "no architecture"),
        ("x" * 5000, "no architecture"),
        ("", "no architecture"),
        ("{", "cannot be read"),
        ("{}", "cannot be read"),
        ('{"family": "bert", "axes": {}}', "lacks the axis"),
        ('{"family": "gpt", "axes": {}}', "of family 'gpt'"),
        ('{"family": "bert", "axes": {"depth": 1e999}}', "cannot be read"),
        ('{"family": "bert", "axes": {"depth": NaN}}', "cannot be read"),
        ("{" * 100_000, "cannot be read"),
        (
            '{"family": "bert", "axes": {"embedding": 8, "depth": 1, "hidden": [8], "heads": [3], "ffn": [8]}}',
            "choices: 1, 2",
        ),
        (
            '{"family": "bert", "axes": {"embedding": 8, "depth": 2, "hidden": [8], "heads": [1], "ffn": [8]}}',
            "one entry for each",
        ),
    ],
    ids=lambda value: value[:30],
)
def test_what_is_no_architecture_is_refused(made: Made, given: str, said: str) -> None:
    refused(call(made.root, "evaluate", "--arch", given), 2, said)


def test_options_that_contradict_each_other_are_refused(made: Made) -> None:
    refused(call(made.root, "evaluate", "--bundle", made.bundle), 2, "--source bundle")
    two = ("--arch", "largest", "--arch", "smallest")
    refused(call(made.root, "evaluate", *two, "--dump-logits", "x.npy"), 2, "one --arch")
    refused(
        call(made.root, "evaluate", "--source", "bundle", "--bundle", made.bundle, "--run", "words"), 2, "not made from"
    )
    refused(call(made.root, "evaluate", "--source", "bundle", "--bundle", made.bundle, "--arch", "middle"), 2, "not")


def test_a_subnet_that_was_never_exported_is_evaluated_as_the_file_export_would_build(made: Made) -> None:
    called = [
        require(call(made.root, "evaluate", "--source", source, "--arch", "middle", "--json"))
        for source in ("subnet", "bundle")
    ]
    subnet, file = (msgspec.json.decode(one.out)["data"][0]["quality"] for one in called)
    assert file["value"] == subnet["value"]
    assert abs(file["loss"] - subnet["loss"]) < 1e-4
