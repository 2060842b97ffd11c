"""Every student is a task: the first answers predict the next, and a page says what a teacher wants to know.

    python recipes/student.py --traces DATA/education/assist2009
    python recipes/student.py --traces last_year.csv --judged my_class.csv --columns student=user_id,skill=topic

Rows of student, skill and correct (1 or 0) in their order, CSV, JSON lines or Parquet. It compares a running mean, Elo,
item response theory, regressions on counts, a recurrent network and meta-learners on students who taught nothing.
"""

import sys

from metanlp.cli.launch import guarded
from metanlp.core.settings import parse
from metanlp.experiment.options import Students


def run(asked: Students) -> None:
    from metanlp.experiment.students import students

    students(asked)


if __name__ == "__main__":
    guarded(lambda: run(parse(Students, sys.argv[1:])))
