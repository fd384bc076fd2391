"""Damaged files for every reader. `python -m tests.fuzz --mutations 10000 --seed 0`; see __main__.py."""
