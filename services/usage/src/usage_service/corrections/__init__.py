"""Corrections: how they are asked for and listed. The meter worker applies them (`metering.corrections`)."""
