"""Who may call: clients, API keys, and the tokens that both are exchanged for."""
