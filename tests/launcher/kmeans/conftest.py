import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """On a shared machine, threads that wait for one another make small tests slow."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
