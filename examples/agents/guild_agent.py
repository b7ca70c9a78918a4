"""Speaks version 1 of Guild's protocol for process agents; needs nothing but Python 3.

    import guild_agent

    def perform(task):
        task.add("words", 3)
        return {"words": 3}

    guild_agent.serve(perform)

What `perform` returns is the output of the task. What it raises fails the attempt: `Fatal` for good,
anything else is tried again. `docs/process-agents.md` describes the protocol.
"""

import json
import os
import sys

PROTOCOL = 1


class Fatal(Exception):
    """The task cannot succeed, however often it is tried."""


class Refused(Exception):
    """The guild cannot do what the task asked for."""


class Task:
    """The task that is performed: its input, and its transaction on the shared memory."""

    def __init__(self, pipe, assign):
        self._pipe = pipe
        self._token = assign["token"]
        self._requests = 0
        self.input = assign["input"]
        self.name = assign["task"]
        self.run = assign["run"]
        self.attempt = assign["attempt"]
        self.idempotency_key = assign["idempotency_key"]

    def heartbeat(self):
        """Renews the lease."""
        self._say("heartbeat")

    def get(self, key, default=None):
        """Returns the value of a key as this task would leave it."""
        answer = self._ask("get", key=key)
        return answer["value"] if answer["found"] else default

    def scan(self, prefix, limit=1000):
        """Returns the keys that begin with a prefix, with their values."""
        return {key: value for key, value in self._ask("scan", prefix=prefix, limit=limit)["rows"]}

    def put(self, key, value):
        """Sets a key, when the task completes."""
        self._say("put", key=key, value=value)

    def delete(self, key):
        """Removes a key, when the task completes."""
        self._say("delete", key=key)

    def add(self, key, amount, floor=None):
        """Adds a whole number to a key; with a floor, the task fails if less than that is left."""
        self._say("add", key=key, amount=amount, floor=floor)

    def ask_add(self, key, amount, floor):
        """Adds as `add` does, and raises `Refused` if less than the floor would be left."""
        self._ask("add", key=key, amount=amount, floor=floor)

    def merge(self, key, operation, value, **options):
        """Changes a key by an operation on whatever is there: max, min, set_add, set_remove,
        append (with len_max), put_if_absent, patch."""
        self._say("merge", key=key, operation=operation, value=value, **options)

    def spawn(self, name, role, **options):
        """Adds a task that begins when this one has completed."""
        self._say("spawn", name=name, role=role, **options)

    def _say(self, kind, **fields):
        self._pipe.send({"type": kind, "token": self._token, **fields})

    def _ask(self, kind, **fields):
        self._requests += 1
        self._say(kind, id=self._requests, **fields)
        answer = self._pipe.receive()
        if answer["type"] == "refused":
            raise Refused(answer["message"])
        return answer


class Pipe:
    """The lines to and from the guild."""

    def __init__(self):
        # What the agent prints must not get between the messages.
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
        os.dup2(2, 1)
        self._in = os.fdopen(os.dup(0), "r", encoding="utf-8", newline="\n")

    def send(self, message):
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def receive(self):
        line = self._in.readline()
        message = json.loads(line) if line else {"type": "cancel"}
        if message["type"] == "cancel":
            # The task was taken away, or the guild is gone: there is nothing left to do.
            sys.exit(0)
        return message


def serve(perform):
    """Performs tasks until the guild closes the pipe."""
    pipe = Pipe()
    hello = pipe.receive()
    pipe.send({"type": "ready", "protocol": PROTOCOL})
    if hello["protocol"] != PROTOCOL:
        sys.exit(1)
    while True:
        assign = pipe.receive()
        task = Task(pipe, assign)
        try:
            answer = {"type": "result", "output": perform(task)}
        except MemoryError:
            raise
        except Fatal as error:
            answer = {"type": "error", "message": str(error), "retryable": False}
        except Exception as error:
            answer = {"type": "error", "message": f"{type(error).__name__}: {error}"}
        pipe.send({**answer, "token": assign["token"]})
