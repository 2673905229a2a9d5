"""The append-only ledger: C2SP tiles, signed checkpoints, receipts."""
