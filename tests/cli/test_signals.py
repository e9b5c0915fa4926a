"""Commands that run until they are asked to stop.

Cases: a signal that another thread gets ends the wait too.
"""

import subprocess
import sys

PROGRAM = """
import signal, threading, time
from offload.cli.signals import stop_on_signals, wait_for

def later():
    time.sleep(0.2)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

with stop_on_signals() as stop:
    threading.Thread(target=later).start()
    wait_for(stop)
"""


def test_a_signal_that_another_thread_gets_ends_the_wait() -> None:
    assert subprocess.run([sys.executable, "-c", PROGRAM], timeout=20, check=False).returncode == 0
