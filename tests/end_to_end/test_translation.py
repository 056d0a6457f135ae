"""Translation through the command line: trained, translated, searched, trained on; and every mistake on the way."""

from __future__ import annotations

import functools
import gzip
import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from made_project import Called, call, copied, refused, require, rewritten, spawn, started, wait_until, write_inputs

from toolchain import text
from toolchain.files import sha256_file
from toolchain.text.bleu import bleu
from toolchain.text.catalogues import FEWEST_PAIRS

SPACE = """\
name = "made"
family = "translation"

[fixed]
width = 48
attention = 48
"""
NETWORK = {"encoder_embedding": [32, 48], "decoder_embedding": [32, 48], "encoder_depth": [2], "decoder_depth": [1, 2]}
LAYERS = {
    "encoder_ffn": ([32, 96], "encoder_depth"),
    "encoder_heads": ([2, 4], "encoder_depth"),
    "decoder_ffn": ([32, 96], "decoder_depth"),
    "decoder_heads": ([2, 4], "decoder_depth"),
    "cross_heads": ([2, 4], "decoder_depth"),
    "cross_layers": ([1, 2], "decoder_depth"),
}
PAIRS, WORDS = 400, 10

SETTINGS = (
    *("--space", "space.toml", "--updates", "60", "--evaluate-every", "20", "--batch-tokens", "1000"),
    *("--sequence-length", "24", "--vocabulary-size", "320", "--warmup-updates", "10", "--learning-rate", "0.01"),
    *("--dropout", "0"),
)
TRAIN = ("train", "--task", "translate", "--data", "text.xa", "text.xb", *SETTINGS)


def cipher(count: int = PAIRS, seed: int = 0) -> list[tuple[str, str]]:
    """Sentences and their translations: each word has its own, and neighbours change places two by two."""
    rng = random.Random(seed)  # noqa: S311 - words, not secrets
    signs = "bdfgklmnprst"
    words = [f"{one}{'aeiou'[number % 5]}" for number, one in enumerate(signs + signs)][:WORDS]
    others = [f"{word[1].upper()}{word[0]}o" for word in words]
    found: dict[str, str] = {}
    while len(found) < count:
        drawn = [rng.randrange(WORDS) for _ in range(rng.randint(2, 5))]
        turned = [word for place in range(0, len(drawn), 2) for word in reversed(drawn[place : place + 2])]
        found.setdefault(" ".join(words[i] for i in drawn), " ".join(others[i] for i in turned))
    return list(found.items())


def write_parallel(root: Path) -> Path:
    """A project whose text.xa and text.xb are parallel, and whose space.toml is of translations."""
    write_inputs(root)
    pairs = cipher()
    (root / "text.xa").write_text("".join(f"{source}\n" for source, _ in pairs))
    (root / "text.xb").write_text("".join(f"{target}\n" for _, target in pairs))
    (root / "encoder.toml").write_text((root / "space.toml").read_text())
    axes = [f'[[axes]]\nname = "{name}"\nchoices = {choices}\n' for name, choices in NETWORK.items()]
    axes += [f'[[axes]]\nname = "{name}"\nchoices = {one}\nper = "{per}"\n' for name, (one, per) in LAYERS.items()]
    (root / "space.toml").write_text("\n".join([SPACE, *axes]))
    return root


class Trained(NamedTuple):
    """A project with one trained translation run. Look, do not touch."""

    root: Path
    run: Path
    said: Called


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = write_parallel(tmp_path_factory.mktemp("translation") / "project")
    said = require(call(root, *TRAIN))
    (run,) = (root / "runs").iterdir()
    return Trained(root, run, said)


@pytest.fixture
def own(trained: Trained, tmp_path: Path) -> Path:
    """A copy of that project, to be changed at will."""
    return copied(trained.root, tmp_path / "project")


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    return write_parallel(tmp_path / "project")


def weights(run: Path) -> str:
    info = json.loads((run / "checkpoint.json").read_text())
    assert sha256_file(run / info["weights"]) == info["weights_sha256"]
    found: str = info["weights_sha256"]
    return found


# -- what is learned and said ------------------------------------------------------------------------------------------


