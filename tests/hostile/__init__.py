"""A load of attackers and faults, for minutes, together with an honest consumer and an honest sender."""
