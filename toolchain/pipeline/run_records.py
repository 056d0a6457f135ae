"""The folder of a trained run, as its records tell it: what it is, and the subnets people name. No text, no weights."""

from __future__ import annotations

import contextlib
import os
from functools import cached_property
from pathlib import Path

from toolchain.errors import IntegrityError, UsageError
from toolchain.files import sha256_file
from toolchain.journal import Journal, read_journal
from toolchain.pipeline.project import CHECKPOINT_FILE
from toolchain.records import (
    ENCODER_INPUTS,
    TRANSLATOR_INPUTS,
    CheckpointInfo,
    ModelInput,
    SearchResult,
    decode_record,
    read_record,
)
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families import Declaration, declaration

_AGAIN = "get the run's folder again, or train with --fresh"
_NAMED = ("smallest", "middle", "largest", "winner")


class RunRecords:
    """The folder of a trained supernet, of which only records are read: this needs no torch.

    Raises:
        UsageError: there is no such run.
        IntegrityError: a record is damaged, describes no model, or is not of the data beside it.
    """

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
    def vocabulary_size(self) -> int:
        return self.info.vocabulary_size

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

    def table_space(self, *, mixed: bool) -> SearchSpace:
        """The space of a latency table: with bits, where precision is part of what is measured."""
        return self.bits_space if mixed else self.info.space

    def check(self, architecture: Architecture) -> None:
        """Raise UsageError where the architecture is a point neither of the run's space nor of that with bits."""
        self.info.space.check(self.declared.without_bits(architecture))
        if self.declared.has_bits(architecture):
            self.bits_space.check(architecture)

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
