"""The model families. A family is a package here: its folder's name is the family's name.

`declare.py` (no torch) names its spaces and counts what a subnet costs; `model.py` (torch) builds the supernet.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, cast

from toolchain.arrays import AxisArrays, Floats
from toolchain.errors import unknown_name
from toolchain.records import FilePrecision, Mixture, Workload
from toolchain.space import Architecture, SearchSpace

if TYPE_CHECKING:
    from toolchain.supernet.module import Supernet


class Declaration(Protocol):
    """What a family's declare.py offers."""

    SPACES: Mapping[str, SearchSpace]
    """The spaces that ship, by name; `resolve` makes one of them fit a vocabulary and a task."""

    BLOCKS: Mapping[str, tuple[str, ...]]
    """Which features belong to which block of the network: see `features`."""

    def check_space(self, space: SearchSpace) -> None: ...

    def resolve(self, space: SearchSpace, *, vocabulary_size: int, labels: int, maximum_length: int) -> SearchSpace: ...

    def parameters(self, space: SearchSpace, architecture: Architecture) -> int: ...

    def features(self, space: SearchSpace, arrays: AxisArrays, workload: Workload) -> dict[str, Floats]:
        """What the device has to do for each of these architectures, by kind of work: [n] each, in one fixed order.

        The first is `pass`, all ones. A latency model gives each a cost, so a kind of work stands alone where devices
        may differ in what it costs them.
        """
        ...

    def counts(self, space: SearchSpace, arrays: AxisArrays) -> dict[str, Floats]:
        """`parameters` of each of these architectures, as the function of that name counts, and `weight_bytes`: [n].

        The bytes are those of the weights in the file that would ship; the graph around them is not counted.
        """
        ...

    # Precision: further axes of a space, which the file honours and the supernet never sees.

    def with_bits(self, space: SearchSpace) -> SearchSpace:
        """The space with the precision of its weights as further axes; UsageError where there is nothing to choose."""
        ...

    def without_bits(self, architecture: Architecture) -> Architecture: ...

    def has_bits(self, architecture: Architecture) -> bool: ...

    def at_bits(self, architecture: Architecture, bits: int) -> Architecture:
        """The architecture with every weight matrix at 8 or at 32 bits."""
        ...

    def precision(self, architecture: Architecture) -> FilePrecision: ...

    def matrices(self, architecture: Architecture) -> frozenset[str]:
        """The paths of all modules whose weights are matrices: what a file of one precision has in that precision."""
        ...

    def int8_modules(self, architecture: Architecture) -> frozenset[str]:
        """The paths of the modules whose weights its file stores and multiplies as int8."""
        ...


def find_families() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


def declaration(family: str) -> Declaration:
    """What the family declares, without importing torch."""
    if family not in find_families():
        raise unknown_name("family", family, find_families())
    return cast("Declaration", importlib.import_module(f"{__name__}.{family}.declare"))


def build_supernet(space: SearchSpace, mixture: Mixture, dropout: float) -> Supernet:
    """A freshly initialised supernet for a resolved space; draws from torch's global generator.

    Of a space narrowed to one architecture it is that architecture alone, with plain weights.
    """
    declaration(space.family).check_space(space)
    model = importlib.import_module(f"{__name__}.{space.family}.model")
    if space.point is None:
        supernet = cast("Supernet", model.build_supernet(space, mixture, dropout))
        supernet.spread_routers()
        return supernet
    from toolchain.supernet.module import Extracted  # noqa: PLC0415 - this module is read where torch is not wanted

    fresh = model.build_supernet(space, Mixture(kind="plain", experts=1), dropout)
    return Extracted(fresh, functools.partial(model.build_subnet, space))
