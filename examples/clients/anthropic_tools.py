"""The Anthropic SDK's tool runner: `pip install anthropic`. It asks for a thread, and goes on without one."""

import os

from anthropic import Anthropic, beta_tool

client = Anthropic(
    base_url=os.environ.get("FUSION_SERVER", "http://127.0.0.1:8383"),
    api_key=os.environ.get("FUSION_SERVER_KEY", "none"),
)


@beta_tool
def capital(country: str) -> str:
    """Return the capital of a country.

    Args:
        country: its name.
    """
    return f"The capital of {country} is Canberra."


runner = client.beta.messages.tool_runner(
    model="fusion",
    max_tokens=1000,
    tools=[capital],
    messages=[{"role": "user", "content": "What is the capital of Australia?"}],
)
print(runner.until_done().content[0].text)
