"""The same tests everywhere: one thread per process, and no draw or clock that differs between runs."""

import functools
import signal
from collections.abc import Iterator

import pytest
import sklearn.datasets
import torch
from hypothesis import settings

from tests.interrupted import Victim

# A shell's background job ignores Ctrl-C, and so would every program that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # contended threads cost 4 to 40 times
# Thousands of tests load the digits: a table of numbers as text, 20 ms to read, of which every caller makes a copy.
sklearn.datasets.load_digits = functools.cache(sklearn.datasets.load_digits)

settings.register_profile("scanmix", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("scanmix")


@pytest.fixture(scope="session")
def victim() -> Iterator[Victim]:
    """A process that has imported everything, and forks those that are killed."""
    with Victim() as found:
        yield found
