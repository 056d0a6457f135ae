"""The supernet: one set of shared weights, from which every architecture of a space takes its own."""
