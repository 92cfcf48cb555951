"""A LiteLLM proxy between the OpenAI SDK and the server: an answer, and the same as it is written."""

import os
import subprocess
import sys
import time
from pathlib import Path

from openai import APIConnectionError, OpenAI

CONFIG = Path(__file__).parents[3] / "examples" / "clients" / "litellm_proxy.yaml"
PORT = "47813"
KEY = "sk-proxy"
environment = {
    **os.environ,
    "FUSION_API_BASE": os.environ["FUSION_SERVER"] + "/v1",
    "FUSION_SERVER_KEY": os.environ.get("FUSION_SERVER_KEY", "none"),
    "LITELLM_MASTER_KEY": KEY,
}
command = ["litellm", "--config", str(CONFIG), "--host", "127.0.0.1", "--port", PORT]
proxy = subprocess.Popen(command, env=environment, stdout=sys.stderr)
try:
    client = OpenAI(base_url=f"http://127.0.0.1:{PORT}/v1", api_key=KEY, max_retries=0)
    while True:
        try:
            client.models.list()
            break
        except APIConnectionError:
            if proxy.poll() is not None:
                sys.exit("the proxy has ended")
            time.sleep(0.2)
    asked = {"model": "fusion", "messages": [{"role": "user", "content": "What is the capital of Australia?"}]}
    print(client.chat.completions.create(**asked).choices[0].message.content)
    for chunk in client.chat.completions.create(stream=True, **asked):
        print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="")
    print()
finally:
    proxy.terminate()
    proxy.wait()
