"""What people and programs can ask of the ledger, and the ports that it needs for that."""
