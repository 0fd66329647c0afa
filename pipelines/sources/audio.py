"""Sound files in folders: a row a file, with the folder's name as its label."""

from __future__ import annotations

from typing import Literal

from pipelines.sources.files import FileSettings
from pipelines.sources.whole_files import WholeFileReader


class AudioSource(FileSettings):
    """A sound file, or a directory of them; columns: file, audio (the bytes), label (the folder's name)."""

    kind: Literal["audio"] = "audio"


class AudioReader(WholeFileReader):
    """Reads sound files without looking into them."""

    payload = "audio"
    suffixes = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff")


READER = AudioReader
