"""Search under budgets: searchers behind one ask/tell door, a loop that feeds them, budgets that hold."""

from toolchain.search.budgets import violation
from toolchain.search.loop import Costs, Found, QualityOf, search, spell
from toolchain.search.searchers import SEARCHERS, build_searcher

__all__ = ["SEARCHERS", "Costs", "Found", "QualityOf", "build_searcher", "search", "spell", "violation"]
