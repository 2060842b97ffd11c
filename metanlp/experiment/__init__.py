"""A whole run: options, preparation, training, tests, leave-one-out, forecast."""
