"""BERT-style encoders whose layers differ in size (SuperShaper's bottleneck form)."""
