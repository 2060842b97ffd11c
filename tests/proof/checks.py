"""The checks by their number: what must hold, where it is checked, how many cases, and how many in `make test`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    law: str
    module: str  # beside this file; `cases(count, folder)` yields "" or what went wrong, case by case
    full: int  # cases of `make proof`
    short: int = 0  # of `make test`; 0 where tests named in docs/reliability.md already hold the law there


CHECKS = {
    8: Check("a full disk leaves what was there before, and exit code 4", "check_08_disk_full", 100, 9),
    3: Check("a damaged checkpoint or learner is refused before it is used", "check_03_damage", 1350, 108),
}
