"""The wire formats: Chat Completions, Responses, Anthropic's Messages."""
