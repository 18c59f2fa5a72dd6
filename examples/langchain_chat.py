"""A conversation that is remembered: LangChain's ChatOpenAI with the history of what was said.

A model remembers nothing by itself: each question goes out with all that was said before, which is
why the prompt grows. Because of the seed, whoever runs this a second time is told the same.

Start the gateway with OPENAI_API_KEY=… scripts/serve, then:
.venv/bin/python examples/langchain_chat.py
Another model is named behind it: .venv/bin/python examples/langchain_chat.py NAME
"""

import os
import sys

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

QUESTIONS = [
    "My name is Ada, and I am packing for a journey to Mars. What do most people forget?",
    "How much of that should I take?",
    "Where am I going, and what is my name?",
]

chat = ChatOpenAI(
    model=sys.argv[1] if len(sys.argv) > 1 else "gpt-4o-mini",
    base_url=os.environ.get("GATEWAY_URL", "http://127.0.0.1:8000/v1"),
    api_key="anything",
    seed=123,
    temperature=0,
    max_tokens=100,
)
history = [SystemMessage("You answer in one sentence.")]

for question in QUESTIONS:
    history.append(HumanMessage(question))
    answer = chat.invoke(history)
    history.append(answer)
    print(f"Ada: {question}")
    print(f"Model: {' '.join(answer.text.split())}")
    print(f"  {answer.usage_metadata['input_tokens']} tokens of prompt\n")

print(f"{len(history)} messages remembered")
