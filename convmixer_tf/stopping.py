"""Handles stop signals at a suitable time."""

import contextlib
import signal
import threading

from absl import logging


@contextlib.contextmanager
def stop_signals():
    """Collects SIGTERM and SIGINT in a list instead of exiting.

    A second signal interrupts immediately.
    """
    received = []

    def receive(number, frame):
        if received:
            raise KeyboardInterrupt
        received.append(number)
        logging.info(
            "Signal received: saving a checkpoint, then exiting. "
            "Send it again to exit immediately."
        )

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    old = {number: signal.signal(number, receive) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
