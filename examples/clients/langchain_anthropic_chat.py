"""LangChain by Anthropic's protocol: `pip install langchain-anthropic`. An answer, and the same as it is written."""

import os

from langchain_anthropic import ChatAnthropic

model = ChatAnthropic(
    model="fusion",
    max_tokens=1000,
    base_url=os.environ.get("FUSION_SERVER", "http://127.0.0.1:8383"),
    api_key=os.environ.get("FUSION_SERVER_KEY", "none"),
)
question = "What is the capital of Australia?"

print(model.invoke(question).text)
print("".join(chunk.text for chunk in model.stream(question)))
