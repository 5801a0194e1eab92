"""The simulator's images are small: on a busy machine torch's second thread costs ten times what it gains."""

import torch

torch.set_num_threads(1)
