"""The MLLP edge: HL7 messages in, one answer a message out, in order (HL7 v2.5.1 2.9, MLLP Release 1).

frames.py        blocks out of a stream of bytes
wire.py          one connection as bytes, plain or TLS
conversation.py  one connection as messages: each is run, its answers go back
answers.py       which answers a message gets and what they say: the answer table, both acknowledgment modes
turns.py         whose message runs next
listener.py      the ports: who may connect, how many, how all of them end
tls.py           certificates, as files and as names
figures.py       counters for ``/metrics``
serving.py       the process: what a crash left, the ports, the stop
"""

from gateway.edges.mllp.answers import ANSWERS, Answer, answer_for
from gateway.edges.mllp.frames import END, START, Frames, NotMllp, TooLarge
from gateway.edges.mllp.listener import Listener, bound_ports
from gateway.edges.mllp.serving import serve

__all__ = ["ANSWERS", "END", "START", "Answer", "Frames", "Listener", "NotMllp", "TooLarge", "answer_for",
           "bound_ports", "serve"]
