"""The sample run without a person: compared with the oracle, measured, stopped."""
