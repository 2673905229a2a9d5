"""What must be true: readiness, residue, suites over findings, and the auditor's verifier."""
