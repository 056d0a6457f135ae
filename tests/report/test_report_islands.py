"""Data within the page's scripts, and the one script that is allowed to run."""

from __future__ import annotations

import base64
import hashlib
import json
import re

from example_run import make_story
from hypothesis import given
from hypothesis import strategies as st
from report_reader import Page

from toolchain.report import render_report
from toolchain.report.islands import island, legible

TEXTS = st.text(st.characters(exclude_categories=()))
DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(data=DATA)
def test_an_island_holds_no_markup_and_reads_back_as_legible_text(data: object) -> None:
    text = island({"data": data})
    assert not set(text) & set("<>&\u2028\u2029")
    assert text == legible(text)
    assert json.loads(text) == {"data": made_legible(data)}
    text.encode("utf-8")


def made_legible(data: object) -> object:
    if isinstance(data, str):
        return legible(data)
    if isinstance(data, list):
        return [made_legible(each) for each in data]
    if isinstance(data, dict):
        return {legible(name): made_legible(each) for name, each in data.items()}
    return data


def test_the_policy_names_the_digest_of_the_script_that_stands_in_the_page() -> None:
    html = render_report(make_story())
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = (
        held["content"] or "" for _, held in Page(html).elements if held.get("http-equiv") == "Content-Security-Policy"
    )
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "script-src" not in policy.replace(f"script-src 'sha256-{digest}'", "")
    assert policy.count("unsafe-inline") == 1  # that of style-src


def test_the_script_writes_text_alone() -> None:
    html = render_report(make_story())
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "fetch("):
        assert way not in script
