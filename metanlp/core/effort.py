"""How hard a learner tries on a new task."""

from __future__ import annotations

from typing import Literal

Effort = Literal["fast", "recipe", "best"]
"""fast: no gradient step. recipe: as the learner was saved. best: as many steps as pay on examples left out of them."""
