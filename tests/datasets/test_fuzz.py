"""A short run of the fuzzer; `python -m tests.datasets.fuzz` is the long one."""

import fuzz


def test_mutated_files_are_accepted_or_refused_in_one_line() -> None:
    findings = fuzz.fuzz(files=920, seed=1)
    assert findings.faults == []
    refused = {name for name, outcome in findings.outcomes if outcome == "refused"}
    assert refused == {name for name, _ in findings.outcomes}  # every kind was damaged enough to be refused
