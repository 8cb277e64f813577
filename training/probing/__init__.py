"""Probes: tables of labels, kernels, fits, search and calibration."""
