"""Trained networks applied to volumes: weights, devices, windows, views, OpenVINO.

Nothing here trains, so a preprocessing step can hold a network without the training code.
"""
