"""The load process: its own process, the same for all cases, so that it costs all of them alike."""
