"""Two real processes train one model together through gloo: whatever the family, they end with the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genai_core import catalog
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit
from genai_core.replicas import Distributed
from tests.contract import test_grids_and_sequences as others
from tests.contract import test_models as tables
from tests.contract.spaces import tiny_space

CASES = [*((kind, "tabular") for kind in tables.OF_TABLES), *others.PAIRS]


def family(kind: str, modality: str) -> tuple[Any, np.ndarray]:
    torch.manual_seed(1)
    if modality == "tabular":
        return catalog.build_model(kind, tiny_space(), tables.SMALL[kind]), tables.data(128)
    space = others.SPACES[modality]
    return catalog.build_model(kind, space, others.SMALL[kind]), others.records(space, 128)


def train(rank: int, directory: str) -> None:
    """One replica: every family on its half of the records; leaves the hashes of all states."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{directory}/meeting", rank=rank, world_size=2)
    replicas, found = Distributed(), {}
    for kind, modality in CASES:
        model, x = family(kind, modality)
        mine = x[rank::2]
        # 33 records a step: one replica has 17 of them, the other 16, computed in two parts
        settings = FitSettings(max_epochs=1, evaluations=2, batch_size=33, accumulate=2)
        Fit(model, mine, x[:40], settings, replicas).run()
        state = {n: v for n, v in model.state_dict().items() if v.is_floating_point()}
        found[f"{kind}/{modality}"] = torch.cat([v.flatten() for v in state.values()]).numpy().tobytes().hex()
        found[f"{kind}/{modality}/counted"] = sum(v.numel() for v in model.buffers())
    Path(directory, f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    directory = tmp_path_factory.mktemp("replicas")
    torch.multiprocessing.spawn(train, (str(directory),), nprocs=2)
    return [json.loads((directory / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize(("kind", "modality"), CASES)
def test_replicas_stay_equal_to_the_bit(kind: str, modality: str, states: list[dict[str, Any]]) -> None:
    first, second = states
    name = f"{kind}/{modality}"
    assert first[name] == second[name]
    assert first[f"{name}/counted"] == second[f"{name}/counted"]
    start, _ = family(kind, modality)
    before = torch.cat([v.flatten() for v in start.state_dict().values() if v.is_floating_point()])
    assert first[name] != before.numpy().tobytes().hex()
