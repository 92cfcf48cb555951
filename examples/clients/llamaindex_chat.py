"""LlamaIndex: `pip install llama-index-llms-openai-like`. A prompt and a chat, whole and as they are written."""

import os

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

where = {
    "model": "fusion",
    "api_base": os.environ.get("FUSION_SERVER", "http://127.0.0.1:8383") + "/v1",
    "api_key": os.environ.get("FUSION_SERVER_KEY", "none"),
}
question = "What is the capital of Australia?"

# By default it speaks the older Completions.
prompted = OpenAILike(**where)
print(prompted.complete(question).text)
print("".join(piece.delta or "" for piece in prompted.stream_complete(question)))

chatting = OpenAILike(is_chat_model=True, is_function_calling_model=True, **where)
print(chatting.chat([ChatMessage(content=question)]).message.content)
print("".join(piece.delta or "" for piece in chatting.stream_chat([ChatMessage(content=question)])))
