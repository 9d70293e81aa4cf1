"""Measures the gateway from outside, through its ports; see README.md."""
