"""Run a chain over files of records, in many processes on many machines."""
