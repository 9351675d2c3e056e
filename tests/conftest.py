"""The same tests everywhere: one thread per process, and no draw or clock that differs between runs."""

import signal

import torch
from hypothesis import settings

# A shell's background job ignores Ctrl-C, and so would every program that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # contended threads cost 4 to 40 times

settings.register_profile("scanmix", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("scanmix")
