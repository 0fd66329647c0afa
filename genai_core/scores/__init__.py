"""One file a score, higher = more anomalous.

NEEDS                                  capability that a model must have (`genai_core.model`)
UNIT                                   of the score
score(model, x, log_measure, state)    (rows, fields), shares that add up, or (rows,)
entries(model, x, state)               optional: (rows, entries), what each entry adds: heat maps, odd tokens
from_entries(model, x, entries, log_measure)   optional: the score again, where `entries` cost what the score costs;
                                       a scored row is then explained without a second pass through the network
fit(model, x, generator, effort)       optional: state of the score's own, name -> tensor, from a sample of training
                                       records; kept in the artifact. Without it `state` is empty. effort: share of its
                                       own training, if it has any (a model that was hardly trained wants little)
fit_by_folds(model, x, folds, generator, effort)   optional, beside fit: for small tables, see `genai_core.folds`
can_fold(model)                        beside fit_by_folds: whether that may be done
calibrate(model, x, log_measure, state)  optional: what it adds to its state from held-out records
STATE_OF                               optional: the score whose state it reads, instead of having its own
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    State = Mapping[str, Tensor]
else:  # this package is imported to check a job file: no torch
    State = Mapping
