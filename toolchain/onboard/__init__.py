"""What runs on a device: the agent that a host talks to over ssh, and the worker that loads and times models.

This package travels as one zip file (devices/package.py), so it imports nothing of mostool but itself, is written for
Python 3.9, and needs the standard library alone until a worker opens an engine (numpy and, say, onnxruntime).
README.md beside it has the protocols.
"""
