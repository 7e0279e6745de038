"""What `python -m phihat` shows: the chapter's fits, four real tasks, the pictures."""

from phihat._tour.deck import PROBLEMS, Run, parabola_run, solve
from phihat._tour.pictures import PICTURES, draw
from phihat._tour.report import parabola_report, problem_report, tasks_report
from phihat._tour.tasks import TASKS, TaskResult, carry_out

__all__ = [
    "PICTURES",
    "PROBLEMS",
    "TASKS",
    "Run",
    "TaskResult",
    "carry_out",
    "draw",
    "parabola_report",
    "parabola_run",
    "problem_report",
    "solve",
    "tasks_report",
]
