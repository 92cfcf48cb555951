"""Inspect: `pip install inspect-ai openai`. An evaluation of one task, in which a tool is called."""

import os

from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import Sample
from inspect_ai.model import get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import Tool, tool


@tool
def capital() -> Tool:
    async def execute(country: str) -> str:
        """Return the capital of a country.

        Args:
            country: its name.
        """
        return f"The capital of {country} is Canberra."

    return execute


model = get_model(
    "openai-api/fusion/fusion",
    base_url=os.environ.get("FUSION_SERVER", "http://127.0.0.1:8383") + "/v1",
    api_key=os.environ.get("FUSION_SERVER_KEY", "none"),
)
task = Task(
    dataset=[Sample("What is the capital of Australia?", target="Canberra")],
    solver=[use_tools(capital()), generate()],
    scorer=includes(),
)
[log] = evaluate(task, model=model, display="none", log_dir="inspect_logs")
print(log.samples[0].output.completion)
print(log.results.scores[0].metrics["accuracy"].value)
