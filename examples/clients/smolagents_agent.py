"""smolagents: `pip install "smolagents[openai]"`. An agent calls a tool and says what it found."""

import os

from smolagents import OpenAIServerModel, ToolCallingAgent, tool


@tool
def capital(country: str) -> str:
    """Return the capital of a country.

    Args:
        country: its name.
    """
    return f"The capital of {country} is Canberra."


model = OpenAIServerModel(
    model_id="fusion",
    api_base=os.environ.get("FUSION_SERVER", "http://127.0.0.1:8383") + "/v1",
    api_key=os.environ.get("FUSION_SERVER_KEY", "none"),
)
agent = ToolCallingAgent(tools=[capital], model=model, max_steps=3, verbosity_level=0)
print(agent.run("What is the capital of Australia?"))
