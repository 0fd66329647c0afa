"""Spoken digits: are samples understood, do they teach or help a classifier, is an odd one noticed, do voices change?

python -m benchmarks.audio --data DIR      DIR/fsdd/fsdd.parquet; clips with index < 5 are the test

The classifier that listens (log-mel, principal components, logistic regression) reads WAV files like anybody else: it
has a spectrogram of its own, over the whole clip. Settings were chosen on the clips with index 5 to 9 (`--pilot`).
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import soundfile
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.record import save
from genai_core import fit
from genai_core.modalities.audio import place
from genai_core.scores.cepstral_distance import align
from genai_core.sounds.spectrogram import LogMel

RATE = 8000
HEARD = LogMel.covering(RATE, 40, 0.02, 0.8)
HEARD_RANGE = 50.0  # decibels below the clip's loudest
READING = {"kind": "audio", "column": "wav", "label": "digit", "view": "log_mel", "seconds": 0.62}
READING |= {"mels": 32, "hop": 0.02}  # a grid of 32 x 32
ALONE = {key: value for key, value in READING.items() if key != "label"}
PARTS = ("samples", "few", "anomalies", "voices")
VOICES = ("jackson", "theo")  # translated into each other
ALIGNED = "cepstral_distance"
FEW = 10  # clips a class of the augmentation task


def main() -> None:
    """Train, listen, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--family", default="vae")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--few-epochs", type=int, default=60)
    parser.add_argument("--voice-epochs", type=int, default=8)
    parser.add_argument(
        "--voice-identity", type=float, default=0.0, help="weight of the loss by which a voice stays as it is"
    )
    parser.add_argument("--samples", type=int, default=2560)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--pilot", action="store_true", help="validation clips only, nothing is kept")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    train, test = clips(chosen.data / "fsdd" / "fsdd.parquet", chosen.pilot)
    figures: dict[str, Any] = {"train_clips": train.num_rows, "test_clips": test.num_rows}
    if "samples" in chosen.parts:
        figures |= understood(train, test, chosen)
    if "few" in chosen.parts:
        figures |= augmented(train, test, chosen)
    if "anomalies" in chosen.parts:
        figures |= noticed(train, test, chosen)
    if "voices" in chosen.parts:
        figures |= translated(train, test, chosen)
    if chosen.pilot:
        print(vars(chosen), figures)
    else:
        name = "audio" if tuple(chosen.parts) == PARTS else "_".join(("audio", *chosen.parts))
        kept = {key: value for key, value in vars(chosen).items() if key not in ("data", "pilot")}
        save(name, figures, "audio", **kept)


def clips(path: Path, pilot: bool) -> tuple[pa.Table, pa.Table]:
    """Training and test clips; of a pilot both are parts of the training clips."""
    table = pq.read_table(path, columns=["wav", "digit", "speaker", "index"])
    first = 5 if pilot else 0
    test = pc.and_(pc.less(table["index"], first + 5), pc.greater_equal(table["index"], first))
    return table.filter(pc.greater_equal(table["index"], first + 5)), table.filter(test)


# -- the listener ----------------------------------------------------------------------------------------------
def heard(wavs: pa.ChunkedArray) -> np.ndarray:
    """Features (clips, 40 x frames): decibels below the clip's loudest."""
    made = np.zeros((len(wavs), HEARD.samples), np.float32)
    for clip, data in zip(made, wavs.to_pylist(), strict=True):
        place(clip, soundfile.read(io.BytesIO(data), dtype="float32")[0])
    found = torch.cat([HEARD.decibels(part) for part in torch.from_numpy(made).split(64)]).numpy()
    loudest = found.max((1, 2), keepdims=True)
    return np.maximum(found - loudest, -HEARD_RANGE).reshape(len(found), -1)


def understandable(wavs: pa.ChunkedArray) -> np.ndarray:
    """Features for a listener: the active part, stretched to one length, and how long it was."""
    found = torch.from_numpy(heard(wavs)).view(len(wavs), HEARD.mels, HEARD.frames) / HEARD_RANGE + 1
    aligned, frames = align(found)
    return np.c_[aligned.flatten(1).numpy(), (frames[:, -1] - frames[:, 0]).numpy() / HEARD.frames]


