"""What all tests share."""

import torch

# Small problems lose more to thread synchronisation than they gain; the machines that test have two cores.
torch.set_num_threads(1)
