"""Loaded first by the server that forks the runs' processes.

The server outlives a signal that is sent to the whole group: the command decides what a signal means and tells each
run, and the server ends when the command does. It loads once what every run would load anew.
"""

from __future__ import annotations

import gc
import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # before torch, whose import takes seconds
signal.signal(signal.SIGTERM, signal.SIG_IGN)

import torch._dynamo  # noqa: E402, F401  optimisers and the meta device load it at their first step, for a second or more

import vitrepro.runner  # noqa: E402, F401

gc.collect()
gc.freeze()  # a collection in a run's process would touch, and so copy, every page that it shares with the server