def test_a_supernet_learns_to_translate(trained: Trained) -> None:
    info = json.loads((trained.run / "checkpoint.json").read_text())
    assert trained.run.name.startswith("translation-translate-")
    assert info["training"]["task"] == "translate"
    assert info["data"]["languages"] == ["xa", "xb"]
    assert (info["data"]["train"], info["data"]["validation"], info["data"]["test"]) == (320, 40, 40)
    assert info["space"]["family"] == "translation"
    metrics = info["metrics"]
    assert {one["metric"] for one in metrics.values()} == {"token_accuracy"}
    assert metrics["largest"]["value"] > 0.6
    assert "60 updates" in trained.said.out
    assert f"next: mostool profile --device cpu --run runs/{trained.run.name}" in trained.said.out
    assert "train: 60/60" in trained.said.err


@pytest.mark.parametrize("given", ["largest", "smallest", "middle"])
def test_the_supernet_and_the_subnet_say_the_same_word_for_word(trained: Trained, tmp_path: Path, given: str) -> None:
    """Whole prefixes inside the supernet, a key/value cache outside: every sentence of both held-out splits."""
    for split in ("test", "validation"):
        found = {}
        for source in ("supernet", "subnet"):
            arguments = ("evaluate", "--arch", given, "--source", source, "--split", split)
            (found[source],) = call(trained.root, *arguments, "--dump-text", tmp_path / source, "--json").data
            assert found[source].keys() == {"id", "source", "quality"}
        one, other = (found[source]["quality"] for source in ("supernet", "subnet"))
        assert (tmp_path / "supernet").read_bytes() == (tmp_path / "subnet").read_bytes()
        assert {key: one[key] for key in ("metric", "value", "n", "split")} == {
            "metric": "bleu",
            "value": other["value"],
            "n": 40,
            "split": split,
        }
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert one["also"] == other["also"]
        said = (tmp_path / "subnet").read_text().splitlines()
        assert len(said) == 40
        assert len(set(said)) > 10, "the answer does not depend on the text"
        references = [target for _, target in text.read_references(trained.run / "data", split)]  # type: ignore[arg-type]
        assert one["value"] == pytest.approx(bleu(said, references).score)


def test_a_beam_finds_translations_too(trained: Trained, tmp_path: Path) -> None:
    scores = {}
    for beam in ("1", "4"):
        arguments = ("evaluate", "--arch", "largest", "--source", "subnet", "--beam", beam)
        (told,) = call(trained.root, *arguments, "--dump-text", tmp_path / beam, "--json").data
        scores[beam] = told["quality"]["value"]
        assert len((tmp_path / beam).read_text().splitlines()) == told["quality"]["n"] == 40
    assert scores["1"] > 0.1
    assert scores["4"] > 0.5 * scores["1"]
    refused(call(trained.root, "evaluate", "--arch", "largest", "--beam", "4"), 2, "greedy", "--source subnet")
    two = ("--arch", "largest", "--arch", "smallest", "--dump-text", tmp_path / "two")
    refused(call(trained.root, "evaluate", *two), 2, "--dump-text goes with one --arch")


def test_a_limit_is_of_everything_that_is_said(trained: Trained, tmp_path: Path) -> None:
    """The first sentences of the split: the words, the score, and the loss beside it."""
    arguments = ("evaluate", "--arch", "largest", "--source", "subnet", "--dump-text")
    (whole,) = call(trained.root, *arguments, tmp_path / "whole", "--json").data
    (few,) = call(trained.root, *arguments, tmp_path / "few", "--limit", "7", "--json").data
    (all_of_them,) = call(trained.root, *arguments, tmp_path / "many", "--limit", "1000", "--json").data
    assert few["quality"]["n"] == 7
    assert few["quality"]["loss"] != pytest.approx(whole["quality"]["loss"], abs=1e-4)
    assert all_of_them == whole
    assert (tmp_path / "few").read_text().splitlines() == (tmp_path / "whole").read_text().splitlines()[:7]
    told = require(call(trained.root, "evaluate", "--arch", "largest", "--limit", "3"))
    assert "BLEU" in told.out
    assert "token accuracy" in told.out
    assert "on 3 test items" in told.out
    assert "translate: 3/3" in told.err


def test_the_first_batch_of_logits_is_that_of_the_supernet(own: Path) -> None:
    np = pytest.importorskip("numpy")
    arrays = []
    for source in ("supernet", "subnet"):
        require(call(own, "evaluate", "--arch", "middle", "--source", source, "--dump-logits", "logits.npy"))
        arrays.append(np.load(own / "logits.npy", allow_pickle=False))
    np.testing.assert_allclose(*arrays, atol=1e-4, rtol=0)
    assert arrays[0].shape[1] == json.loads(next(own.glob("runs/*/checkpoint.json")).read_text())["vocabulary_size"]


