"""A run's events and state over HTTP, from a process of its own that reads what the run has written.

chunk        lines of a journal, encoded once for all who are sent them
filters      which of them somebody wants
records      what a stream says itself: a gap, the end
feed         the newest lines of a journal, and following it from any position on
sse          server-sent events
websocket    the same over a WebSocket
lines        the same as lines, with nothing around them
served       the runs in a folder, by their ids
series       the metrics of a run, down-sampled as they are read
api          runs, metrics, subscribers and checkpoints as JSON
prometheus   the same for Prometheus
openapi      what there is, as an OpenAPI document
requests     what a client asks for, and the answer
routes       a thing that can be asked for
stream       one client's stream, whatever carries it
pages        the page
control      commands to a run that is on, where that is allowed
security     who may ask for what
app          from a request to its answer
connections  sockets: how many, how long, how slow
unix         a Unix socket that speaks HTTP, and lines
listening    the sockets, and the address that people are told
server       all of it as a server
process      the server as a process beside a run

Nothing here imports torch, and nothing in the process that trains waits for it.
"""
