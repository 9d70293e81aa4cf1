"""The MLLP edge: HL7 messages in, one answer a message out, in order (HL7 v2.5.1 2.9, MLLP Release 1).

frames.py    blocks out of a stream of bytes
listener.py  the ports and their connections: limits, TLS handshake, drain; a message in, its answers out
answers.py   which answers a message gets and what they say: the answer table, both acknowledgment modes, batches
turns.py     whose message runs next
tls.py       certificates, as files and as names
figures.py   counters for ``/metrics``
serving.py   the process: ports, recovery, stop
"""

from gateway.edges.mllp.listener import ANSWERS, END, START, Answer, Frames, Limits, Listener, NotMllp, TooLarge, answer_for, bound_port, serve

__all__ = ["ANSWERS", "END", "START", "Answer", "Frames", "Limits", "Listener", "NotMllp", "TooLarge", "answer_for", "bound_port", "serve"]
