"""Who the clients of this host talk to: the agent's HTTP face.

`hot.py` (with `starts.py`) is a connection and answers ordinary calls to models itself; all else is an ASGI
application, `server.py`, which alone decides who may ask what. `waiting.py` and `chat.py` wait for answers there;
`admin.py` and `v2.py` are the addresses that change what is loaded, `documented.py` is what the OpenAPI document
says of bodies.
"""
