"""Settings of all tests."""

from __future__ import annotations

import torch

# The tensors of the tests are small: threads would wait for each other longer than they compute.
torch.set_num_threads(1)
