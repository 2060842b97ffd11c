"""The `metanlp` command."""
