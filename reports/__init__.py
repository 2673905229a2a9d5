"""What can be proved: the ledger, certificates and the auditor's package."""
