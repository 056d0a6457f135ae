"""Devices: how files and requests reach the machine a target names, and how one is set up (README.md)."""

from toolchain.devices.device import Connection, ConnectionLostError, Device, open_device

__all__ = ["Connection", "ConnectionLostError", "Device", "open_device"]
