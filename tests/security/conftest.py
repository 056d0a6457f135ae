from made_project import made, one_thread, project
from made_runs import runs

__all__ = ["made", "one_thread", "project", "runs"]
