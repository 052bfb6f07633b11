"""What a person reads and what a machine re-checks: reports, evidence folders, signatures."""
