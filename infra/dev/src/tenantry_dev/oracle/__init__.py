"""What the invoices must say, computed straight from the trace files.

It shares no code with the services, the replay or the price documents: own parsing, own arithmetic, own statement of
the prices. It is meant to be read in a few minutes and believed.
"""

from tenantry_dev.oracle.expected import ExpectedInvoice, expected_invoices

__all__ = ["ExpectedInvoice", "expected_invoices"]
