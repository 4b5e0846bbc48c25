"""Millions of payloads and thousands of files that somebody damaged: ``python -m tests.fuzz``."""
