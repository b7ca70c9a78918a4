"""Counts the words of a file: an agent in Python, see examples/flows/agents.toml.

Input: {"file": PATH}. Output: {"file": PATH, "words": N}. Adds N to the memory key `words`.
"""

import guild_agent


def perform(task):
    path = task.input["file"]
    words = 0
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines):
                words += len(line.split())
                if number % 10_000 == 0:
                    task.heartbeat()
    except FileNotFoundError as error:
        raise guild_agent.Fatal(f"no such file: {path}") from error
    task.add("words", words)
    return {"file": path, "words": words}


guild_agent.serve(perform)
