"""Run chains: over records, and what lasts longer than one: a conversation, an agent at work."""
