"""The attacks run in a process of their own."""

collect_ignore = ["attack.py"]
