"""Bytes and files that were made to do harm: none may run anything, crash, hang or take much memory."""
