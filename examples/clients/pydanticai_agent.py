"""Pydantic AI: `pip install "pydantic-ai-slim[openai]"`. A tool is called, and an answer has a form."""

import os

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

model = OpenAIChatModel(
    "fusion",
    provider=OpenAIProvider(
        base_url=os.environ.get("FUSION_SERVER", "http://127.0.0.1:8383") + "/v1",
        api_key=os.environ.get("FUSION_SERVER_KEY", "none"),
    ),
)
agent = Agent(model)
question = "What is the capital of Australia?"


@agent.tool_plain
def capital(country: str) -> str:
    """Return the capital of a country."""
    return f"The capital of {country} is Canberra."


print(agent.run_sync(question).output)


class Capital(BaseModel):
    city: str


print(Agent(model, output_type=NativeOutput(Capital)).run_sync(question).output)