# -- the rest of the path ----------------------------------------------------------------------------------------------


def test_a_subnet_is_searched_under_a_count_of_parameters(own: Path) -> None:
    found = call(own, "search", "--params", "90k", "--evaluations", "6", "--json").data
    assert found["winner"]["costs"]["parameters"]["value"] <= 90e3
    assert [budget["metric"] for budget in found["budgets"]] == ["parameters"]
    (told,) = call(own, "evaluate", "--source", "subnet", "--limit", "5", "--json").data
    winner = json.loads((own / found["result"]).read_text())["winner"]
    assert call(own, "evaluate", "--arch", told["id"][:6], "--limit", "5", "--json").data[0]["id"] == told["id"]
    assert winner["architecture"]["family"] == "translation"
    assert call(own, "search", "--params", "1k", "--json").error["kind"] == "infeasible"
    drawn = call(own, "sample", "--n", "3", "--json").data
    assert {one["architecture"]["family"] for one in drawn} == {"translation"}


def test_what_an_engine_or_a_precision_cannot_do_is_said_and_nothing_is_written(own: Path) -> None:
    arguments = ("export", "--arch", "largest", "--device", "quick", "--precision")
    for precision in ("fp16", "int8-static"):
        refused(call(own, *arguments, precision), 2, f"no {precision} file of this model", "fp32, int8, int4")
        assert call(own, *arguments, precision, "--json").error["code"] == 2
    assert not (own / "bundles").exists()
    assert not list(own.rglob("*.onnx"))


def test_without_a_table_there_is_no_latency_to_search_by(own: Path) -> None:
    refused(call(own, "search", "--latency", "5ms"), 2, "no latency table", "mostool profile")
    refused(call(own, "predict", "--arch", "largest"), 2, "no latency table")
    (told,) = call(own, "evaluate", "--arch", "largest", "--source", "bundle", "--limit", "3", "--json").data
    assert told["source"] == "bundle"
    assert not (own / "bundles").exists()


def test_a_translation_has_a_report(own: Path) -> None:
    require(call(own, "search", "--params", "90k", "--evaluations", "3"))
    path = call(own, "report", "--json").data["report"]
    page = (own / path).read_text()
    assert "text.xa and text.xb" in page


def test_the_options_of_translating_are_for_translations(inputs: Path) -> None:
    require(call(inputs, "train", "--data", "data.tsv", "--space", "encoder.toml", "--updates", "1"))
    for option in (["--beam", "2", "--source", "subnet"], ["--limit", "3"], ["--dump-text", "said"]):
        refused(call(inputs, "evaluate", "--arch", "largest", *option), 2, "does not translate", "leave")
    refused(call(inputs, "train", "--data", "data.tsv", "--batch-tokens", "99"), 2, "--batch-tokens is for translation")
    assert not (inputs / "said").exists()


# -- one architecture --------------------------------------------------------------------------------------------------


def test_one_architecture_is_trained_from_scratch(inputs: Path) -> None:
    made = call(inputs, *TRAIN, "--only", "largest", "--out", "runs/alone", "--json").data
    assert made["metrics"].keys() == {"largest"}
    info = json.loads((inputs / "runs" / "alone" / "checkpoint.json").read_text())
    assert info["training"]["mixture"]["kind"] == "plain"
    assert info["space"]["point"]["axes"]["encoder_embedding"] == 48
    said = []
    for source in ("supernet", "subnet"):
        require(call(inputs, "evaluate", "--arch", "largest", "--source", source, "--dump-text", source))
        said.append((inputs / source).read_bytes())
    assert said[0] == said[1]
    assert info["metrics"]["largest"]["value"] > 0.5
    refused(call(inputs, "search", "--params", "90k"), 2, "one subnet")
    refused(call(inputs, *TRAIN, "--only", "larges"), 2, "larges")
    assert call(inputs, "profile", "--device", "quick", "--n", "9", "--json").data["timed"] == 1
    bundle = call(inputs, "export", "--json").data["bundle"]
    require(call(inputs, "evaluate", "--source", "bundle", "--dump-text", "bundle"))
    assert (inputs / "bundle").read_bytes() == said[0]
    require(call(inputs, "verify", bundle, "--no-speed"))


