"""train --init: a supernet that starts from a BERT or RoBERTa checkpoint, through the command line.

The checkpoints are small ones of transformers, made here with random weights; nothing is fetched.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import safetensors.torch
import torch
from made_project import call, copied, refused, require, rewritten, sentences, spawn, started, wait_until
from made_project import write_inputs as write_project
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from toolchain.files import sha256_file
from toolchain.pipeline.pretrained import read_start
from toolchain.pipeline.runs import Run
from toolchain.records import Mixture, Training
from toolchain.supernet.families import build_supernet, declaration
from toolchain.supernet.module import Batch

WIDTH, DEPTH, HEADS, FFN, PLACES, SPARE = 64, 3, 4, 128, 40, 8
TRAINING = ("--updates", "3", "--evaluate-every", "3", "--batch-size", "8", "--sequence-length", "16")
MLM = ("train", "--task", "mlm", "--data", "text.txt", *TRAINING)
UNMOVED = ("--updates", "1", "--evaluate-every", "1", "--learning-rate", "1e-12")
MIXTURES = {
    "plain": Mixture(kind="plain", experts=1),
    "layer": Mixture(kind="layer", experts=2),
    "neuron": Mixture(kind="neuron", experts=2),
    "neuron, attention too": Mixture(kind="neuron", experts=3, attention=True),
}
EPSILONS = {"bert": 12, "roberta": 5}
SPACE = f"""\
name = "around"
family = "bert"

[fixed]
width = {WIDTH}
head_width = {WIDTH // HEADS}

[[axes]]
name = "depth"
choices = [1, {DEPTH}]

[[axes]]
name = "hidden"
choices = [16, {WIDTH}]
per = "depth"

[[axes]]
name = "heads"
choices = [2, {HEADS}]
per = "depth"

[[axes]]
name = "ffn"
choices = [32, {FFN}]
per = "depth"
"""


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="transformers is not installed: no checkpoint to start from")


class Checkpoints(NamedTuple):
    """A project whose folder also holds the checkpoints `bert` and `roberta`, and the models they are of."""

    root: Path
    models: dict[str, Any]
    tokenizers: dict[str, Any]


@pytest.fixture(scope="module")
def checkpoints(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    root = write_project(tmp_path_factory.mktemp("init") / "project")
    (root / "around.toml").write_text(SPACE)
    tokenizers = {"bert": wordpiece(transformers, root / "bert"), "roberta": bytelevel(transformers, root / "roberta")}
    made = {kind: save_model(transformers, kind, tokenizers[kind], root / kind) for kind in tokenizers}
    return Checkpoints(root, made, tokenizers)


@pytest.fixture
def project(checkpoints: Checkpoints, tmp_path: Path) -> Path:
    return copied(checkpoints.root, tmp_path / "project")


def texts() -> list[str]:
    return [text for text, _ in sentences(300)]


def wordpiece(transformers: Any, folder: Path) -> Any:
    folder.mkdir()
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 - a token of text
    trained.normalizer, trained.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    front = ["[PAD]", *(f"[unused{number}]" for number in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trained.train_from_iterator(texts(), trainers.WordPieceTrainer(vocab_size=400, special_tokens=front))
    trained.model.save(str(folder))
    tokenizer = transformers.BertTokenizerFast(vocab_file=str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    return tokenizer


def bytelevel(transformers: Any, folder: Path) -> Any:
    folder.mkdir()
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    trained.train_from_iterator(texts(), trainer)
    trained.model.save(str(folder))
    tokenizer = transformers.RobertaTokenizerFast(
        vocab_file=str(folder / "vocab.json"), merges_file=str(folder / "merges.txt")
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_model(transformers: Any, kind: str, tokenizer: Any, folder: Path, head: str = "ForMaskedLM") -> Any:
    """Norms and biases that are not ones and zeros, as after some training."""
    settings = {
        "vocab_size": len(tokenizer) + SPARE,
        "hidden_size": WIDTH,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "intermediate_size": FFN,
        "max_position_embeddings": PLACES + 2 * (kind == "roberta"),
        "layer_norm_eps": 10.0 ** -EPSILONS[kind],
        "pad_token_id": tokenizer.pad_token_id,
    }
    name = kind.capitalize()
    torch.manual_seed(7)
    model = getattr(transformers, f"{name}{head}")(getattr(transformers, f"{name}Config")(**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


def difference(checkpoints: Checkpoints, kind: str, own: Any, answer: Callable[[Batch], torch.Tensor]) -> float:
    """The largest difference of logits from transformers' on the same texts, each read by its own tokenizer."""
    model, tokenizer = checkpoints.models[kind], checkpoints.tokenizers[kind]
    asked = [text for text in texts()[:24] if len(own.encode(text).ids) <= PLACES]
    assert len(asked) > 15
    names = dict(zip(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), special_tokens(tokenizer), strict=True))
    rows = [
        tokenizer.convert_tokens_to_ids(names.get(own.id_to_token(number), own.id_to_token(number)))
        for number in range(own.get_vocab_size())
    ]
    worst = 0.0
    for text in asked:
        theirs, ours = torch.tensor([tokenizer(text)["input_ids"]]), torch.tensor([own.encode(text).ids])
        assert torch.tensor(rows)[ours].equal(theirs)
        with torch.no_grad():
            expected = model(input_ids=theirs).logits[..., rows]
            answers = answer(Batch(ours, torch.ones_like(ours)))
        assert expected.std() > 0.1
        worst = max(worst, float((answers - expected).abs().max()))
    return worst


