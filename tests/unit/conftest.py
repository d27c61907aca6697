"""Unit tests do no IO: whoever opens a socket fails."""

import pytest
from pytest_socket import disable_socket, enable_socket


@pytest.fixture(autouse=True)
def _closed_sockets():
    # An event loop needs a pair of unix sockets for itself.
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()
