"""What the ledger means: pure values, rules and decisions. No I/O, no clock, no randomness."""
