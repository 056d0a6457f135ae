"""A space small enough to be trained in seconds; by itself, for who has no torch."""

SPACE = """\
name = "made"
family = "bert"

[fixed]
width = 32
head_width = 8

[[axes]]
name = "embedding"
choices = [8, 16, 32]

[[axes]]
name = "depth"
choices = [1, 2]

[[axes]]
name = "hidden"
choices = [8, 16, 32]
per = "depth"

[[axes]]
name = "heads"
choices = [1, 2]
per = "depth"

[[axes]]
name = "ffn"
choices = [8, 32, 64]
per = "depth"
"""
