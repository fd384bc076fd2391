"""What Prefect keeps of a build for its pages: progress that reached its end, and the report's tables."""

import json

from flows.engine import run_plan
from flows.report import write_report
from tests.flows.finished_build import write_finished_build
from tests.flows.reported_build import timed
from tests.flows.toy_plan import toy_plan


def test_progress_ends_at_its_end_and_the_tables_are_the_reports(tmp_path) -> None:
    from prefect.client.orchestration import get_client

    from flows.prefect_artifacts import key_of, report_flow

    run_plan(toy_plan(tmp_path / "toy", shards=2), "prefect", 1, lambda result: None)
    dataset = write_finished_build(tmp_path / "built")
    timed(dataset)
    report_flow(dataset, lambda: write_report(dataset))
    found = {artifact.key: artifact for artifact in get_client(sync_client=True).read_artifacts()}

    progress = found[key_of("toy progress")]
    assert (progress.type, progress.data) == ("progress", 100.0)
    stages = json.loads(found[key_of("miniature time and cost by stage")].data)
    assert [row["stage"] for row in stages] == ["views", "manifest", "all"]
    text = found[key_of("miniature report")].data
    assert text.startswith("# miniature: 6 samples")
    assert "| car |" in text
    assert str(dataset / "report" / "index.html") in text
    assert all(artifact.flow_run_id is not None for artifact in found.values())
