"""Where the model files of a latency table come from. What measures them knows no more of it than this."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from toolchain.records import Artifact, Environment, ModelInput
from toolchain.space import Architecture, SearchSpace
from toolchain.supernet.families import Declaration
from toolchain.targets import Runtime


class Supply(Protocol):
    """A run, which makes the files of its subnets (runs.py), or a folder in which they lie ready (artifacts.py)."""

    @property
    def inputs(self) -> tuple[ModelInput, ...]:
        """What the files read."""
        ...

    @property
    def vocabulary_size(self) -> int: ...

    @property
    def checkpoint_sha256(self) -> str:
        """Of what the files are made from."""
        ...

    @property
    def declared(self) -> Declaration: ...

    @property
    def reference(self) -> Architecture:
        """Whose file everything on a table is paired with."""
        ...

    def table_space(self, *, mixed: bool) -> SearchSpace:
        """The space of a table: with bits, where precision is part of what is measured."""
        ...

    def recipe(self, runtime: Runtime, environment: Environment | None, *, mixed: bool) -> str:
        """Names how the files of a table are made; without an environment, of one that lacks nothing."""
        ...

    def planned(self, given: Sequence[Architecture], n: int, *, mixed: bool) -> list[Architecture]:
        """The architectures a table is to hold: those that are given, else `n`."""
        ...

    def remember(self, architectures: list[Architecture]) -> None:
        """Keep architectures so that they can be named by their id."""
        ...

    def load(self) -> None:
        """Have at hand what all files are made from, before there are threads."""
        ...

    def make(
        self, architecture: Architecture, path: Path, runtime: Runtime, environment: Environment | None
    ) -> Artifact:
        """The architecture's file, at `path`.

        Raises:
            ParityError: it does not compute what its module does; no file is left.
            UsageError: there is no such file for what will run it.
            IntegrityError: it is not the one it was.
        """
        ...
