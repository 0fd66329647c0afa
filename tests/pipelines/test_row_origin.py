"""One row's way back: in the output that made it, and from a file that another program wrote."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genai_core.errors import InvalidInput
from jobs.cli import main
from pipelines import generate
from pipelines.context import Context
from pipelines.provenance.lineage_column import NAME
from pipelines.provenance.row_origin import in_output
from pipelines.tracked.lineage import lineage


def test_a_row_that_was_copied_leads_back(
    workplace: Path, small_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = {
        "model": str(small_model),
        "rows": 50,
        "rows_per_shard": 20,
        "lineage": True,
        "sink": {"path": "out"},
    }
    generate.run(
        generate.GenerateJob.model_validate(job | {"track": {"enabled": False}}), Context(log=lambda _: None)
    )
    rows = pq.read_table("out")
    pq.write_table(rows.select(["delay", NAME]).take(pa.array([45, 3])), "joined.parquet")
    joined = lineage("joined.parquet")
    (made_by,) = joined["jobs"]
    assert joined["jobs"] == {made_by: 2} and "another program wrote it" in joined["state"]
    value = pq.read_table("joined.parquet")[NAME][0].as_py()
    file, row = in_output("out", value)
    assert "part-00002" in file and row["delay"] == rows["delay"][45].as_py() and NAME not in row
    assert main(["lineage", "out", "--row", value]) == 0
    said = capsys.readouterr().out
    assert "lake/flights where month <= 9" in said and f"delay: {row['delay']}" in said and "shard 2" in said
    for wrong in (value[:-1] + "99", value.replace("generate-", "score-"), "nonsense"):
        with pytest.raises(InvalidInput):
            in_output("out", wrong)
