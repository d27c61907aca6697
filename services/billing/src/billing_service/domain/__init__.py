"""The rules of billing: values in, decisions out. No module here does IO.

money    currencies, the one rounding, splits that sum to the whole
prices   price documents and what a quantity costs under them
plans    plan documents: what is charged, in which currencies, how often
periods  the billing calendar of a subscription
texts    what callers may write where text or a moment is asked for
usage    what a meter counted in a period, and the proof of which version of it was billed
rating   plan + period + quantities + usage -> invoice lines
runs     the states of an invoice run
"""
