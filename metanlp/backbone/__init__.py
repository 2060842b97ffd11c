"""The pretrained model: packing, adapters with a task axis, the trunk, views."""

import logging

# bitsandbytes warns, when peft imports it, of a package that it would like, and later of every cast to fp16.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

from metanlp.backbone.encoder import Backbone  # noqa: E402
from metanlp.backbone.lora import Lora  # noqa: E402
from metanlp.backbone.views import View  # noqa: E402

__all__ = ["Backbone", "Lora", "View"]
