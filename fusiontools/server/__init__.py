"""The same chains behind HTTP; one folder for the three wire protocols."""
