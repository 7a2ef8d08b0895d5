"""Loaded first by the server that forks the runs' processes.

It makes the server outlive a signal that is sent to the whole group (the command decides what a signal means and
tells each run), and loads once what every run would load anew.
"""

from __future__ import annotations

import signal

import torch._dynamo  # noqa: F401  optimisers and the meta device load it at their first step, for a second or more

signal.signal(signal.SIGTERM, signal.SIG_IGN)