def special_tokens(tokenizer: Any) -> list[str]:
    return [getattr(tokenizer, f"{role}_token") for role in ("pad", "unk", "cls", "sep", "mask")]


def info_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "checkpoint.json").read_text())
    return found


# -- the same function -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EPSILONS)
@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("space", [None, "around.toml"])
def test_before_training_the_largest_subnet_is_the_checkpoint(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, kind: str, mixture: str, space: str | None
) -> None:
    monkeypatch.chdir(checkpoints.root)
    asked = Training(task="mlm", mixture=MIXTURES[mixture], sequence_length=PLACES)
    declared, training, start = read_start(kind, space, asked)
    declaration("bert").check_space(declared)
    assert declared.fixed["norm_epsilon_exponent"] == EPSILONS[kind]
    assert training.vocabulary_size == start.tokenizer.get_vocab_size() == len(checkpoints.tokenizers[kind])
    resolved = declaration("bert").resolve(
        declared, vocabulary_size=training.vocabulary_size, labels=0, maximum_length=training.sequence_length
    )
    torch.manual_seed(1)
    supernet = build_supernet(resolved, training.mixture, 0.1)
    start.fill(supernet)
    supernet.eval()
    largest = resolved.largest()
    assert difference(checkpoints, kind, start.tokenizer, lambda batch: supernet(batch, largest)) < 2e-5
    subnet = supernet.materialize(largest)
    assert difference(checkpoints, kind, start.tokenizer, lambda batch: subnet(*batch.inputs)) < 2e-5


@pytest.mark.parametrize("kind", EPSILONS)
def test_a_run_that_did_not_move_is_the_checkpoint(checkpoints: Checkpoints, project: Path, kind: str) -> None:
    """Through files: what the command saved is read again, epsilon and tokenizer included."""
    called = call(project, *MLM, *UNMOVED, "--sequence-length", PLACES, "--init", kind, "--out", "runs/x", "--json")  # type: ignore[arg-type]
    assert called.data["origin"]["title"] == kind
    run = Run(project / "runs" / "x")
    own = Tokenizer.from_file(str(run.data_folder / "tokenizer.json"))
    assert run.supernet.mixture.kind == "neuron"
    largest = run.info.space.largest()
    assert difference(checkpoints, kind, own, lambda batch: run.supernet(batch, largest)) < 2e-5


