"""What every test starts from."""

import signal

# A shell that starts a command in the background makes it ignore Ctrl-C, and its children inherit that; tests
# that press Ctrl-C on a child need it to be heard.
signal.signal(signal.SIGINT, signal.default_int_handler)
