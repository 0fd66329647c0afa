#!/usr/bin/env python3
"""Is this container well? Whether HEALTH_URL answers 200, and where none is set, whether `genai` can be started.

Standard library alone: it runs several times a minute beside the work.
"""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request


def main() -> int:
    """0: well, 1: not."""
    url = os.environ.get("HEALTH_URL")
    if url is None:
        return subprocess.run(["genai", "--version"], stdout=subprocess.DEVNULL).returncode
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy would answer for itself
    try:
        with direct.open(url, timeout=5) as answer:
            return 0 if answer.status == 200 else 1
    except OSError as error:
        print(f"{url}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
