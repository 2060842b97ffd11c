"""The checks by their number: what must hold, where it is checked, how many cases, and how many in `make test`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    law: str
    module: str  # beside this file; `cases(count, folder)` yields "" or what went wrong, case by case
    full: int  # cases of `make proof`
    short: int = 0  # of `make test`; 0 where tests named in docs/reliability.md already hold the law there
    few: bool = False  # whether these are the size of what is tried, of which there are few cases


CHECKS = {
    1: Check("a run killed at any moment ends as one undisturbed", "check_01_death", 200, 2),
    2: Check("a run told to stop saves, ends within 10 s, and goes on as undisturbed", "check_02_polite_stop", 70, 2),
    3: Check("a damaged checkpoint or learner is refused before it is used", "check_03_damage", 1350, 54),
    4: Check("a hostile folder is refused; nothing is run, written or called", "check_04_hostile", 40, 30),
    5: Check("a malformed task file is one line, exit code 2, at once", "check_05_malformed", 200),
    6: Check("support and query share nothing, and planted leaks are found", "check_06_leakage", 10_100, 303),
    7: Check("no made-up file, setting or word ends in another error than ours", "check_07_fuzzing", 10_000, 80),
    8: Check("a full disk leaves what was there before, and exit code 4", "check_08_disk_full", 100, 3),
    9: Check("no bad number is kept, and want of memory is one line", "check_09_bad_numbers", 30, 3),
    10: Check("of many runs on one folder one goes on", "check_10_one_folder", 51),
    11: Check("1 = 2 = 4 processes bitwise, with both kinds of kernels", "check_11_determinism", 100),
    12: Check("no token, home folder or machine is said or published", "check_12_secrets", 100),
    13: Check("a broken publication leaves the old or the new", "check_13_publishing", 126),
    14: Check("a dead network is one line, at once", "check_14_dead_network", 60),
    15: Check("every old format is read, and the next one refused by name", "check_15_old_formats", 6, 6),
    16: Check("a long run grows in nothing", "check_16_endurance", 10_000, 40, few=True),
    17: Check("a run goes on as it was, or is refused by name", "check_17_resume", 20, 9),
    18: Check("two machines learn what one learns, also over a link that was cut", "check_18_two_machines", 20, 1),
    19: Check("a launcher starts a killed rank again, to the same end; so does the next one", "check_19_elastic", 40),
    20: Check("many people at one page each get their own answers", "check_20_serve", 400, 5),
    21: Check("very many tasks open at once and are drawn fast", "check_21_scale", 100_000, 300, few=True),
    22: Check("a clock that jumps and a tracker that breaks change nothing", "check_22_clock", 40, 2),
    23: Check("no bytes that a fuzzer finds end in another error than ours", "check_23_atheris", 10_000, 400),
    24: Check(
        "a pretraining, or a run begun from a learner, killed at any moment ends as one undisturbed",
        "check_24_other_deaths",
        40,
        1,
    ),
}
