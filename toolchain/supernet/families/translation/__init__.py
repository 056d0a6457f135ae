"""The translation family: encoder-decoders in the space of HAT (arXiv 2005.14187)."""
