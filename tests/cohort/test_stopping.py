"""A signal is a note that is read where it is safe; the second one ends the process."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from lesionwise.cohort.stopping import Stopped, heeding_signals


@pytest.mark.parametrize(("sign", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_work_at_its_next_check(sign, status):
    before = signal.getsignal(sign)
    with heeding_signals() as request:
        request.check()
        os.kill(os.getpid(), sign)
        with pytest.raises(Stopped) as stop:
            request.check()
    assert stop.value.status == status
    assert signal.getsignal(sign) == before


def test_a_destructor_cannot_swallow_it():
    with heeding_signals() as request:
        Careless()
        with pytest.raises(Stopped):
            request.check()


class Careless:
    """Python prints and drops whatever is raised while this is taken apart."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_second_signal_ends_the_process_at_once():
    code = (
        "import os, signal, time\n"
        "from lesionwise.cohort.stopping import heeding_signals\n"
        "with heeding_signals():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], timeout=30, check=False)
    assert ended.returncode == -signal.SIGINT


def test_outside_the_main_thread_nothing_is_changed():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        with heeding_signals() as request:
            request.check()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
