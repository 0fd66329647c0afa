"""Every error this project raises on purpose.

    GenAIError
    ├── InvalidInput            what the user gave cannot work; nothing was started   (exit code 2)
    │   ├── InvalidSpec         the job file: syntax, a misspelt key, a value out of range
    │   ├── InvalidData         a source: missing, empty, corrupt, or of a type no codec reads
    │   ├── SchemaMismatch      a table does not fit the model
    │   ├── MissingCapability   the model cannot give what is asked of it
    │   ├── InvalidArtifact     a model directory: changed, incomplete, or of a newer format
    │   ├── OutputExists        the sink belongs to another job
    │   └── Unavailable         a server, store, credential, disk or CPU that the job needs
    └── JobFailed               work was started and could not be finished            (exit code 1)
        ├── Stalled             the watchdog saw nothing commit
        └── TrainingFailed      the loss left the finite numbers and did not come back

A message says what was found, what is accepted, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GenAIError(Exception):
    """Root of the tree; `exit_code` is what the command line returns."""

    exit_code = 1


class InvalidInput(GenAIError):
    """What the user gave cannot work."""

    exit_code = 2


class InvalidSpec(InvalidInput):
    """A job file is wrong."""


class InvalidData(InvalidInput):
    """A source is missing, empty, corrupt, or of a type that no codec reads."""


class SchemaMismatch(InvalidInput):
    """A table does not fit the model."""


class MissingCapability(InvalidInput):
    """The model cannot give what is asked of it."""


class InvalidArtifact(InvalidInput):
    """A model directory was changed, is incomplete, or has a newer format."""


class OutputExists(InvalidInput):
    """The sink belongs to another job."""


class Unavailable(InvalidInput):
    """A server, store, credential, disk or CPU that the job needs is not there."""


class JobFailed(GenAIError):
    """Work was started and could not be finished; what was committed stays."""


class Stalled(JobFailed):
    """The watchdog saw nothing commit for too long."""


class TrainingFailed(JobFailed):
    """The loss left the finite numbers and did not come back."""


def nearest(word: str, accepted: Iterable[str]) -> str:
    """A hint such as ``; did you mean 'filter'?``, or an empty string."""
    found = difflib.get_close_matches(str(word), [str(a) for a in accepted], n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""
