"""From due periods to final invoices: runs, drafts, numbers, and what can be read of them."""
