"""Every kind of workers for half an hour, with exceptions, abandoned passes and kills: ``python -m tests.soak``."""
