"""The agent: one host's server of models. A folder is a room, and each imports only rooms below it:

__main__     one process's life
process/     what it was told, where it listens
front/       the HTTP face
telemetry/   /status and /metrics
protocol/    which bytes ask for what
engine/      requests and devices, brought together
versions/    what is loaded, and which version answers
crew/        the worker processes, as the front has them
worker/      a worker process itself, with model/: torch lives there
outside/     outside engines as models
served/      the nouns of the four above
tracing/ http/ generate/ device/ crossing/ queue/ values/
"""
