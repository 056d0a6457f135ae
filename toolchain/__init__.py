"""mostool: from one Mixture-of-Supernets Transformer to the best model each device can run."""

__version__ = "0.1.0"
