"""Everything that may go wrong, at once and for minutes, beside an honest consumer and an honest sender."""
