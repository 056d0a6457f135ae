"""A trained run, opened: its records, its held-out data, its supernet, and the subnets people name."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from toolchain import export, text
from toolchain.errors import IntegrityError, UsageError
from toolchain.files import sha256_file
from toolchain.journal import Journal, read_journal
from toolchain.pipeline.compiling import Built, Wanted, compile_encoder, compile_translator, device_kind
from toolchain.pipeline.data import held_out_batches
from toolchain.pipeline.project import CHECKPOINT_FILE
from toolchain.records import (
    ENCODER_INPUTS,
    TRANSLATOR_INPUTS,
    CheckpointInfo,
    Environment,
    FilePrecision,
    ModelInput,
    Quality,
    SearchResult,
    decode_record,
    read_record,
)
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.checkpoint import load_supernet
from toolchain.supernet.families import Declaration, declaration
from toolchain.supernet.inference import Predict, subnet_predictor, supernet_predictor
from toolchain.supernet.module import Supernet
from toolchain.supernet.train import TokenBatch
from toolchain.targets import Runtime

SplitName = Literal["validation", "test"]

_AGAIN = "get the run's folder again, or train with --fresh"
_CPU = Runtime()
_NAMED = ("smallest", "middle", "largest", "winner")


class Run:
    """The folder of a trained supernet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info = read_record(folder / CHECKPOINT_FILE, CheckpointInfo)
        _check_model(self.info, folder / CHECKPOINT_FILE)
        prepared = self.data_folder / "data.json"
        if not prepared.is_file() or sha256_file(prepared) != self.info.prepared_sha256:
            raise IntegrityError(
                f"{prepared} is not of the data the run was trained with",
                hint=_AGAIN,
            )
        text.verify_prepared(self.data_folder)

    @property
    def data_folder(self) -> Path:
        return self.folder / "data"

    @property
    def search_folder(self) -> Path:
        return self.folder / "search"

    @property
    def mixes(self) -> bool:
        """Whether the precision of its subnets' weights can be chosen layer by layer."""
        return self.info.training.task != "translate"

    @property
    def inputs(self) -> tuple[ModelInput, ...]:
        """What the files of its subnets read."""
        return TRANSLATOR_INPUTS if self.info.training.task == "translate" else ENCODER_INPUTS

    @property
    def checkpoint_sha256(self) -> str:
        return sha256_file(self.folder / CHECKPOINT_FILE)

    @property
    def declared(self) -> Declaration:
        """What the family declares."""
        return declaration(self.info.space.family)

    @cached_property
    def bits_space(self) -> SearchSpace:
        """The run's space with the precision of the weights as further axes.

        Of a run that holds one architecture too it is the whole space, of which `check` allows that one.

        Raises:
            UsageError: there is no choice of precision for this run.
        """
        return self.declared.with_bits(self.info.space)

    def space_of(self, architecture: Architecture) -> SearchSpace:
        """Of which space an architecture is: the run's, or that with bits."""
        return self.bits_space if self.declared.has_bits(architecture) else self.info.space

    def check(self, architecture: Architecture) -> None:
        """Raise UsageError where the architecture is a point neither of the run's space nor of that with bits."""
        self.info.space.check(self.declared.without_bits(architecture))
        if self.declared.has_bits(architecture):
            self.bits_space.check(architecture)

    @cached_property
    def supernet(self) -> Supernet:
        return load_supernet(self.info, self.folder)

    # -- quality ------------------------------------------------------------------------------------------------

    def batches(self, split: SplitName, *, whole: bool = True) -> Sequence[TokenBatch]:
        task, vocabulary_size = self.info.training.task, self.info.vocabulary_size
        return held_out_batches(self.data_folder, split, task, vocabulary_size, whole=whole)

    def quality(self, predict: Predict, split: SplitName) -> Quality:
        """Quality on all of a split."""
        return self.quality_on(predict, self.batches(split), split)

    def quality_on(self, predict: Predict, batches: Sequence[TokenBatch], split: SplitName) -> Quality:
        return text.evaluate(predict, batches, self.info.training.task, split)

    def hub_files(self, architecture: Architecture) -> dict[str, bytes]:
        """What lets `transformers` and `optimum` load the subnet from a bundle, by file name."""
        plain = self.declared.without_bits(architecture)
        return export.hub_files(
            dict(self.supernet.materialize(plain).state_dict()),
            plain,
            self.info.space.fixed,
            task=self.info.training.task,
            labels=self.info.data.labels,
            tokenizer=(self.data_folder / "tokenizer.json").read_bytes(),
        )

    def supernet_predict(self, architecture: Architecture) -> Predict:
        """Logits of a subnet inside the supernet."""
        return supernet_predictor(self.supernet, architecture)

    def subnet_predict(self, architecture: Architecture) -> Predict:
        """Logits of the materialized subnet."""
        return subnet_predictor(self.supernet.materialize(architecture))

    def shipped_predict(self, architecture: Architecture) -> Predict:
        """Logits of the file as it ships, int8 where its bits say so; one thread, so that they are always the same.

        Activations are quantised over a whole batch, so an answer depends a little on what it is batched with.
        """
        with tempfile.TemporaryDirectory() as scratch:
            model = Path(scratch) / "model.onnx"
            self.build(architecture, model)
            return export.predictor(model.read_bytes(), {}, threads=1)

    def build(
        self,
        architecture: Architecture,
        path: Path,
        runtime: Runtime = _CPU,
        *,
        precision: FilePrecision | None = None,
        environment: Environment | None = None,
    ) -> Built:
        """The subnet as an ONNX file at `path`, proven equal to the module, in the form that suits what will run it.

        Weights are as precise as the architecture's bits say, of one without bits fp32, unless a precision is named.

        Args:
            environment: of the device it is for; None: this machine's kind, and nothing it may lack is used.

        Raises:
            ParityError: the file and the module disagree; no file is left.
            UsageError: there is no such file for what will run it.
        """
        self.check(architecture)
        plain = self.declared.without_bits(architecture)
        wanted = Wanted(
            precision=precision or self.declared.precision(architecture),
            modules=self.declared.int8_modules(architecture) if precision is None else self.declared.matrices(plain),
            runtime=runtime,
            device=device_kind(runtime, environment, searched=precision is None),
            checkpoint_sha256=self.checkpoint_sha256,
            maximum_length=self.info.space.fixed["maximum_length"],
        )
        make = compile_translator if self.info.training.task == "translate" else compile_encoder
        return make(self.supernet.materialize(plain), architecture, path, self.data_folder, wanted)

    # -- architectures ------------------------------------------------------------------------------------------

    def find_result(self) -> SearchResult | None:
        path = self.search_folder / "result.json"
        return read_record(path, SearchResult) if path.exists() else None

    def remember(self, architectures: list[Architecture]) -> None:
        """Keep architectures so that they can be named by their id."""
        with contextlib.suppress(IntegrityError):  # then opening it for appending repairs it
            if {one.id for one in architectures} <= {one.id for one in self._remembered()}:
                return
        with Journal(self.folder / "architectures.jsonl", Architecture) as journal:
            known = {one.id for one in journal.records}
            for one in architectures:
                if one.id not in known:
                    known.add(one.id)
                    journal.append(one)

    def read_architecture(self, given: str) -> Architecture:
        """The architecture that is meant by a name (smallest, middle, largest, winner), JSON, a file of it, or an id.

        Raises:
            UsageError: it is none of these, or a point neither of the run's space nor of that with bits.
        """
        space = self.info.space
        if given in ("smallest", "middle", "largest"):
            return {"smallest": space.smallest, "middle": space.middle, "largest": space.largest}[given]()
        if given == "winner" and space.point is not None:
            return space.point
        if given == "winner":
            result = self.find_result()
            if result is None:
                raise UsageError("there is no winner yet", hint="search first: mostool search")
            return result.winner.architecture
        if given.lstrip().startswith("{"):
            architecture = decode_record(os.fsencode(given), Architecture, "the architecture", UsageError)
        elif _is_file(given):
            architecture = read_record(Path(given), Architecture, UsageError)
        else:
            architecture = self._by_id(given)
        self.check(architecture)
        return architecture

    def _by_id(self, given: str) -> Architecture:
        known = {one.id: one for one in self._remembered()}
        result = self.find_result()
        known |= {one.architecture.id: one.architecture for one in result.evaluations} if result else {}
        found = [one for name, one in known.items() if name.startswith(given)]
        if len(found) == 1 and len(given) >= 4:
            return found[0]
        raise UsageError(
            f"no architecture is known as {given!r}",
            hint=f"give JSON, a file, an id that `mostool sample` or a search printed, or {', '.join(_NAMED)}",
        )

    def _remembered(self) -> list[Architecture]:
        return read_journal(self.folder / "architectures.jsonl", Architecture)


