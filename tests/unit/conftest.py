"""Unit tests do no IO: whoever opens a socket fails."""

import logging

import pytest
from pytest_socket import disable_socket, enable_socket


@pytest.fixture(autouse=True)
def _usual_logging():
    """Tests of workers that ran before in this process may have made the root logger their own."""
    logging.disable(logging.NOTSET)
    logging.getLogger().setLevel(logging.WARNING)


@pytest.fixture(autouse=True)
def _closed_sockets():
    # An event loop needs a pair of unix sockets for itself.
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()
