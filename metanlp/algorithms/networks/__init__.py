"""Networks that read a support set: what several algorithms are made of."""