def _check_model(info: CheckpointInfo, path: Path) -> None:
    """Raise IntegrityError where a checkpoint does not describe a model that could have been trained."""
    try:
        declaration(info.space.family).check_space(info.space)
    except UsageError as error:
        raise IntegrityError(f"{path} describes no model", why=str(error), hint=_AGAIN) from error
    if (info.space.family == "translation") != (info.training.task == "translate"):
        why = f"the family {info.space.family!r} does not serve the task {info.training.task!r}"
        raise IntegrityError(f"{path} describes no model", why=why, hint=_AGAIN)


def _is_file(given: str) -> bool:
    with contextlib.suppress(OSError):  # a name no file system takes
        return Path(given).is_file()
    return False


def example_texts(run: Run) -> list[str | tuple[str, str]]:
    """A few test sentences or pairs of them; for masked words, each with one word hidden."""
    examples = text.read_examples(run.data_folder)
    if run.info.training.task != "mlm":
        return [one.text if one.second is None else (one.text, one.second) for one in examples]
    tokenizer, longest = text.read_tokenizer(run.data_folder), run.info.space.fixed["maximum_length"]
    hidden: list[str | tuple[str, str]] = []
    for example in examples:
        words = example.text.split()
        place = len(words) // 2
        while place and len(tokenizer.encode(" ".join(words[:place])).ids) > longest // 2:
            place //= 2  # a hidden word the model does not get to see would show nothing
        words[place] = "[MASK]"
        hidden.append(" ".join(words))
    return hidden
