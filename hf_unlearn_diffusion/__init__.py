"""Unlearning for models that draw images: tasks and their methods, for `hf_unlearn`, on top of `diffusers`.

`pip install 'hf_unlearn[diffusion]'`. Tasks and methods are entry points, so that
`hf-unlearn` knows them by name; nothing of the core imports this package.
"""
