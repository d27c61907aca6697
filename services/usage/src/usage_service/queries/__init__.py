"""Answers: figures by window, the events behind them, dead letters, unmatched types."""
