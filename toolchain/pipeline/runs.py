"""A trained run, opened: its held-out data, its supernet, and the model files of its subnets.

Of mostool's packages for files (onnx) nothing is loaded before a file is asked for: training needs none.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from toolchain import text
from toolchain.pipeline.data import held_out_batches
from toolchain.pipeline.growing import wanted
from toolchain.pipeline.run_records import RunRecords
from toolchain.records import Artifact, Environment, FilePrecision, Quality
from toolchain.space import Architecture
from toolchain.supernet.checkpoint import load_supernet
from toolchain.supernet.inference import Predict, subnet_predictor, supernet_predictor
from toolchain.supernet.module import Supernet
from toolchain.supernet.train import TokenBatch
from toolchain.targets import Runtime

if TYPE_CHECKING:
    from toolchain.pipeline.compiling import Built

SplitName = Literal["validation", "test"]

_CPU = Runtime()


class Run(RunRecords):
    """The folder of a trained supernet, with its text and its weights: the `Supply` of its subnets' files."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        text.verify_prepared(self.data_folder)

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
        from toolchain import export  # noqa: PLC0415

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
        from toolchain import export  # noqa: PLC0415

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
        from toolchain.pipeline import compiling  # noqa: PLC0415

        self.check(architecture)
        plain = self.declared.without_bits(architecture)
        asked = compiling.Wanted(
            precision=precision or self.declared.precision(architecture),
            modules=self.declared.int8_modules(architecture) if precision is None else self.declared.matrices(plain),
            runtime=runtime,
            device=compiling.device_kind(runtime, environment, searched=precision is None),
            checkpoint_sha256=self.checkpoint_sha256,
            maximum_length=self.info.space.fixed["maximum_length"],
        )
        translates = self.info.training.task == "translate"
        make = compiling.compile_translator if translates else compiling.compile_encoder
        return make(self.supernet.materialize(plain), architecture, path, self.data_folder, asked)

    # -- what a latency table is filled from: see supply.py -----------------------------------------------------

    @property
    def reference(self) -> Architecture:
        """The space's middle subnet: see `Supply`."""
        return self.info.space.middle()

    def planned(self, given: Sequence[Architecture], n: int, *, mixed: bool) -> list[Architecture]:
        """The architectures of a table, kept so that they can be named: see `wanted`."""
        found = wanted(self, given, n, mixed=mixed)
        self.remember(found)
        return found

    def recipe(self, runtime: Runtime, environment: Environment | None, *, mixed: bool) -> str:
        """Names how the files of a table are made; see `compiling.recipe_of`."""
        from toolchain.pipeline.compiling import recipe_of  # noqa: PLC0415

        return recipe_of(self.info.training.task, runtime, environment, mixed=mixed)

    def load(self) -> None:
        _ = self.supernet, self.checkpoint_sha256

    def make(
        self, architecture: Architecture, path: Path, runtime: Runtime, environment: Environment | None
    ) -> Artifact:
        """The subnet's file at `path`: see `build`."""
        return self.build(architecture, path, runtime, environment=environment).artifact


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
