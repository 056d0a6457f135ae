"""What a shell may complete an option with: devices, runs, bundles, recipes, spaces. Nothing heavy is imported.

A shell waits while this runs, so whatever cannot be read is left out and nobody is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

ARCHITECTURES = ("winner", "smallest", "middle", "largest")
SEARCHERS = ("assisted", "nsga2", "evolution", "random")
OBJECTIVES = ("latency", "size", "params", "memory", "energy")
SPACES = ("tiny", "small", "base", "supershaper", "hat-wmt", "hat-iwslt")
"""Names that other rooms know, which are slow to import: a test holds these to them."""
_PACKAGE = Path(__file__).resolve().parents[1]


def _offer(names: Callable[[], Iterable[str]], *, files: str = "") -> Completer:
    """Names that begin as what was typed; `files`: "file" or "dir" where a path will do as well."""

    def complete(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
        try:
            found = [CompletionItem(name) for name in names() if name.startswith(typed)]
        except Exception:  # a shell that completes is no place for an error
            found = []
        return [*found, CompletionItem(typed, type=files)] if files else found

    return complete


def _targets() -> list[str]:
    from toolchain.targets import find_targets

    return list(find_targets(Path()))


def _names_of(folder: Path, pattern: str) -> list[str]:
    return sorted(path.parent.name for path in folder.glob(pattern))


devices = _offer(_targets)
runs = _offer(lambda: _names_of(Path("runs"), "*/checkpoint.json"), files="dir")
bundles = _offer(lambda: [f"bundles/{name}" for name in _names_of(Path("bundles"), "*/manifest.json")], files="dir")
recipes = _offer(lambda: sorted(path.stem for path in _PACKAGE.glob("recipes/*.toml")), files="file")
spaces = _offer(lambda: SPACES, files="file")
architectures = _offer(lambda: ARCHITECTURES, files="file")
searchers = _offer(lambda: SEARCHERS)
objectives = _offer(lambda: OBJECTIVES)