def test_one_architecture_alone_starts_from_its_slices(checkpoints: Checkpoints, project: Path) -> None:
    narrow = json.dumps(
        {
            "family": "bert",
            "axes": {"depth": DEPTH, "hidden": [WIDTH] * DEPTH, "heads": [HEADS] * DEPTH, "ffn": [32, FFN, FFN]},
        }
    )
    for arch, name in (("largest", "whole"), (narrow, "narrow")):
        given = ("--space", "around.toml", "--only", arch, "--out", f"runs/{name}")
        require(call(project, *MLM, *UNMOVED, "--sequence-length", str(PLACES), "--init", "bert", *given))
    whole, narrowed = Run(project / "runs" / "whole"), Run(project / "runs" / "narrow")
    own = Tokenizer.from_file(str(whole.data_folder / "tokenizer.json"))
    point = whole.info.space.largest()
    assert difference(checkpoints, "bert", own, lambda batch: whole.supernet(batch, point)) < 2e-5
    stored = safetensors.torch.load_file(project / "bert" / "model.safetensors")
    sliced = narrowed.supernet.fold(narrowed.info.space.largest())["blocks.0.fc1.weight"].detach()
    torch.testing.assert_close(sliced, stored["bert.encoder.layer.0.intermediate.dense.weight"][:32], atol=1e-6, rtol=0)


# -- a run, and what goes on from it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "arch"), [("bert", "largest"), ("roberta", "smallest")])
def test_a_run_says_where_it_began_and_ships(project: Path, kind: str, arch: str) -> None:
    told = require(call(project, *MLM, "--init", kind, "--out", "runs/from"))
    assert f"started from {kind}; {SPARE} rows of the embedding" in told.out
    info = info_of(project / "runs" / "from")
    assert info["origin"]["title"] == kind
    assert info["origin"]["sha256"] == sha256_file(project / kind / "model.safetensors")
    assert info["origin"]["notes"] == [f"{SPARE} rows of the embedding belong to no token and were left out"]
    fixed = info["space"]["fixed"]
    assert fixed["norm_epsilon_exponent"] == EPSILONS[kind]
    assert (fixed["width"], fixed["maximum_length"]) == (WIDTH, 16)
    assert info["training"]["vocabulary_size"] == info["vocabulary_size"] == fixed["vocabulary_size"]
    again = require(call(project, *MLM, "--init", kind, "--out", "runs/from"))
    assert "train:" not in again.err

    require(call(project, "export", "--arch", arch, "--device", "quick", "--out", "bundles/it"))
    manifest = json.loads((project / "bundles" / "it" / "manifest.json").read_text())
    assert manifest["artifact"]["parity_max_abs_error"] < manifest["parity_tolerance"]
    require(call(project, "verify", "bundles/it"))


def test_a_subnet_of_such_a_run_is_trained_on(project: Path) -> None:
    require(call(project, *MLM, "--init", "bert", "--out", "runs/from"))
    tuned = ("finetune", "--run", "from", "--arch", "middle", "--updates", "3", "--batch-size", "8")
    require(call(project, *tuned, "--out", "runs/on"))
    require(call(project, *tuned, "--data", "data.tsv", "--out", "runs/labels"))
    for name in ("on", "labels"):
        assert info_of(project / "runs" / name)["space"]["fixed"]["norm_epsilon_exponent"] == EPSILONS["bert"]
    require(call(project, "export", "--run", "labels", "--device", "quick", "--out", "bundles/labels"))
    require(call(project, "verify", "bundles/labels"))


def test_a_checkpoint_without_a_head_says_that_one_was_made(transformers: Any, project: Path) -> None:
    tokenizer = transformers.BertTokenizerFast.from_pretrained(project / "bert")
    save_model(transformers, "bert", tokenizer, project / "bert", head="Model")
    assert "no masked-word head: a new one was made" in require(call(project, *MLM, "--init", "bert")).out


@pytest.mark.parametrize("task", ["classify", "regress"])
def test_a_labelled_task_starts_from_it_too(project: Path, task: str) -> None:
    if task == "regress":
        lines = [f"{text}\t{len(text.split()) / 10}\n" for text in texts()]
        (project / "data.tsv").write_text("sentence\tscore\n" + "".join(lines))
    arguments = ("train", "--task", task, "--data", "data.tsv", *TRAINING, "--init", "roberta", "--out", "runs/it")
    told = call(project, *arguments, "--json").data
    assert told["origin"]["title"] == "roberta"
    assert told["metrics"].keys() == {"largest", "smallest"}


