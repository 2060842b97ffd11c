"""Learners on held-out tasks: frozen episodes, recipe search, diagnostics."""
