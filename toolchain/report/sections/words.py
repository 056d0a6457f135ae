"""The words of the page that a newcomer may not know, folded at its end."""

from __future__ import annotations

from toolchain.report.blocks import Section, Table
from toolchain.report.story import Story

GLOSSARY = {
    "A/A": "one model, measured as if it were several: what differs then is noise",
    "Front": "the subnets that none other beats: whichever is better costs more, whichever is cheaper is worse",
    "Given up early": "judged on a part of the items only, as another subnet was surely better and cost no more",
    "Half-width (±)": "half of the 95 % interval of a median, within one session of measuring",
    "Hypervolume": "how much of the room between the extremes, in quality and cost, the front beats: more is better",
    "Kendall's tau": "how alike two orders are: 1 is the same order, 0 is chance, -1 the reverse",
    "Noise floor": "what copies of one model differ by on that device (A/A): smaller differences are ties",
    "p50, p90, p99": "half of the calls (90, 99 of a hundred) take at most so long; p50 is the median",
    "Subnet": "one model, cut out of the supernet: an architecture with its part of the weights",
    "Supernet": "one set of weights, trained so that every architecture of a space can be cut out of it",
}


def words(story: Story) -> Section:  # noqa: ARG001 # a section is a function of the story
    """Each word once."""
    table = Table("What the words of this page mean", ("Word", "Meaning"), [*GLOSSARY.items()], folded=True)
    return Section("words", "Words", [table])
