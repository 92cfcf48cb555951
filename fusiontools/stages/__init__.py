"""One file per stage: record in, record out."""
