"""Settings of all tests."""

from __future__ import annotations

import os

import torch

# The tensors of the tests are small: threads would wait for each other longer than they compute.
torch.set_num_threads(1)
# So do those of the processes that tests begin.
os.environ.setdefault("OMP_NUM_THREADS", "1")
