"""Unlearning for models that draw images: a task and its methods, for `hf_unlearn`, on top of `diffusers`.

`pip install 'hf_unlearn[diffusion]'`. The task `image_generation` and the methods are entry points, so that
`hf-unlearn` knows them by name; nothing of the core imports this package.
"""
