"""What the answers say: pure functions on tables of scores, profiles and survey shares."""
