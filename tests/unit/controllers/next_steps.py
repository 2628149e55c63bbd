"""Warning Events end with a next step, whoever records them: what the tests of this room hold in each run.

A step comes last in a text, after a semicolon, and begins with what to do. Does not know whether it helps; that is for who reads it.
"""

import re

from longshore.kube.events import EventRecorder, EventType

# Words with which a step begins.
_STEP = re.compile(
    r"(add|apply|ask|back|bring|check|choose|correct|create|delete|encode|end|export|give|keep|lay|leave|look|make|mend|mount|name|open|put|raise|remove|report|restore|run|"
    r"save|search|see|set|start|take|upgrade|use|wait|write)\b"
)


def says_step(text):
    """Whether a text says, after its cause, what to do; a step may have two parts itself."""
    _cause, *parts = text.split("; ")
    return any(_STEP.match(part) for part in parts)


class Watch:
    """Sees every Warning that is recorded, and by which reason."""

    def __init__(self):
        self.seen = []

    def see(self, event_type, reason, message):
        if event_type == EventType.WARNING:
            self.seen.append((reason, message))

    def check(self):
        silent = [one for one in self.seen if not says_step(one[1])]
        assert not silent, f"a Warning without a next step: {silent}"


def watched(monkeypatch):
    """Watch all recorders of this process."""
    watch, record = Watch(), EventRecorder.record

    def see(self, obj, event_type, reason, message):
        watch.see(event_type, reason, message)
        record(self, obj, event_type, reason, message)

    monkeypatch.setattr(EventRecorder, "record", see)
    return watch
