"""Versions of the libraries that decide a result."""

from __future__ import annotations

from importlib.metadata import distributions, version


def versions() -> dict[str, str]:
    """Version by library; "not installed" for one that is not there."""
    names = ("metanlp", "torch", "transformers", "peft", "accelerate", "tokenizers", "numpy")
    return {name: version(name) if [*distributions(name=name)] else "not installed" for name in names}
