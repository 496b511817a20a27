"""One file a command of `hf-unlearn`."""
