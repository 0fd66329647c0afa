"""Shares of the rows that values of a column shall have: `balance: {late: {yes: 0.5}}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from genai_core.errors import InvalidInput
from genai_core.tables.rules import Rule, Tables

if TYPE_CHECKING:  # checking a job file must not import torch
    from genai_core.modalities.tabular import TabularCodec
    from genai_core.model import Condition


class Balanced(Rule):
    """Values with the share of the rows that each shall have; the shares of all others stay in proportion."""

    keyword = "balance"

    def __init__(self, codec: TabularCodec, name: str, shares: Mapping[Any, float]) -> None:
        super().__init__(codec, name)
        total = float(sum(shares.values())) if shares else 0.0
        if not shares or any(not 0 <= share <= 1 for share in shares.values()) or total > 1 + 1e-9:
            raise InvalidInput(
                f"{self.place}: found {dict(shares)}; accepted are values with shares from 0 to 1, together at most 1"
            )
        values = [_yaml_word(value, self.type) for value in shares]
        tokens = self.encoded(self.values(values))
        rest = self.blank(0.0)
        self.leave_out(rest, tokens, list(shares))
        self.alternatives: list[Tables] = []
        for row in tokens:
            self.alternatives.append(self.blank(-np.inf))
            self.open_up(self.alternatives[-1], row[None])
        self.shares = [float(share) for share in shares.values()]
        if total < 1 - 1e-9:
            self.refuse_rest(rest, total)
            self.alternatives.append(rest)
            self.shares.append(1 - total)

    def refuse_rest(self, rest: Tables, total: float) -> None:
        """InvalidInput when all values are named and their shares leave something."""
        drawable = self.codec.space.positions[self.positions[0]].drawable
        if not (np.isfinite(rest[0]) & drawable).any():
            raise InvalidInput(
                f"{self.place}: the shares add up to {total:g}, and no other value is left; make them add up to 1"
            )

    @property
    def condition(self) -> Condition:
        import torch

        from genai_core.model import Condition

        tables = [torch.from_numpy(np.stack(some)) for some in zip(*self.alternatives, strict=True)]
        return Condition(self.field, tables, shares=torch.tensor(self.shares, dtype=torch.float64).float())


def _yaml_word(value: Any, type_: pa.DataType) -> Any:
    """Keys of a mapping are texts in JSON: `true` may mean a boolean."""
    if isinstance(value, bool) and not pt.is_boolean(type_):
        return "yes" if value else "no"
    return None if value in ("null", None) else value
