"""Data sets that need no download: one module per set, each with a `load(seed)` that returns a `Source`."""
