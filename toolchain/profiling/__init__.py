"""Profiling: model files and a target in, measured latencies in a table out (README.md)."""
