"""The pretrained model: packing, adapters with a task axis, the trunk, views."""

from metanlp.backbone.encoder import Backbone
from metanlp.backbone.lora import Lora
from metanlp.backbone.views import View

__all__ = ["Backbone", "Lora", "View"]
