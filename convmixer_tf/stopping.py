"""Being asked to stop, at a time that suits."""

import contextlib
import signal
import threading

from absl import logging


@contextlib.contextmanager
def stop_signals():
    """Collects SIGTERM and SIGINT in a list instead of dying from them.

    A second one interrupts at once.
    """
    received = []

    def receive(number, frame):
        if received:
            raise KeyboardInterrupt
        received.append(number)
        logging.info("Stops and saves. Once more: stops at once.")

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