def test_a_run_that_was_killed_goes_on(project: Path) -> None:
    """To the weights of one that was not: the noise of the experts is drawn again, and then not used."""
    arguments = (*MLM, "--init", "bert", "--updates", "15", "--evaluate-every", "1")
    state = project / "runs" / "broken" / "training.json"
    with started(project, *arguments, "--out", "runs/broken") as process:
        wait_until(state.exists, process)
        process.send_signal(signal.SIGKILL)
    assert not (state.parent / "checkpoint.json").exists()
    require(call(project, *arguments, "--out", "runs/broken"))
    require(call(project, *arguments, "--out", "runs/whole"))
    broken, whole = (info_of(project / "runs" / name) for name in ("broken", "whole"))
    assert broken["weights_sha256"] == whole["weights_sha256"]
    assert broken["origin"] == whole["origin"]


def test_another_checkpoint_is_another_run(project: Path) -> None:
    require(call(project, *MLM, "--init", "bert", "--out", "runs/x"))
    path = project / "bert" / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["cls.predictions.bias"] += 1
    safetensors.torch.save_file(tensors, path)
    refused(call(project, *MLM, "--init", "bert", "--out", "runs/x"), 2, "other settings")
    refused(call(project, *MLM, "--out", "runs/x"), 2, "other settings")


# -- the space and the lengths -----------------------------------------------------------------------------------------


def test_a_space_must_end_at_the_checkpoint(project: Path) -> None:
    require(call(project, *MLM, "--init", "bert", "--space", "around.toml", "--out", "runs/fits"))
    info = info_of(project / "runs" / "fits")
    assert info["space"]["name"] == "around"
    assert info["space"]["fixed"]["norm_epsilon_exponent"] == 12
    wrong = {
        "ffn": (f"[32, {FFN}]", "[32, 96]"),
        "heads": (f"[2, {HEADS}]", "[1, 2]"),
        "depth": (f"[1, {DEPTH}]", "[1, 4]"),
        "hidden": (f"[16, {WIDTH}]", "[16, 32]"),
        "head_width": (f"head_width = {WIDTH // HEADS}", "head_width = 8"),
        "norm_epsilon_exponent": ("[fixed]\n", "[fixed]\nnorm_epsilon_exponent = 5\n"),
    }
    for name, (there, instead) in wrong.items():
        (project / "other.toml").write_text(SPACE.replace(there, instead, 1))
        refused(call(project, *MLM, "--init", "bert", "--space", "other.toml"), 2, f"'{name}'")
    refused(call(project, *MLM, "--init", "bert", "--space", "tiny"), 2, "'hidden'")
    refused(call(project, *MLM, "--init", "bert", "--space", "hat-wmt"), 2, "hat-wmt")


def test_lengths_are_cut_and_never_stretched(project: Path) -> None:
    for length in (8, PLACES):
        out = f"runs/of-{length}"
        require(call(project, *MLM, "--init", "roberta", "--sequence-length", str(length), "--out", out))
        assert info_of(project / out)["space"]["fixed"]["maximum_length"] == length
    told = refused(
        call(project, *MLM, "--init", "roberta", "--sequence-length", str(PLACES + 1)), 2, f"--sequence-length {PLACES}"
    )
    assert f"it has {PLACES}" in told.err
    (project / "longer.toml").write_text(SPACE.replace("[fixed]\n", "[fixed]\nmaximum_length = 24\n"))
    require(call(project, *MLM, "--init", "bert", "--space", "longer.toml", "--out", "runs/longer"))
    assert info_of(project / "runs" / "longer")["space"]["fixed"]["maximum_length"] == 24


def test_options_that_would_say_nothing_are_refused(project: Path) -> None:
    refused(call(project, *MLM, "--init", "bert", "--vocabulary-size", "300"), 2, "--vocabulary-size")
    refused(call(project, *MLM, "--init-weights-only-pt"), 2, "--init FOLDER")
    (project / "mostool.toml").write_text("[train]\nvocabulary-size = 300\n")  # not meant for this run alone
    require(call(project, *MLM, "--init", "bert", "--dry-run"))


