"""An agent that works on a folder: its loop, its tools, the copy that it works on, and how that comes back."""
