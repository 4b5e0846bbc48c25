"""What is on disk when a save does not come to its end: ``python -m tests.saving``."""
