"""What services have of their tenants against what the registry says: findings, and their repair."""
