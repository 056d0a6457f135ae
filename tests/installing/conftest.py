from made_project import made, one_thread, project

__all__ = ["made", "one_thread", "project"]
