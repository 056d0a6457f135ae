"""Runs that are not whole: stages that have not been run, none or one where many are wont to be, and no winner."""

from __future__ import annotations

import msgspec
from example_run import make_manifest, make_predictor, make_search, make_story

from toolchain.report import Story


def without_search() -> Story:
    return make_story(search=None, manifest=None, predictor=None)


def checkpoint_alone() -> Story:
    return make_story(search=None, manifest=None, predictor=None, curve=(), versions={})


def without_export() -> Story:
    return make_story(manifest=None)


def bundle_alone() -> Story:
    return make_story(search=None, predictor=None)


def one_evaluation() -> Story:
    search = make_search(1)
    return make_story(
        search=search, manifest=make_manifest(search.winner), predictor=make_predictor(1), curve=make_story().curve[:1]
    )


def no_evaluation() -> Story:
    search = msgspec.structs.replace(make_search(1), evaluations=(), front=())
    return make_story(search=search, manifest=None, predictor=msgspec.structs.replace(make_predictor(2), points=()))


def nothing_feasible() -> Story:
    search = make_search(9, limit=1e-4)
    return make_story(search=search, manifest=make_manifest(search.winner, limit=1e-4))


PARTIAL = (
    without_search,
    checkpoint_alone,
    without_export,
    bundle_alone,
    one_evaluation,
    no_evaluation,
    nothing_feasible,
)
