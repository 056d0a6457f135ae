"""A subnet is cut out, trained on, and ships: on its own data, on labels, on pairs, on numbers, with a teacher."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from made_project import Called, Made, call, copied, refused, require, sentences, started, wait_until
from safetensors.numpy import load_file

from toolchain.files import sha256_file
from toolchain.text import read_tokenizer

QUICK = ("--updates", "20", "--evaluate-every", "10", "--warmup-updates", "2", "--learning-rate", "0.003")
FINETUNE = ("finetune", "--run", "words", *QUICK)
LABELS = (*FINETUNE, "--arch", "winner", "--data", "data.tsv")
PAIRS = (*FINETUNE, "--arch", "largest", "--data", "pairs.tsv")
NUMBERS = (*FINETUNE, "--arch", "winner", "--task", "regress", "--data", "scores.tsv")
FORMS = ("supernet", "subnet", "bundle")


class Tuned(NamedTuple):
    """A project in which the winner of the masked-word run was fine-tuned on each kind of task. Look, do not touch."""

    root: Path
    said: dict[str, Called]

    def info(self, name: str) -> Any:
        return json.loads((self.root / "runs" / name / "checkpoint.json").read_text())


def write_tasks(root: Path) -> None:
    """Pairs of sentences that are on the same subject or not, and sentences with a number."""
    items, rng = sentences(300), random.Random(1)  # noqa: S311 - pairs, not secrets
    pairs = [(*rng.choice(items), *rng.choice(items)) for _ in range(300)]
    rows = [f"{one}\t{two}\t{'same' if mine == yours else 'other'}\n" for one, mine, two, yours in pairs]
    (root / "pairs.tsv").write_text("sentence1\tsentence2\tlabel\n" + "".join(rows))
    scores = [f"{text}\t{len(text.split()) / 4 + rng.random() / 10:.3f}\n" for text, _ in items]
    (root / "scores.tsv").write_text("sentence\tscore\n" + "".join(scores))


@pytest.fixture(scope="module")
def tuned(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    root = copied(made.root, tmp_path_factory.mktemp("tuned") / "project")
    write_tasks(root)
    said = {"search": call(root, "search", "--run", "words", "--params", "12k", "--evaluations", "8")}
    said["labels"] = call(root, *LABELS, "--out", "runs/labels")
    said["pairs"] = call(root, *PAIRS, "--out", "runs/pairs")
    said["numbers"] = call(root, *NUMBERS, "--out", "runs/numbers")
    for one in said.values():
        require(one)
    return Tuned(root, said)


@pytest.fixture
def project(tuned: Tuned, tmp_path: Path) -> Path:
    return copied(tuned.root, tmp_path / "project")


def weights_of(run: Path) -> dict[str, Any]:
    info = json.loads((run / "checkpoint.json").read_text())
    assert sha256_file(run / info["weights"]) == info["weights_sha256"]
    return load_file(run / info["weights"])


# -- what it is ------------------------------------------------------------------------------------------------------


def test_a_finetuned_run_says_what_it_is_and_where_it_came_from(tuned: Tuned) -> None:
    info, parent = tuned.info("labels"), tuned.info("words")
    winner = json.loads((tuned.root / "runs/words/search/result.json").read_text())["winner"]["architecture"]
    assert info["space"]["point"] == winner
    assert info["training"]["task"] == "classify"
    assert info["training"]["mixture"]["kind"] == "plain"
    assert info["training"]["sequence_length"] == parent["training"]["sequence_length"] == 16
    assert info["tokenizer_sha256"] == parent["tokenizer_sha256"]
    assert info["origin"]["title"].endswith(" of words")
    assert info["teacher"] is None
    assert info["metrics"].keys() == {"largest"}
    assert info["parameters"] < 12_100
    said = tuned.said["labels"].out
    assert f"started from {info['origin']['title']}" in said
    assert "next: mostool export --run runs/labels" in said


@pytest.mark.parametrize(("name", "metric"), [("labels", "accuracy"), ("pairs", "accuracy"), ("numbers", "pearson")])
def test_it_ships_like_any_other(tuned: Tuned, tmp_path: Path, name: str, metric: str) -> None:
    """Evaluated in every form, exported without being told which, verified, and run by a stranger."""
    project = copied(tuned.root, tmp_path / "project")
    figures = [call(project, "evaluate", "--run", name, "--source", form, "--json").data for form in FORMS]
    assert [[one["source"] for one in figure] for figure in figures] == [[form] for form in FORMS]
    qualities = [figure[0]["quality"] for figure in figures]
    assert qualities[0]["metric"] == metric
    assert qualities[0]["n"] == 30
    for other in qualities[1:]:
        assert other["value"] == pytest.approx(qualities[0]["value"], abs=1e-5)
        assert other["loss"] == pytest.approx(qualities[0]["loss"], abs=1e-4)
    exported = call(project, "export", "--run", name, "--device", "quick", "--json").data
    bundle, manifest = project / exported["bundle"], exported["manifest"]
    assert manifest["quality"]["value"] == pytest.approx(qualities[0]["value"], abs=1e-5)
    assert manifest["origin"] == tuned.info(name)["origin"]
    assert manifest["alone"] is True
    assert manifest["pairs"] is (name == "pairs")
    assert manifest["trivial_quality"] is None or name != "numbers"
    require(call(project, "verify", bundle, "--no-speed"))
    card = (bundle / "README.md").read_text()
    assert f"started from {manifest['origin']['title']}" in card
    answers = said_by_example(bundle)
    assert answers
    assert_checks_are_of(bundle, texts=2 if name == "pairs" else 1)
    if name == "pairs":
        assert "It reads pairs of texts." in card
        first, second = json.loads((bundle / "examples.json").read_text())[0]
        assert answers[:2] == [first, second]
    if name == "numbers":
        assert "It answers with a number." in card
        assert all(float(line) for line in answers[1::2])
    require(call(project, "report", "--run", name))


def said_by_example(bundle: Path, *texts: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, bundle / "run_example.py", *texts], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def assert_checks_are_of(bundle: Path, texts: int) -> None:
    """What the file was asked is what the run reads: each text closed by its separator."""
    (separator,) = read_tokenizer(bundle).encode("", add_special_tokens=True).ids[1:]
    asked = load_file(bundle / "parity.safetensors")["2.input_ids"]
    assert all((row == separator).sum() == texts for row in asked), asked


# -- on its own data -------------------------------------------------------------------------------------------------


def test_additional_training_goes_on_with_the_run_s_own_data(project: Path) -> None:
    before = call(project, "evaluate", "--run", "words", "--arch", "winner", "--split", "validation", "--json").data
    more = call(project, *FINETUNE, "--updates", "60", "--arch", "winner", "--json").data
    after = call(project, "evaluate", "--split", "validation", "--json").data
    assert after[0]["id"] == before[0]["id"]
    assert after[0]["quality"]["metric"] == "masked_accuracy"
    assert after[0]["quality"]["loss"] < before[0]["quality"]["loss"]
    parent, child = project / "runs/words/data", project / more["run"] / "data"
    assert {path.name: path.read_bytes() for path in child.iterdir()} == {
        path.name: path.read_bytes() for path in parent.iterdir()
    }


def test_a_finetuned_run_is_finetuned_again(project: Path) -> None:
    """The head is kept where the labels are the same, and starts anew where they are others."""
    still = ("--updates", "1", "--learning-rate", "1e-9", "--arch", "winner")
    before = weights_of(project / "runs" / "labels")
    same = call(project, "finetune", "--run", "labels", "--data", "data.tsv", *still, "--json").data["run"]
    renamed = (project / "data.tsv").read_text().replace("\tsea", "\tocean")
    (project / "renamed.tsv").write_text(renamed)
    other = call(project, "finetune", "--run", "labels", "--data", "renamed.tsv", *still, "--json").data["run"]
    for run, kept in ((same, True), (other, False)):
        after = weights_of(project / run)
        changed = {name.removeprefix("subnet.") for name in after if abs(after[name] - before[name]).max() > 1e-6}
        assert changed == (set() if kept else {"head.labels.weight", "head.labels.bias"})


def test_a_labelled_task_keeps_everything_but_the_head(project: Path) -> None:
    words = call(project, *FINETUNE, "--arch", "largest", "--updates", "1", "--learning-rate", "1e-9", "--json").data
    still = ("--data", "data.tsv", "--updates", "1", "--learning-rate", "1e-9", "--json")
    labelled = call(project, "finetune", "--run", words["run"], *still).data
    before, after = (weights_of(project / one["run"]) for one in (words, labelled))
    kept = after.keys() & before.keys()
    assert after.keys() - kept == {"subnet.head.labels.weight", "subnet.head.labels.bias"}
    assert all(abs(after[name] - before[name]).max() < 1e-6 for name in kept)


# -- the same again --------------------------------------------------------------------------------------------------


def test_the_same_command_finds_its_work_done(project: Path) -> None:
    """Without --run it is the newest run of many subnets that is meant, also when a fine-tuned one is newer."""
    require(call(project, *FINETUNE[:1], *QUICK, "--run", "words", "--data", "data.tsv"))
    for path in (project / "runs").iterdir():
        if (
            path.name not in {"words", "labels", "pairs", "numbers"}
            and json.loads((path / "checkpoint.json").read_text())["space"].get("point") is None
        ):
            subprocess.run(["rm", "-r", str(path)], check=True)  # noqa: S607
    before = sorted(path.name for path in (project / "runs").iterdir())
    again = require(call(project, *FINETUNE[:1], *QUICK, "--data", "data.tsv"))
    assert "train:" not in again.err
    assert sorted(path.name for path in (project / "runs").iterdir()) == before


@pytest.mark.slow
def test_finetuning_killed_again_and_again_ends_with_the_same_weights(project: Path) -> None:
    arguments = (*LABELS, "--updates", "24", "--evaluate-every", "1")
    require(call(project, *arguments, "--out", "runs/whole"))
    broken = project / "runs" / "broken"
    rng = random.Random(1)  # noqa: S311 - moments, not secrets

    def update() -> int:
        state = broken / "training.json"
        return json.loads(state.read_text())["update"] if state.exists() else 0

    for wanted in (1, 10):
        with started(project, *arguments, "--out", "runs/broken") as process:
            wait_until(lambda wanted=wanted: update() >= wanted, process)  # type: ignore[misc]
            time.sleep(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
        assert update() >= wanted
    assert not (broken / "checkpoint.json").exists()
    require(call(project, *arguments, "--out", "runs/broken"))
    whole, again = weights_of(project / "runs" / "whole"), weights_of(broken)
    assert all((whole[name] == again[name]).all() for name in whole)


# -- with a teacher --------------------------------------------------------------------------------------------------


def test_a_teacher_changes_what_is_learned_and_is_named(project: Path) -> None:
    require(call(project, *FINETUNE, "--arch", "largest", "--data", "data.tsv", "--out", "runs/teacher"))
    small = (*FINETUNE, "--arch", "smallest", "--data", "data.tsv")
    alone = require(call(project, *small, "--out", "runs/alone"))
    require(call(project, *small, "--teacher", "teacher", "--out", "runs/taught"))
    info = json.loads((project / "runs/taught/checkpoint.json").read_text())
    assert info["teacher"]["title"].endswith(" of teacher")
    assert info["training"]["distill"] == 0.5
    losses = [
        json.loads((project / "runs" / name / "training.json").read_text())["curve"][-1]["losses"]["largest"]
        for name in ("alone", "taught")
    ]
    assert losses[0] != losses[1]
    assert "alone" in alone.out
    manifest = call(project, "export", "--run", "taught", "--device", "quick", "--json").data
    assert manifest["manifest"]["teacher"] == info["teacher"]
    card = (project / manifest["bundle"] / "README.md").read_text()
    assert f"learned from the answers of {info['teacher']['title']}" in card
    assert "which weighed 50 %" in card


def test_the_supernet_s_largest_teaches_additional_training_and_numbers_are_taught_too(project: Path) -> None:
    require(call(project, *FINETUNE, "--arch", "smallest", "--teacher", "words", "--distill", "0.9"))
    teacher = "numbers:winner"
    told = call(project, *NUMBERS[:-4], "--task", "regress", "--data", "scores.tsv", "--teacher", teacher, "--json")
    assert told.data["metrics"]["largest"]["metric"] == "pearson"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*LABELS, "--teacher", "pairs"), ("other labels", "forest, kitchen, sea")),
        ((*LABELS, "--teacher", "numbers"), ("for the task 'regress', not 'classify'",)),
        ((*LABELS, "--teacher", "words"), ("for the task 'mlm', not 'classify'",)),
        ((*LABELS, "--teacher", "CLASSIFY"), ("another tokenizer", "read the same tokens")),
        ((*LABELS, "--teacher", "nobody"), ("no run nobody",)),
        ((*LABELS, "--teacher", "labels:smallest", "--distill", "0"), ("weigh nothing", "--distill")),
        ((*LABELS, "--distill", "0.5"), ("nobody to distill from", "--teacher")),
    ],
    ids=lambda given: given[-1] if len(given) > 1 and given[0] == "finetune" else None,
)
def test_a_teacher_that_cannot_teach_is_refused(
    project: Path, made: Made, arguments: tuple[str, ...], said: tuple[str, ...]
) -> None:
    given = [made.classify.name if one == "CLASSIFY" else one for one in arguments]
    before = sorted((project / "runs").iterdir())
    refused(call(project, *given), 2, *said)
    assert sorted((project / "runs").iterdir()) == before


# -- what does not go ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*FINETUNE, "--data", "scores.tsv", "--label-column", "score"), ("different numbers", "--task regress")),
        ((*FINETUNE, "--data", "data.tsv", "--task", "regress"), ("finite number", "--task classify")),
        ((*FINETUNE, "--task", "classify"), ("for the task 'mlm', not 'classify'", "--data")),
        ((*FINETUNE, "--data", "nowhere.tsv"), ("nowhere.tsv",)),
        ((*FINETUNE, "--data", "text.txt"), ("no labels", "--task mlm")),
        ((*LABELS, "--sequence-length", "17"), ("16 tokens at most", "--sequence-length 16")),
        ((*FINETUNE, "--sequence-length", "8"), ("cut at 16 tokens", "--data")),
        ((*FINETUNE, "--valid", "data.tsv"), ("--valid goes with --data",)),
        ((*FINETUNE, "--label-column", "label"), ("--label-column goes with --data",)),
        ((*FINETUNE, "--data", "pairs.tsv", "--valid", "data.tsv"), ("pairs of texts", "single texts")),
        (("finetune", "--run", "labels", "--arch", "largest-ish"), ("no architecture is known as",)),
        (("finetune", "--run", "nobody"), ("no run nobody",)),
    ],
)
def test_what_does_not_fit_is_refused(project: Path, arguments: tuple[str, ...], said: tuple[str, ...]) -> None:
    before = sorted((project / "runs").glob("*/checkpoint.json"))
    refused(call(project, *arguments), 2, *said)
    assert sorted((project / "runs").glob("*/checkpoint.json")) == before


# -- of one subnet ---------------------------------------------------------------------------------------------------


def test_a_run_of_one_subnet_is_profiled_and_not_searched(project: Path) -> None:
    told = require(call(project, "profile", "--run", "labels", "--device", "quick"))
    assert "1 measured now, 1 in all" in told.out
    assert "next: mostool export --device quick --run labels" in told.out
    assert call(project, "profile", "--run", "labels", "--device", "quick", "--json").data["measured_now"] == 0
    refused(call(project, "search", "--run", "labels"), 2, "holds one subnet", "mostool export")
    refused(call(project, "search", "--run", "labels", "--latency", "5ms"), 2, "holds one subnet")
    refused(call(project, "evaluate", "--run", "labels", "--arch", '{"family": "bert", "axes": {}}'), 2, "not the one")
    manifest = call(project, "export", "--run", "labels", "--json").data["manifest"]
    assert (manifest["target"], manifest["predicted_s"]) == ("quick", None)


# -- translations ----------------------------------------------------------------------------------------------------

TRANSLATION = """\
name = "made"
family = "translation"
fixed = { width = 16, attention = 16 }
axes = [
  { name = "encoder_embedding", choices = [8, 16] },
  { name = "decoder_embedding", choices = [8, 16] },
  { name = "encoder_depth", choices = [2] },
  { name = "decoder_depth", choices = [1, 2] },
  { name = "encoder_ffn", choices = [8, 24], per = "encoder_depth" },
  { name = "encoder_heads", choices = [1, 2], per = "encoder_depth" },
  { name = "decoder_ffn", choices = [8, 24], per = "decoder_depth" },
  { name = "decoder_heads", choices = [1, 2], per = "decoder_depth" },
  { name = "cross_heads", choices = [1, 2], per = "decoder_depth" },
  { name = "cross_layers", choices = [1, 2], per = "decoder_depth" },
]
"""


def test_a_translation_is_trained_on_with_its_own_data_alone(project: Path) -> None:
    texts = [text for text, _ in sentences(300)]
    (project / "a.en").write_text("".join(f"{text}\n" for text in texts))
    (project / "a.de").write_text("".join(f"{text[::-1]}\n" for text in texts))
    (project / "translation.toml").write_text(TRANSLATION)
    made = ("--space", "translation.toml", "--sequence-length", "32", "--vocabulary-size", "300")
    train = ("train", "--task", "translate", "--data", "a.en", "a.de", *made, "--batch-tokens", "512", *QUICK)
    require(call(project, *train, "--out", "runs/speech"))
    before = call(project, "evaluate", "--run", "speech", "--arch", "smallest", "--limit", "4", "--json").data
    cut = ("finetune", "--run", "speech", "--arch", "smallest", *QUICK, "--teacher", "speech")
    more = call(project, *cut, "--out", "runs/cut", "--json").data
    assert more["metrics"]["largest"]["metric"] == "token_accuracy"
    told = [call(project, "evaluate", "--source", form, "--limit", "4", "--json").data for form in FORMS[:2]]
    assert told[0][0]["quality"]["loss"] == pytest.approx(told[1][0]["quality"]["loss"], abs=1e-5)
    assert told[0][0]["quality"]["loss"] < before[0]["quality"]["loss"]
    refused(call(project, *cut, "--data", "data.tsv"), 2, "translates", "leave --data out")
    shipped = call(project, "export", "--run", "cut", "--json").data
    assert shipped["manifest"]["alone"]
    assert shipped["manifest"]["teacher"]["title"]
    require(call(project, "verify", shipped["bundle"], "--no-speed"))
