"""Mutations of every file that is read: `python -m tests.fuzz` for as long as one wants, `test_fuzz.py` for a moment in CI."""
