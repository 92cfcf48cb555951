"""Responses of the OpenAI SDK: `pip install openai`. An answer that is asked for later, and a turn that names it."""

import os
import time

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("FUSION_SERVER", "http://127.0.0.1:8383") + "/v1",
    api_key=os.environ.get("FUSION_SERVER_KEY", "none"),
)

response = client.responses.create(model="fusion", input="What is the capital of Australia?", background=True)
while response.status in ("queued", "in_progress"):
    time.sleep(0.1)
    response = client.responses.retrieve(response.id)
print(response.output_text)

print(client.responses.create(model="fusion", input="Are you sure?", previous_response_id=response.id).output_text)
client.responses.delete(response.id)