def test_a_subnet_is_trained_on(own: Path, trained: Trained) -> None:
    """On the data the run has, from where the supernet left it."""
    arguments = (
        "finetune",
        "--arch",
        "smallest",
        "--updates",
        "20",
        "--learning-rate",
        "0.003",
        "--warmup-updates",
        "2",
    )
    made = call(own, *arguments, "--out", "runs/further", "--json").data
    assert made["metrics"].keys() == {"largest"}
    assert trained.run.name in made["origin"]["title"]
    before = json.loads((trained.run / "checkpoint.json").read_text())["metrics"]["smallest"]
    assert made["metrics"]["largest"]["loss"] < before["loss"]
    assert made["data"]["languages"] == ["xa", "xb"]
    for source in ("supernet", "subnet"):
        require(
            call(own, "evaluate", "--run", "further", "--arch", "largest", "--source", source, "--dump-text", source)
        )
    assert (own / "supernet").read_bytes() == (own / "subnet").read_bytes()
    told = call(own, "finetune", "--arch", "smallest", "--data", "data.tsv", "--run", trained.run.name)
    refused(told, 2, "translates", "leave --data out")


# -- stopped -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_that_is_killed_ends_with_the_same_weights(own: Path, trained: Trained) -> None:
    arguments = (*TRAIN, "--evaluate-every", "2", "--out")
    state = own / "runs" / "broken" / "training.json"

    def update() -> int:
        return json.loads(state.read_text())["update"] if state.exists() else 0

    rng = random.Random(1)  # noqa: S311 - moments, not secrets
    for wanted in (2, 30):
        with started(own, *arguments, "runs/broken") as process:
            wait_until(lambda wanted=wanted: update() >= wanted, process)  # type: ignore[misc]
            time.sleep(rng.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
    refused(call(own, "evaluate", "--run", "broken", "--arch", "largest"), 2, "not finished")
    assert update() < 60
    require(spawn(own, *arguments, "runs/broken"))
    assert weights(own / "runs" / "broken") == weights(trained.run)


def test_a_second_training_returns_at_once(own: Path, trained: Trained) -> None:
    run = own / trained.run.relative_to(trained.root)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    again = call(own, *TRAIN, "--json").data
    assert again["run"] == str(run.relative_to(own))
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_loss_that_is_not_finite_leaves_the_last_good_state(inputs: Path) -> None:
    arguments = (*TRAIN, "--out", "runs/wild", "--evaluate-every", "1", "--warmup-updates", "30", "--updates", "12")
    told = refused(call(inputs, *arguments, "--learning-rate", "1e5"), 1, "not finite at update", "--learning-rate")
    assert "the last good state, if there is one, is kept" in told.err
    failed = int(told.err.partition("at update ")[2].split()[0])
    state = json.loads((inputs / "runs" / "wild" / "training.json").read_text())
    assert 1 <= state["update"] < failed
    assert (inputs / "runs" / "wild" / state["weights"]).is_file()
    assert not (inputs / "runs" / "wild" / "checkpoint.json").exists()
    assert call(inputs, *arguments, "--learning-rate", "1e5", "--json").error["kind"] == "failed"
    refused(call(inputs, *arguments), 2, "other settings", "--fresh")
    require(call(inputs, *arguments, "--fresh"))


# -- data that is not what it should be --------------------------------------------------------------------------------


def _lines(count: int, word: str = "ba") -> bytes:
    return b"".join(f"{word} {n}\n".encode() for n in range(count))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"one.xa": _lines(99), "two.xb": _lines(98)}, ("not parallel", "99 lines in the one, 98 in the other")),
        ({"one.xa": _lines(99)}, ("read from 2 files, 1 were given", "--data train.en train.de")),
        ({"one.xa": _lines(99), "two.xb": _lines(99), "six.xc": _lines(99)}, ("read from 2 files, 3 were given",)),
        ({"one.xa": _lines(99), "two.xb": b""}, ("two.xb", "empty")),
        ({"one.xa": b" \n\n", "two.xb": b" \n\n"}, ("one.xa", "empty")),
        ({"one.xa": _lines(99), "two.xb": _lines(99, "caf\u00e9").decode().encode("latin-1")}, ("two.xb", "not UTF-8")),
        ({"one.xa": _lines(99), "two.xb": _lines(99).decode().encode("utf-16")}, ("two.xb", "not UTF-8")),
        ({"one.xa": _lines(99), "two.xb": _lines(98) + b"a\0b\n"}, ("two.xb", "NUL byte")),
        ({"one.xa": _lines(99), "two.xb.gz": b"not gzip"}, ("two.xb.gz", "not a whole gzip file")),
        ({"one.xa": _lines(99), "two.xb.gz": gzip.compress(_lines(99))[:-9]}, ("two.xb.gz", "not a whole gzip file")),
        ({"one.xa": _lines(3), "two.xb": _lines(3)}, ("pairs of lines",)),
        ({"one.xa": _lines(99), "two.xb": b"the same\n" * 99}, ("nothing is left", "same target")),
        ({"one.xa": _lines(99), "two.xb": b"a\n" * 99}, ("nothing is left",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_files_that_are_not_parallel_are_named(inputs: Path, files: dict[str, bytes], said: tuple[str, ...]) -> None:
    for name, content in files.items():
        (inputs / name).write_bytes(content)
    arguments = ("train", "--task", "translate", "--data", *files, *SETTINGS)
    refused(call(inputs, *arguments), 2, *said)
    assert call(inputs, *arguments, "--json").error["kind"] == "usage"
    assert not list(inputs.glob("runs/*/checkpoint.json"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "text.xa", "text.xa"], ("given twice",)),
        (["--data", "text.xa", "./text.xa"], ("given twice",)),
        (["--data", "text.xa", "no.xb"], ("there is no no.xb",)),
        (["--data", "text.xa", "targets"], ("targets is a folder",)),
        ([], ("needs pairs of texts", "--data system")),
        (["--data", "text.xa", "text.xb", "--valid", "text.xa"], ("read from 2 files, 1 were given",)),
        (["--data", "text.xa", "text.xb", "--valid", "text.xb", "text.xa"], ("xb to xa", "same order")),
        (["--data", "text.xa", "text.xb", "--valid", "text.xa", "text.xb"], ("nothing is left for the train split",)),
        (["--data", "text.xa", "text.xb", "--label-column", "x"], ("--label-column goes with labelled data",)),
        (["--data", "text.xa", "text.xb", "--text-column", "x"], ("--text-column goes with labelled data",)),
        (["--data", "text.xa", "text.xb", "--vocabulary-size", "200"], ("vocabulary of 200 is too small", "261")),
        (["--data", "text.xa", "text.xb", "--batch-tokens", "5"], ("batch of 5 tokens is too small", "--batch-tokens")),
        (["--data", "text.xa", "text.xb", "--space", "encoder.toml"], ("of family 'bert'", "--task classify")),
        (["--data", "text.xa", "text.xb", "--space", "base"], ("base is a space of family 'bert'",)),
        (["--data", "text.xa", "text.xb", "--space", "hat-wm"], ("'hat-wm'", "did you mean hat-wmt?")),
        (["--data", "system", "text.xa"], ("--data system stands alone",)),
        (["--data", "system", "--valid", "text.xa", "text.xb"], ("--data system stands alone",)),
        (["--data", "text.xa", "text.xb", "--distill", "0.5", "--recipe", "single-path"], ("nobody to distill from",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_translation_that_cannot_be_trained_is_refused(
    inputs: Path, arguments: list[str], said: tuple[str, ...]
) -> None:
    command = ("train", "--task", "translate", *SETTINGS, *arguments)
    refused(call(inputs, *command), 2, *said)
    assert call(inputs, *command, "--json").error["kind"] == "usage"
    assert not list(inputs.glob("runs/*/checkpoint.json"))


def test_a_pretrained_encoder_is_no_start_of_a_translation(inputs: Path) -> None:
    command = ("train", "--task", "translate", "--data", "text.xa", "text.xb", "--init", "targets")
    refused(call(inputs, *command), 2, "does not translate", "--init goes with mlm")


def test_a_classifier_is_not_trained_in_a_space_of_translations(inputs: Path) -> None:
    told = call(inputs, "train", "--data", "data.tsv", "--space", "space.toml")
    refused(told, 2, "of family 'translation'", "--task translate")


def test_packed_files_and_held_out_ones_give_the_same_languages(inputs: Path) -> None:
    for name in ("text.xa", "text.xb"):
        (inputs / f"{name}.gz").write_bytes(gzip.compress((inputs / name).read_bytes()))
        held_out = [pair[name.endswith("b")] for pair in cipher(60, seed=5)]
        (inputs / name).write_text("".join(f"{line}\n" for line in held_out))
    arguments = ("--data", "text.xa.gz", "text.xb.gz", "--valid", "text.xa", "text.xb", "--updates", "1")
    data = call(inputs, "train", "--task", "translate", *SETTINGS, *arguments, "--json").data["data"]
    assert data["languages"] == ["xa", "xb"]
    assert (data["validation"], data["test"]) == (30, 30)
    assert data["train"] <= PAIRS
    assert data["files"].keys() == {"text.xa.gz", "text.xb.gz", "text.xa (held out)", "text.xb (held out)"}


# -- what this machine says --------------------------------------------------------------------------------------------

SYSTEM = (
    "train",
    "--task",
    "translate",
    "--space",
    "space.toml",
    "--updates",
    "1",
    "--vocabulary-size",
    "400",
    "--data",
)


def test_a_machine_without_catalogues_says_what_to_give_instead(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = functools.partial(text.read_catalogues, roots=[inputs / "locale"])
    monkeypatch.setattr(text, "read_catalogues", reading)
    for given in ("system", "system:fr"):
        told = refused(
            call(inputs, *SYSTEM, given), 2, "too few translations", "0 messages", "--data train.en train.de"
        )
        assert f"at least {FEWEST_PAIRS} are needed" in told.err
        assert call(inputs, *SYSTEM, given, "--json").error["kind"] == "usage"
    assert not (inputs / "runs").exists()


def test_the_catalogues_of_this_machine_where_it_has_any(inputs: Path) -> None:
    told = call(inputs, *SYSTEM, "system", "--json")
    if told.code == 2:
        assert "too few translations" in told.error["message"]
        pytest.skip("this machine has no catalogues to speak of")
    data = told.data["data"]
    assert data["languages"][0] == "en"
    assert data["train"] + data["validation"] + data["test"] >= FEWEST_PAIRS / 2
    assert "packages on this machine" in data["title"]
    (said,) = call(inputs, "evaluate", "--arch", "smallest", "--source", "subnet", "--limit", "2", "--json").data
    assert said["quality"]["n"] == 2


# -- tampered with -----------------------------------------------------------------------------------------------------


def _changed_bit(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "data.safetensors", "references.jsonl", "examples.json", "data.json"]
)
@pytest.mark.parametrize("damage", [_changed_bit, Path.unlink], ids=["changed", "removed"])
def test_prepared_data_that_was_tampered_with_is_named(
    own: Path, trained: Trained, name: str, damage: Callable[[Path], Any]
) -> None:
    damage(own / trained.run.relative_to(trained.root) / "data" / name)
    for source in ("supernet", "subnet"):
        refused(call(own, "evaluate", "--arch", "largest", "--source", source), 5, name)


@pytest.mark.parametrize("part", ["weights", "data", "tokenizer", "checkpoint"])
def test_a_part_of_another_run_is_not_taken_for_its_own(own: Path, trained: Trained, part: str) -> None:
    """Whole files that are what they say, but of a run with other data."""
    run, other = own / trained.run.relative_to(trained.root), own / "runs" / "other"
    require(call(own, *TRAIN, "--updates", "1", "--seed", "5", "--out", "runs/other"))
    theirs, ours = (next(folder.glob("weights-*")) for folder in (other, run))
    if part == "weights":
        shutil.copy(theirs, ours)
    elif part == "data":
        shutil.rmtree(run / "data")
        shutil.copytree(other / "data", run / "data")
    elif part == "tokenizer":
        shutil.copy(other / "data" / "tokenizer.json", run / "data" / "tokenizer.json")
    else:
        shutil.copy(other / "checkpoint.json", run / "checkpoint.json")
    refused(call(own, "evaluate", "--run", run.name, "--arch", "largest"), 5)


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info | {"space": info["space"] | {"family": "bert"}},
        lambda info: info | {"space": info["space"] | {"family": "gpt"}},
        lambda info: info | {"training": info["training"] | {"task": "classify"}},
        lambda info: info | {"weights": "../../secret"},
        lambda info: info | {"space": info["space"] | {"fixed": info["space"]["fixed"] | {"attention": 7}}},
    ],
    ids=["family", "no family", "task", "elsewhere", "indivisible"],
)
def test_a_checkpoint_that_contradicts_itself_is_refused(
    own: Path, trained: Trained, change: Callable[[Any], Any]
) -> None:
    rewritten(own / trained.run.relative_to(trained.root) / "checkpoint.json", change)
    for source in ("supernet", "subnet"):
        told = call(own, "evaluate", "--arch", "largest", "--source", source, "--limit", "2")
        refused(told, 5)
