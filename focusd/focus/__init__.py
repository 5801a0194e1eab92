"""Decisions alone: the calibration curve, the search, the shift to focus. No I/O, no clock, no hardware."""
