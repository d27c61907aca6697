"""Over how many keys the events of a tenant are spread: measured, decided and told to the tenant service."""
