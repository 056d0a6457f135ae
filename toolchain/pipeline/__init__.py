"""The pipeline: one function per verb, the only place where stages meet, and the Python API.

A verb loads records, calls stages, writes records. It prints nothing: it returns what it found, and tells a listener
how far it is.
"""
