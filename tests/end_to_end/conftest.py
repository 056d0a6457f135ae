from made_compiled import encoders, hasty, translator
from made_project import made, one_thread, project
from made_runs import runs

__all__ = ["encoders", "hasty", "made", "one_thread", "project", "runs", "translator"]
