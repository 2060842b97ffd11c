"""The pretrained model: packing, adapters with a task axis, the trunk, views."""

from metanlp.backbone.encoder import Backbone, View
from metanlp.backbone.lora import Lora

__all__ = ["Backbone", "Lora", "View"]
