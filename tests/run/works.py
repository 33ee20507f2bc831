"""Work that a process of its own can import by name."""

import os
import time

import numpy as np

from lesionwise.types import InputError


def doubles(job, progress):
    progress("double", 1, 1)
    return job * 2


def fills_memory(job, progress):
    return float(np.ones(job * 125_000_000).sum()) * 0 + os.getpid()


def is_at_fault(job, progress):
    raise InputError("scan.nii.gz: all zero")


def fails(job, progress):
    raise ArithmeticError("two\nlines")


def ends(job, progress):
    os._exit(job)


def is_killed(job, progress):
    os.kill(os.getpid(), 9)
    time.sleep(10)


def sends_twice(job, send):
    send("begun")
    send(["half", job])
    return job * 2


def divides(job, send):
    return 1 / job


def leaves(job, send):
    os._exit(job)
