"""Layered configuration: namespaces with schemas, layers with versions, secrets."""
