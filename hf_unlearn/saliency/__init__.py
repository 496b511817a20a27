"""Which weights the forget rows depend on (weight saliency), and masks that let only those move."""
