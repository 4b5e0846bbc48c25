"""These run in a process of their own."""

collect_ignore = ["kill.py", "trouble.py", "__main__.py"]
