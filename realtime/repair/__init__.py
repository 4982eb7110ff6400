"""What keeps the store to the ledger: outbox, rebuild, drift, closed weeks."""
