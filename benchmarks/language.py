"""A causal transformer on text: nats per character of Tiny Shakespeare and of names, characters drawn a second

One thread; budgets in CPU-seconds. The last tenth of the text is looked at once, at the end.

    python -m benchmarks.language --data DIR [--minutes 20] [--names-minutes 2]

DIR holds text/tinyshakespeare.txt and text/names.txt.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from benchmarks import record
from genai_core.hyperparameters import Autoregressive as Settings
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit
from genai_core.models.autoregressive import Autoregressive
from genai_core.networks.tokens import draw
from genai_core.networks.transformer import CausalTransformer
from genai_core.spaces import Sequence
from pipelines.training.allocator import keep_freed_memory

LENGTH, BATCH = 128, 16  # tokens of a window, windows a step
SHORT = 128  # names a step
# An epoch of windows shows every character twice. Eight passes at a higher rate were past the best after the first.
WINDOW_EPOCHS, NAME_EPOCHS = 1, 4
PROBE = 12  # steps that tell how many fit into the budget
MARGIN = 0.9  # of the budget is planned: a step takes longer when others use the memory too
EVALUATIONS = 8
HELD_OUT = 0.03  # last part of the training text, on which the fit stops early
DRAWN, DRAWN_LENGTH = 16, 256  # records and characters each of the sampling speed


def tiny_shakespeare(path: Path, minutes: float, seed: int) -> tuple[dict[str, Any], Autoregressive]:
    """Figures of a fit on the first nine tenths, and the model."""
    text, symbols = characters(path.read_bytes())
    known, test = np.split(text, [int(0.9 * len(text))])
    train, validation = np.split(known, [int((1 - HELD_OUT) * len(known))])
    space = Sequence(len(symbols), LENGTH)
    windows = np.lib.stride_tricks.sliding_window_view(train, LENGTH)[:: LENGTH // 2]
    held_out = validation[: len(validation) // LENGTH * LENGTH].reshape(-1, LENGTH)
    model, figures = fitted(space, windows, held_out, minutes, seed, BATCH, WINDOW_EPOCHS)
    figures |= {"nats_per_character": round(nats_per_character(model, test), 4)}
    return figures | {"characters": {"trained_on": len(train), "test": len(test)}}, model


def names(path: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Figures of a fit on eight tenths of the names, stopped early on one, tested on one; an end is a character too."""
    lines = path.read_bytes().split()
    text, symbols = characters(b"".join(lines))
    end, length = len(symbols), max(map(len, lines)) + 1
    records = np.full((len(lines), length), end, np.uint8)
    for row, (line, last) in enumerate(zip(lines, np.cumsum([len(x) for x in lines]), strict=True)):
        records[row, : len(line)] = text[last - len(line) : last]
    random = np.random.default_rng(seed)
    train, validation, test = np.split(
        random.permutation(records), [int(0.8 * len(lines)), int(0.9 * len(lines))]
    )

    space = Sequence(end + 1, length, end)
    model, figures = fitted(space, train, validation, minutes, seed, SHORT, NAME_EPOCHS)
    scored = int(np.minimum((test != end).sum(1) + 1, length).sum())
    return figures | {
        "nats_per_character": round(model.validation_loss(tensor(test)) * len(test) / scored, 4)
    }


