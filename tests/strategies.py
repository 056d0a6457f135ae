"""What hypothesis draws from: small search spaces, and any record of toolchain/records with valid contents."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from hypothesis import reject
from hypothesis import strategies as st

from toolchain.records import ImportedRow, Mixture, Model, Nearness, PredictorInfo, Round, Training
from toolchain.space import Architecture, Axis, SearchSpace
from toolchain.targets import Measure, Runtime, Ssh


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


def _rounds() -> st.SearchStrategy[Round]:
    lengths = st.integers(1, 3)
    names = ("wall_s", "cpu_s", "delay_s")
    elapsed = st.floats(1e-9, 1e6)
    return lengths.flatmap(lambda n: _struct(Round, **{name: st.tuples(*[elapsed] * n) for name in names}))


_SIGNED = st.floats(allow_nan=False, allow_infinity=False)
_SCALES = st.floats(1e-9, 1e9)


def _models(features: int) -> st.SearchStrategy[Model]:
    """Of so many features; costs, intercepts and weights may be below zero, as those of fits are."""
    numbers = st.tuples(*[_SIGNED] * features)
    common = {"mean": numbers, "scale": st.tuples(*[_SCALES] * features), "intercept": _SIGNED}
    plain = _struct(
        Model,
        **common,
        kind=st.sampled_from(["linear", "blocks"]),
        coefficients=numbers,
        support=st.just(()),
        weights=st.just(()),
    )
    log = _struct(
        Model,
        **common,
        kind=st.just("log"),
        coefficients=st.tuples(*[_SIGNED] * (2 * features)),
        support=st.just(()),
        weights=st.just(()),
    )
    process = st.integers(1, 3).flatmap(
        lambda rows: _struct(
            Model,
            **common,
            kind=st.just("process"),
            coefficients=numbers,
            support=st.tuples(*[numbers] * rows),
            weights=st.tuples(*[_SIGNED] * rows),
        )
    )
    return plain | log | process


def _nearness(features: int) -> st.SearchStrategy[Nearness]:
    numbers, scales = st.tuples(*[_SIGNED] * features), st.tuples(*[_SCALES] * features)
    return _struct(Nearness, mean=numbers, scale=scales, inverse=st.tuples(*[numbers] * features))


def _predictors(features: int) -> st.SearchStrategy[PredictorInfo]:
    names = st.tuples(*[st.text(max_size=12)] * features)
    return _struct(PredictorInfo, features=names, model=_models(features), nearness=_nearness(features))


_OWN_RULES: dict[type, Callable[[], st.SearchStrategy[Any]]] = {
    Architecture: architectures,
    SearchSpace: spaces,
    Round: _rounds,
    Model: lambda: st.integers(1, 3).flatmap(_models),
    Nearness: lambda: st.integers(1, 3).flatmap(_nearness),
    PredictorInfo: lambda: st.integers(1, 3).flatmap(_predictors),
    ImportedRow: lambda: _struct(ImportedRow, spread_s=st.none() | st.just(0.0) | st.floats(0, 1e6)),
    Measure: lambda: _struct(Measure, cool_c=st.floats(0, 60), hot_c=st.floats(60, 100), energy_s=st.floats(0, 60)),
    Runtime: lambda: (
        _struct(Runtime, engine=st.just("onnxruntime"))
        | _struct(Runtime, engine=st.sampled_from(["tensorrt", "tensorrt_rtx"]), provider=st.just(""))
    ),
    Ssh: lambda: _struct(Ssh, port=st.integers(0, 65535)),
    Mixture: lambda: _struct(Mixture, expert_correlation=st.floats(0, 0.99)),
    Training: lambda: _struct(
        Training,
        sequence_length=st.integers(8, 512),
        vocabulary_size=st.integers(64, 10**5),
        dropout=st.floats(0, 0.99),
    ),
}


def _struct(cls: type, **given: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Records of `cls`: the given fields as they are drawn, the others by their type. Numbers are above zero, as most
    records demand; what a record refuses for a rule of its own is drawn again."""
    hints = {field.name: msgspec.inspect.type_info(field.type) for field in msgspec.structs.fields(cls)}
    hints.pop("schema", None)

    def built(drawn: dict[str, Any]) -> Any:
        try:
            return cls(**drawn)
        except ValueError:
            reject()

    return st.fixed_dictionaries({name: _of(hint) for name, hint in hints.items()} | given).map(built)


def _of(info: msgspec.inspect.Type) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - a table, one line for each kind of type
    match info:
        case msgspec.inspect.StructType(cls=cls):
            return _OWN_RULES[cls]() if cls in _OWN_RULES else _struct(cls)
        case msgspec.inspect.Metadata(type=inner):
            return _of(inner)
        case msgspec.inspect.UnionType(types=types):
            return st.one_of([_of(one) for one in types])
        case msgspec.inspect.VarTupleType(item_type=item, min_length=least):
            return st.lists(_of(item), min_size=least or 0, max_size=3).map(tuple)
        case msgspec.inspect.TupleType(item_types=items):
            return st.tuples(*map(_of, items))
        case msgspec.inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(_of(key), _of(value), max_size=3)
        case msgspec.inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case msgspec.inspect.IntType(ge=least, le=most):
            return st.integers(1 if least is None else least, 2**53 if most is None else most)
        case msgspec.inspect.FloatType(ge=least, le=most):
            return st.floats(least or 0.0, most, exclude_min=not least, allow_nan=False, allow_infinity=False)
    return _SIMPLE[type(info)]


_SIMPLE: dict[type[msgspec.inspect.Type], st.SearchStrategy[Any]] = {
    msgspec.inspect.StrType: st.text(max_size=12),
    msgspec.inspect.BoolType: st.booleans(),
    msgspec.inspect.NoneType: st.none(),
    msgspec.inspect.DateTimeType: st.datetimes(timezones=st.just(dt.UTC)),
}
