"""What travels: types, sections, JSON Lines, schemas, and the table of request parameters."""
