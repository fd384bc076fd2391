"""Benchmarks: fast code beside its slow twin in one run. `python -m tests.bench [NAME ...]`; see __main__.py."""
