"""Stands in for `python`: hands its arguments, environment, folder and standard streams to the server beside it, and
ends as the server says that they have ended."""

import json
import os
import signal
import socket
import sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect(os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "socket"))
    request = {"arguments": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()}
    content = json.dumps(request).encode()
    socket.send_fds(server, [len(content).to_bytes(8, "little")], [0, 1, 2])
    server.sendall(content)
    answer = server.recv(64)
status = int(answer or b"1")
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
