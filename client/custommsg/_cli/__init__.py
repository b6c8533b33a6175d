"""The command line: `app` has the commands, `show` what they print."""
