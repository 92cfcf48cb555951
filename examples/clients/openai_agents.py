"""OpenAI's Agents SDK: `pip install openai-agents`. A tool is called, a turn names the one before, a session."""

import os

from agents import Agent, OpenAIConversationsSession, Runner, function_tool, set_tracing_disabled
from agents.models.openai_responses import OpenAIResponsesModel
from openai import AsyncOpenAI

set_tracing_disabled(True)
client = AsyncOpenAI(
    base_url=os.environ.get("FUSION_SERVER", "http://127.0.0.1:8383") + "/v1",
    api_key=os.environ.get("FUSION_SERVER_KEY", "none"),
)


@function_tool
def capital(country: str) -> str:
    """Return the capital of a country."""
    return f"The capital of {country} is Canberra."


agent = Agent("Geographer", tools=[capital], model=OpenAIResponsesModel("fusion", client))

first = Runner.run_sync(agent, "What is the capital of Australia?")
print(first.final_output)

second = Runner.run_sync(agent, "Are you sure?", previous_response_id=first.last_response_id)
print(second.final_output)

session = OpenAIConversationsSession(openai_client=client)
for question in ("What is the capital of Australia?", "Are you sure?"):
    print(Runner.run_sync(agent, question, session=session).final_output)
