"""Results of cells: identities, records, and the ranked lists of all users."""
