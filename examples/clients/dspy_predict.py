"""DSPy: `pip install dspy`. A question answered by a signature."""

import os

import dspy

model = dspy.LM(
    f"openai/{os.environ.get('FUSION_MODEL', 'fusion')}",
    api_base=os.environ.get("FUSION_SERVER", "http://127.0.0.1:8383") + "/v1",
    api_key=os.environ.get("FUSION_SERVER_KEY", "none"),
    cache=False,
)
dspy.configure(lm=model)

print(dspy.Predict("question -> city")(question="What is the capital of Australia?").city)
