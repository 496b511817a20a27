"""One scoring pass per split, metrics as pure functions on its arrays, comparisons, and a callback for any Trainer."""
