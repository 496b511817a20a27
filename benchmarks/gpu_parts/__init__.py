"""The parts of `gpu.py`, by name. Each is a function of a [`Run`], in a process of its own."""