def listener(wavs: pa.ChunkedArray, digits: pa.ChunkedArray) -> Any:
    """A classifier of digits."""
    x = understandable(wavs)
    parts = PCA(min(100, len(x) // 2), whiten=True, random_state=0)
    return make_pipeline(StandardScaler(), parts, LogisticRegression(C=0.3, max_iter=300)).fit(
        x, digits.to_numpy()
    )


def accuracy(model: Any, table: pa.Table) -> float:
    """Share of the digits that are understood."""
    return round(float(model.score(understandable(table["wav"]), table["digit"].to_numpy())), 4)


# -- samples ---------------------------------------------------------------------------------------------------
def understood(train: pa.Table, test: pa.Table, chosen: argparse.Namespace) -> dict[str, Any]:
    """Samples by class: recognised by a listener of real clips; and teachers of one that is tested on real clips."""
    start = time.process_time()
    model = fit(
        train.select(["wav", "digit"]),
        chosen.family,
        modality=READING,
        on_step=lambda step, done: (
            None if step % 20 else print(f"{done:.2f}", round(time.process_time() - start), flush=True)
        ),
        seed=7,
        max_epochs=chosen.epochs,
        batch_size=chosen.batch,
        evaluations=10,
        patience=1000,
    )
    trained = time.process_time()
    made = model.sample(chosen.samples, seed=7)
    drawn = time.process_time()
    real = listener(train["wav"], train["digit"])
    figures = {
        "training_cpu_seconds": round(trained - start),
        "sampling_cpu_seconds": round(drawn - trained),
        "validation_nats": round(model.provenance["training"]["validation_loss"], 1),
        "listener_on_real": accuracy(real, test),
        "listener_on_inverted_real": accuracy(real, inverted(model, test)),
        "samples_recognised": accuracy(real, made),
        "train_on_synthetic_test_on_real": accuracy(listener(made["wav"], made["digit"]), test),
    }
    print(figures, flush=True)
    return figures


def inverted(model: Any, table: pa.Table) -> pa.Table:
    """Real clips through the spectrogram and back: what no sample can be better than."""
    records = model.codec.encode(table.select(["wav", "digit"]))
    return model.codec.decode(records.tokens.astype(np.int64), np.random.default_rng(0))


def augmented(train: pa.Table, test: pa.Table, chosen: argparse.Namespace) -> dict[str, Any]:
    """Ten clips a class: a listener of them, and of them and samples of a model that saw nothing else."""
    found: dict[str, list[float]] = {"real": [], "real_and_synthetic": []}
    for seed in range(3):
        few = pa.concat_tables([_some(train, digit, seed) for digit in range(10)]).select(["wav", "digit"])
        model = fit(
            few,
            chosen.family,
            modality=READING,
            seed=seed,
            max_epochs=chosen.few_epochs,
            patience=1000,
            evaluations=12,
        )
        both = pa.concat_tables([few, model.sample(512, seed=seed).cast(few.schema)])
        found["real"].append(accuracy(listener(few["wav"], few["digit"]), test))
        found["real_and_synthetic"].append(accuracy(listener(both["wav"], both["digit"]), test))
        print(found, flush=True)
    return {f"few_{name}": values for name, values in found.items()}


def _some(train: pa.Table, digit: int, seed: int) -> pa.Table:
    rows = np.flatnonzero(train["digit"].to_numpy() == digit)
    return train.take(pa.array(np.sort(np.random.default_rng(seed).permutation(rows)[:FEW])))


# -- translation between voices ---------------------------------------------------------------------------------
def translated(train: pa.Table, test: pa.Table, chosen: argparse.Namespace) -> dict[str, Any]:
    """Two speakers into each other, without pairs: whose voice is heard, and is the digit still understood?

    Beside the translations stand the test clips through the log-mel spectrogram and back, which nothing is changed in.
    """
    train, test = (table.filter(pc.is_in(table["speaker"], pa.array(VOICES))) for table in (train, test))
    start = time.process_time()
    model = fit(
        train.select(["wav", "speaker"]),
        "cyclegan",
        modality=READING | {"label": "speaker"},
        seed=7,
        max_epochs=chosen.voice_epochs,
        model={"identity": chosen.voice_identity},
        patience=1000,
        evaluations=10,
        on_step=lambda step, done: (
            None if step % 20 else print(f"{done:.2f}", round(time.process_time() - start), flush=True)
        ),
    )
    figures: dict[str, Any] = {"training_cpu_seconds": round(time.process_time() - start)}
    voices = _voices(train)
    digits = listener(train["wav"], train["digit"])
    found: dict[str, list[tuple[float, float, int]]] = {}
    for voice, other in (VOICES, VOICES[::-1]):
        clips = test.filter(pc.equal(test["speaker"], voice))
        records = model.codec.encode(clips.select(["wav", "speaker"]))
        as_is = model.codec.decode(records.tokens.astype(np.int64), np.random.default_rng(0))
        made, _ = model.translate(clips.select(["wav", "speaker"]), other)
        for name, table in (("untranslated", as_is), ("translated", made)):
            heard_as = float((voices.predict(understandable(table["wav"])) == other).mean())
            understood = float(digits.score(understandable(table["wav"]), clips["digit"].to_numpy()))
            found.setdefault(name, []).append((heard_as, understood, clips.num_rows))
    for name, parts in found.items():
        other_voice, digit = np.average(np.array(parts)[:, :2], axis=0, weights=[n for *_, n in parts])
        figures[f"voices_{name}"] = {
            "heard_as_the_other": round(float(other_voice), 4),
            "digit_understood": round(float(digit), 4),
        }
    held_out = float(voices.score(understandable(test["wav"]), np.array(test["speaker"].to_pylist())))
    figures["voices_told_apart_on_real"] = round(held_out, 4)
    print(figures, flush=True)
    return figures


def _voices(train: pa.Table) -> Any:
    x = understandable(train["wav"])
    parts = PCA(100, whiten=True, random_state=0)
    model = make_pipeline(StandardScaler(), parts, LogisticRegression(C=0.3, max_iter=300))
    return model.fit(x, np.array(train["speaker"].to_pylist()))


# -- anomalies -------------------------------------------------------------------------------------------------
def noticed(train: pa.Table, test: pa.Table, chosen: argparse.Namespace) -> dict[str, Any]:
    """Mean AUROC: one digit is normal, all others odd; and five speakers normal, the sixth odd.

    The distance in aligned cepstra asks the network nothing: one epoch of a small one is enough.
    """
    found: dict[str, list[float]] = {}
    plain = heard(train["wav"]), heard(test["wav"])
    for task in ("digit", "speaker"):
        values, of_test = (np.array(table[task].to_pylist()) for table in (train, test))
        for value in np.unique(values):
            one = task == "digit"  # is normal; of the speakers one is odd
            normal = train.filter(pa.array((values == value) == one))
            odd = (of_test == value) != one
            near = nearest(plain[0][(values == value) == one], plain[1])
            found.setdefault(f"{task}_knn", []).append(roc_auc_score(odd, near))
            how = {"max_epochs": 1, "evaluations": 1, "model": {"channels": 4, "latent": 4}}
            model = fit(normal.select(["wav"]), "gan", modality=ALONE, seed=7, **how)
            aligned = model.score(test.select(["wav"]), [ALIGNED]).totals[ALIGNED]
            found.setdefault(f"{task}_{ALIGNED}", []).append(roc_auc_score(odd, aligned))
            print(value, {name: round(float(np.mean(v)), 4) for name, v in found.items()}, flush=True)
    return {f"auroc_{name}": round(float(np.mean(values)), 4) for name, values in found.items()}


def nearest(normal: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Distance to the nearest normal clip: what a model has to beat."""
    squares = (test**2).sum(1)[:, None] - 2 * test @ normal.T + (normal**2).sum(1)
    return squares.min(1)


if __name__ == "__main__":
    main()
