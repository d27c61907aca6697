"""Test clocks: time that an operator advances, so that months of billing run in a test."""
