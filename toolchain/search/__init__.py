"""Search under budgets: searchers behind one ask/tell door, a loop that feeds them, budgets that hold."""

from toolchain.search.budgets import violation
from toolchain.search.loop import Found, search
from toolchain.search.searchers import SEARCHERS, build_searcher

__all__ = ["SEARCHERS", "Found", "build_searcher", "search", "violation"]