def characters(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Bytes as numbers of the symbols that occur, and these."""
    symbols, text = np.unique(np.frombuffer(data, np.uint8), return_inverse=True)
    return text.astype(np.uint8), symbols


def fitted(
    space: Sequence,
    train: np.ndarray,
    validation: np.ndarray,
    minutes: float,
    seed: int,
    batch: int,
    epochs: int,
) -> tuple[Autoregressive, dict[str, Any]]:
    """A model that was fitted for so many epochs, fewer if the CPU-minutes are too few, and what it took."""
    options: dict[str, Any] = {"seed": seed, "batch_size": batch, "patience": 1000}
    probe = _fit(
        space, train[: PROBE * batch], validation[:1], FitSettings(**options, max_epochs=1, evaluations=1)
    )
    affordable = MARGIN * 60 * minutes / (probe[2] / PROBE) * batch / len(train)
    settings = FitSettings(
        **options, max_epochs=max(min(int(affordable), epochs), 1), evaluations=EVALUATIONS
    )
    model, fit, seconds = _fit(space, train, validation, settings)
    figures = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "cpu_seconds": round(seconds, 1),
        "epochs": settings.max_epochs,
        "steps": fit.progress.step,
        "tokens_a_step": batch * space.length,
        "validation_nats_per_record": [round(h["validation_loss"], 3) for h in fit.progress.history],
    }
    return model, figures


def _fit(
    space: Sequence, rows: np.ndarray, validation: np.ndarray, settings: FitSettings
) -> tuple[Autoregressive, Fit, float]:
    """Model, fit, and the CPU-seconds of the steps (with counting and validation)."""
    torch.manual_seed(settings.seed)
    model = Autoregressive(space, Settings())
    fit = Fit(model, rows, validation, settings)
    start = time.process_time()
    fit.run()
    return model, fit, time.process_time() - start


def tensor(rows: np.ndarray) -> torch.Tensor:
    """Records as a model reads them."""
    return torch.from_numpy(rows.astype(np.int64))


@torch.inference_mode()
def nats_per_character(model: Autoregressive, text: np.ndarray) -> float:
    """Every character from at least half a window before it, those of the first half window from all there is."""
    half = LENGTH // 2
    starts = np.arange(0, len(text) - LENGTH + 1, half)
    starts = np.append(starts, len(text) - LENGTH)  # its last characters are not yet scored
    rows = tensor(np.lib.stride_tricks.sliding_window_view(text, LENGTH)[starts])
    nats = -model.log_prob(rows).numpy().astype(np.float64)
    found = np.full(len(text), np.nan)
    found[:half] = nats[0, :half]
    for start, row in zip(starts, nats, strict=True):
        found[start + half : start + LENGTH] = row[half:]
    return float(found.mean())


@torch.inference_mode()
def sampling(model: Autoregressive, seed: int) -> dict[str, Any]:
    """Characters a CPU-second drawn with and without the cache, and some that were drawn."""
    network = cast(CausalTransformer, model.network)
    longer = CausalTransformer(Sequence(network.space.vocabulary, DRAWN_LENGTH), Settings())
    longer.load_state_dict(network.state_dict())
    longer.eval()
    rates = {}
    for name, sample in (("cached", longer.sample), ("recomputed", _recomputed(longer))):
        start = time.process_time()
        drawn = sample(DRAWN, torch.Generator().manual_seed(seed))
        rates[name] = (time.process_time() - start, drawn)
    same = float((rates["cached"][1] == rates["recomputed"][1]).float().mean())
    speed = {name: DRAWN * DRAWN_LENGTH / seconds for name, (seconds, _) in rates.items()}
    return {
        "rows": DRAWN,
        "length": DRAWN_LENGTH,
        "characters_per_cpu_second": {name: round(value, 1) for name, value in speed.items()},
        "cached_over_recomputed": round(speed["cached"] / speed["recomputed"], 1),
        "same_characters": round(same, 4),
    }


def _recomputed(network: CausalTransformer) -> Callable[[int, torch.Generator], torch.Tensor]:
    """Sampling that reads all characters again for each new one."""

    def draw_all(rows: int, generator: torch.Generator) -> torch.Tensor:
        x = torch.zeros(rows, 0, dtype=torch.int64)
        for _ in range(network.space.length):
            logits = network.logits(torch.nn.functional.pad(x, (0, 1)), None)[:, -1]
            token = draw(logits, torch.rand(rows, generator=generator))
            x = torch.cat([x, token[:, None]], 1)
        return x

    return draw_all


def main() -> None:
    """Write results/language.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="directory that holds text/")
    parser.add_argument("--minutes", type=float, default=20, help="CPU-minutes for Tiny Shakespeare")
    parser.add_argument("--names-minutes", type=float, default=2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--output", default="language", help="name of the file under results/")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    shakespeare, model = tiny_shakespeare(
        chosen.data / "text/tinyshakespeare.txt", chosen.minutes, chosen.seed
    )
    figures = {"tiny_shakespeare": shakespeare, "sampling": sampling(model, chosen.seed)}
    if chosen.names_minutes:
        figures["names"] = names(chosen.data / "text/names.txt", chosen.names_minutes, chosen.seed)
    record.save(chosen.output, figures, "language", seed=chosen.seed, minutes=chosen.minutes)


if __name__ == "__main__":
    main()