@pytest.mark.parametrize("kind", EPSILONS)
def test_a_dry_run_counts_the_checkpoint_and_starts_nothing(checkpoints: Checkpoints, project: Path, kind: str) -> None:
    counted = call(project, *MLM, "--init", kind, "--dry-run", "--json").data
    model = checkpoints.models[kind]
    # Theirs without the rows and positions left out, the embedding of types; ours with a link a layer and the head's.
    spare = WIDTH * (SPARE + sum(model.base_model.embeddings.token_type_embeddings.weight.shape[:1]))
    positions = WIDTH * (model.config.max_position_embeddings - 16)
    theirs = sum(parameter.numel() for parameter in model.parameters()) - spare - SPARE - positions
    assert counted["largest_parameters"] == theirs + DEPTH * (WIDTH + 1) * WIDTH
    assert not (project / "runs").exists()
    assert "nothing was started" in require(call(project, *MLM, "--init", kind, "--dry-run")).out


# -- what is refused ---------------------------------------------------------------------------------------------------


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)


_QUERY = "bert.encoder.layer.1.attention.self.query.weight"
_WORDS = "bert.embeddings.word_embeddings.weight"


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def shrink(folder: Path) -> None:
    """Fewer rows than the tokenizer has tokens, and config.json says so."""
    change_weights(folder, lambda tensors: tensors.update({_WORDS: tensors[_WORDS][:90].clone()}))
    rewritten(folder / "config.json", lambda config: config | {"vocab_size": 90})


BROKEN: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), 2, "config.json"),
    "gpt2": (
        lambda folder: rewritten(folder / "config.json", lambda config: config | {"model_type": "gpt2"}),
        2,
        "'gpt2'",
    ),
    "no tokenizer": (
        lambda folder: [path.unlink() for path in folder.glob("*ok*")] + [(folder / "vocab.txt").unlink()],
        2,
        "tokenizer",
    ),
    "cut short": (cut_short, 5, "not a safetensors file"),
    "a shape": (
        lambda folder: change_weights(folder, lambda tensors: tensors.update({_QUERY: torch.zeros(WIDTH, 3)})),
        5,
        "has the shape [64, 3]",
    ),
    "not finite": (
        lambda folder: change_weights(folder, lambda tensors: tensors[_QUERY].fill_(float("inf"))),
        5,
        "not finite",
    ),
    "a tokenizer of another model": (shrink, 5, "tokens that the model has not"),
}


@pytest.mark.fault("checkpoint-cut", "checkpoint-foreign")
@pytest.mark.parametrize("case", BROKEN)
def test_a_checkpoint_that_is_none_is_refused(project: Path, case: str) -> None:
    spoil, code, said = BROKEN[case]
    spoil(project / "bert")
    refused(call(project, *MLM, "--init", "bert"), code, said)
    assert not (project / "runs").exists()


def test_a_name_without_a_network_asks_for_a_folder(project: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="without it the message is another")
    offline = spawn(project, *MLM, "--init", "someone/no-such-model", HF_HUB_OFFLINE="1")
    refused(offline, 2, "there is no folder someone/no-such-model", "give a folder")
    refused(call(project, *MLM, "--init", "not/a/name"), 2, "there is no folder not/a/name")
    refused(call(project, *MLM, "--init", "text.txt"), 2, "is no folder")
    refused(call(project, *MLM, "--init", ""), 2, "folder")


def test_a_translation_does_not_start_from_an_encoder(project: Path) -> None:
    arguments = ("train", "--task", "translate", "--data", "text.txt", "text.txt", "--init", "bert")
    refused(call(project, *arguments), 2, "does not translate")


class Trap:
    """Pickled, it creates a file when it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self.path, "w")


@pytest.mark.fault("pickle")
def test_a_pickle_is_read_when_asked_for_and_only_for_tensors(project: Path) -> None:
    folder = project / "bert"
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    refused(call(project, *MLM, "--init", "bert"), 2, "--init-weights-only-pt")
    require(call(project, *MLM, "--init", "bert", "--init-weights-only-pt", "--out", "runs/x"))
    assert info_of(project / "runs" / "x")["origin"]["sha256"] == sha256_file(folder / "pytorch_model.bin")
    torch.save(tensors | {"a": Trap(str(project / "sprung"))}, folder / "pytorch_model.bin")
    refused(call(project, *MLM, "--init", "bert", "--init-weights-only-pt"), 5, "no file of plain tensors")
    assert not (project / "sprung").exists()
