"""What members may use: search, fetch, a shell, MCP servers; each bounded, and its results kept."""
