"""What hypothesis draws from: small search spaces, and any record of toolchain/records.py with valid contents."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import numpy as np
from hypothesis import strategies as st

from toolchain.records import Mixture, Training
from toolchain.space import Architecture, Axis, SearchSpace

_COUNTS = st.integers(-(2**53), 2**53)


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Spaces of up to six axes in any order, with and without a variable depth, small enough to enumerate."""

    def choices(largest: int) -> tuple[int, ...]:
        return tuple(sorted(draw(st.sets(st.integers(1, largest), min_size=1, max_size=2))))

    depths = [Axis(f"depth{n}", choices(3)) for n in range(draw(st.integers(0, 2)))]
    flat = [Axis(f"flat{n}", choices(2000)) for n in range(draw(st.integers(0, 2)))]
    layered = [
        Axis(f"layered{n}", choices(2000), per=draw(st.sampled_from(depths)).name)
        for n in range(draw(st.integers(0, 2)) if depths else 0)
    ]
    return SearchSpace("drawn", "bert", tuple(draw(st.permutations(depths + flat + layered))), {"vocabulary": 100})


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    return draw(spaces()).sample(np.random.default_rng(draw(st.integers(0, 2**32))))


def records(kind: type) -> st.SearchStrategy[Any]:
    """Any valid record of the class `kind`."""
    return _of(msgspec.inspect.type_info(kind))


_OWN_RULES: dict[type, st.SearchStrategy[Any]] = {
    Architecture: architectures(),
    SearchSpace: spaces(),
    Mixture: st.builds(Mixture, kind=st.sampled_from(["plain", "layer", "neuron"]), experts=st.integers(1, 9)),
    Training: st.builds(Training, updates=st.integers(1, 10**6), learning_rate=st.floats(1e-9, 1.0), seed=_COUNTS),
}


_SIMPLE: dict[type[msgspec.inspect.Type], st.SearchStrategy[Any]] = {
    msgspec.inspect.IntType: _COUNTS,
    msgspec.inspect.FloatType: st.floats(allow_nan=False, allow_infinity=False),
    msgspec.inspect.StrType: st.text(max_size=12),
    msgspec.inspect.BoolType: st.booleans(),
    msgspec.inspect.NoneType: st.none(),
    msgspec.inspect.DateTimeType: st.datetimes(timezones=st.just(dt.UTC)),
}


def _of(info: msgspec.inspect.Type) -> st.SearchStrategy[Any]:
    match info:
        case msgspec.inspect.StructType(cls=cls) if cls in _OWN_RULES:
            return _OWN_RULES[cls]
        case msgspec.inspect.StructType(cls=cls, fields=fields):
            drawn = {field.name: _of(field.type) for field in fields if field.name != "schema"}
            return st.builds(cls, **drawn)
        case msgspec.inspect.UnionType(types=types):
            return st.one_of([_of(one) for one in types])
        case msgspec.inspect.VarTupleType(item_type=item):
            return st.lists(_of(item), max_size=3).map(tuple)
        case msgspec.inspect.TupleType(item_types=items):
            return st.tuples(*map(_of, items))
        case msgspec.inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(_of(key), _of(value), max_size=3)
        case msgspec.inspect.LiteralType(values=values):
            return st.sampled_from(values)
    return _SIMPLE[type(info)]
