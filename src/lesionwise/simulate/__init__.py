"""Patients whose truth is known to the voxel."""
