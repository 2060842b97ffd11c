"""An adapted model for other people's programs: ONNX, a plain peft adapter with its head, a transformers classifier."""

from __future__ import annotations

from metanlp.export.folders import EXPORTS, export

__all__ = ["EXPORTS", "export"]
