"""Instructor: `pip install instructor`. An answer with a form."""

import os

import instructor
from openai import OpenAI
from pydantic import BaseModel

client = instructor.from_openai(
    OpenAI(
        base_url=os.environ.get("FUSION_SERVER", "http://127.0.0.1:8383") + "/v1",
        api_key=os.environ.get("FUSION_SERVER_KEY", "none"),
    ),
    mode=instructor.Mode.JSON_SCHEMA,
)


class Capital(BaseModel):
    city: str


question = {"role": "user", "content": "What is the capital of Australia?"}
print(client.chat.completions.create(model="fusion", messages=[question], response_model=Capital))
